//! The one place that handles `Ready`.
//!
//! Order, which is the whole point: messages that rest on nothing new → one durable write of {snapshot,
//! entries, hard state} → messages that rest on it → committed entries of `Ready`, then of `LightReady` →
//! advance. Nothing is acknowledged before the write returned, and everything committed is applied exactly
//! once.
//!
//! The pump walks through stages. A step from one to the next may ask for a write; the call ends there, the
//! owner makes the write durable, and [`Consensus::written`] goes on. A step that asks for none is taken at
//! once.
//!
//! | step | its write |
//! |---|---|
//! | `Next` → `Persisted`: a Ready is there | its snapshot, entries and hard state |
//! | `Persisted` → `Advanced`: what rests on it is done | the commit index, if it moved; not synced |
//! | `Advanced` → `Next`: the LightReady is done | the hard state, synced, if the configuration changed |
//! | `Next` → `Cut`: no Ready is left, the log is large | a snapshot of the applied state |
//! | `Cut` → `Rest`, or `Next` → `Rest` when the log is small | none |

use blixard_model::MembershipChange;
use raft::eraftpb::{Entry, EntryType};
use raft::{LightReady, Ready, StateRole};

use super::{Consensus, Stage};
use crate::change::{conf_change, decode_change};
use crate::effects::{Applied, Effects, PumpError};
use crate::machine::Machine;
use crate::stored_form::{HardState, LogWrite, store_entry, store_snapshot};

/// Where the pump goes on, and what has to be durable before it does; an empty write is none.
type Next = Result<(Stage, LogWrite), PumpError>;

impl<M: Machine> Consensus<M> {
    /// Does all there is to do until something has to be durable: call it after every batch of inputs.
    ///
    /// # Errors
    /// Final; the node must not be used any more.
    ///
    /// # Panics
    /// A write is under way.
    pub fn pump(&mut self) -> Result<Effects<M::Outcome>, PumpError> {
        self.at_rest();
        self.go_on(Stage::Next)
    }

    /// The write that came out last is durable: does what rests on it, up to the next write if there is one.
    ///
    /// # Errors
    /// Final; the node must not be used any more.
    ///
    /// # Panics
    /// No write is under way.
    pub fn written(&mut self) -> Result<Effects<M::Outcome>, PumpError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Rest);
        assert!(!matches!(stage, Stage::Rest), "a bug of the owner: no write is under way");
        self.go_on(stage)
    }

    fn go_on(&mut self, mut stage: Stage) -> Result<Effects<M::Outcome>, PumpError> {
        let mut effects = Effects::none();
        loop {
            let write;
            (stage, write) = match stage {
                Stage::Next => self.begin_ready(&mut effects)?,
                Stage::Persisted(ready) => self.finish_ready(*ready, &mut effects)?,
                Stage::Advanced { light, reconfigured } => {
                    self.finish_light_ready(light, reconfigured, &mut effects)?
                }
                Stage::Cut { snapshot, up_to } => {
                    let log = self.raw.mut_store();
                    log.set_outgoing(snapshot);
                    log.compact(up_to);
                    (Stage::Rest, LogWrite::default())
                }
                Stage::Rest => {
                    effects.reads = self.keys.take_reads(self.replica.index());
                    return Ok(effects);
                }
            };
            if !write.is_empty() {
                self.stage = stage;
                effects.write = Some(write);
                return Ok(effects);
            }
        }
    }

    fn begin_ready(&mut self, effects: &mut Effects<M::Outcome>) -> Next {
        if !self.raw.has_ready() {
            return Ok(self.settle());
        }
        let mut ready = self.raw.ready();
        effects.send(ready.take_messages());
        for state in ready.take_read_states() {
            self.keys.note_read(&state.request_ctx, state.index);
        }
        let write = self.persist(&ready, effects)?;
        Ok((Stage::Persisted(Box::new(ready)), write))
    }

    /// The one durable write of a Ready.
    fn persist(&mut self, ready: &Ready, effects: &mut Effects<M::Outcome>) -> Result<LogWrite, PumpError> {
        let mut write = LogWrite { sync: ready.must_sync(), ..LogWrite::default() };
        let snapshot = ready.snapshot();
        let index = snapshot.get_metadata().index;
        if index > 0 {
            self.replica.restore(snapshot).map_err(|why| PumpError::Apply { index, why })?;
            write.snapshot = Some(store_snapshot(snapshot));
            write.clear_log = true;
            write.sync = true;
            self.raw.mut_store().restore(snapshot);
            effects.restored = true;
        }
        write.entries = ready.entries().iter().map(store_entry).collect();
        self.raw.mut_store().append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            self.raw.mut_store().set_hard_state(hard_state.clone());
        }
        if ready.hs().is_some() || write.snapshot.is_some() {
            write.hard_state = Some(self.hard_state());
        }
        Ok(write)
    }

    fn finish_ready(&mut self, mut ready: Ready, effects: &mut Effects<M::Outcome>) -> Next {
        effects.send(ready.take_persisted_messages());
        let changes = effects.membership.len();
        self.apply_all(ready.take_committed_entries(), effects)?;
        let reconfigured = effects.membership.len() > changes;
        let light = self.raw.advance(ready);
        let mut write = LogWrite::default();
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
            write.hard_state = Some(self.hard_state());
        }
        Ok((Stage::Advanced { light, reconfigured }, write))
    }

    fn finish_light_ready(
        &mut self,
        mut light: LightReady,
        reconfigured: bool,
        effects: &mut Effects<M::Outcome>,
    ) -> Next {
        effects.send(light.take_messages());
        let changes = effects.membership.len();
        self.apply_all(light.take_committed_entries(), effects)?;
        self.raw.advance_apply();
        let mut write = LogWrite::default();
        // Raft counts votes by the configuration that it has applied, and a commit index that was not synced
        // is forgotten in a crash: without this all that are left might count with a voter that is gone.
        let reconfigured = reconfigured || effects.membership.len() > changes;
        if reconfigured {
            write = LogWrite { hard_state: Some(self.hard_state()), sync: true, ..write };
        }
        Ok((Stage::Next, write))
    }

    fn hard_state(&self) -> HardState {
        let state = self.raw.store().hard_state();
        HardState { term: state.term, vote: state.vote, commit: state.commit }
    }

    fn apply_all(&mut self, entries: Vec<Entry>, effects: &mut Effects<M::Outcome>) -> Result<(), PumpError> {
        for entry in entries {
            // A snapshot may have covered what was already on its way.
            if entry.index <= self.replica.index() {
                continue;
            }
            match entry.get_entry_type() {
                EntryType::EntryNormal => self.apply_command(&entry, effects)?,
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.apply_configuration(&entry, effects)?;
                }
            }
            self.replica.pass(&entry);
        }
        Ok(())
    }

    fn apply_command(&mut self, entry: &Entry, effects: &mut Effects<M::Outcome>) -> Result<(), PumpError> {
        // A leader's first entry is empty: it commits what came before it.
        if entry.data.is_empty() {
            return Ok(());
        }
        let applied = self.replica.apply((entry.index, entry.term), &entry.data);
        let outcome = applied.map_err(|why| PumpError::Apply { index: entry.index, why })?;
        let key = self.keys.take_proposal(&entry.context);
        effects.applied.push(Applied { index: entry.index, key, outcome });
        Ok(())
    }

    /// One that does not fit the members there are now is a no-op, on every replica alike.
    fn apply_configuration(
        &mut self,
        entry: &Entry,
        effects: &mut Effects<M::Outcome>,
    ) -> Result<(), PumpError> {
        let change = decode_change(entry).map_err(|why| PumpError::Apply { index: entry.index, why })?;
        if self.replica.check_membership(&change, &self.voters()).is_err() {
            return Ok(());
        }
        let applied = self.raw.apply_conf_change(&conf_change(&change));
        let conf_state = applied.map_err(|source| PumpError::Configuration { index: entry.index, source })?;
        self.raw.mut_store().set_conf_state(conf_state);
        self.replica.apply_membership(&change);
        self.step_down_if_out(&change);
        effects.membership.push(change);
        Ok(())
    }

    /// Who was to be removed may have been elected before that was committed, and commits it itself. raft 0.7
    /// stays leader then, and panics at the next answer.
    fn step_down_if_out(&mut self, change: &MembershipChange) {
        if self.takes_own_vote(change) && self.raw.raft.state == StateRole::Leader {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, 0);
        }
    }

    /// Nothing is left of the inputs: what can be done with the applied state.
    fn settle(&mut self) -> (Stage, LogWrite) {
        if self.raw.store().take_snapshot_wanted() {
            let snapshot = self.replica.snapshot(self.raw.store().conf_state());
            self.raw.mut_store().set_outgoing(snapshot);
        }
        self.replica.forget_read_ahead();
        self.cut_if_large()
    }

    fn cut_if_large(&mut self) -> (Stage, LogWrite) {
        let (entries, bytes) = self.raw.store().size();
        let limits = self.config.limits;
        let keep_entries = u64::try_from(limits.keep_entries).unwrap_or(u64::MAX);
        // Counted from what is kept on purpose, or a full memory would be cut again at every entry.
        let small = entries < limits.compact_entries.saturating_add(limits.keep_entries)
            && bytes < limits.compact_bytes;
        // What is not applied cannot be cut: a snapshot that would cut next to nothing is not worth its
        // write.
        let applied = self.replica.index();
        let worthless = applied.saturating_sub(self.cut_at) < keep_entries;
        if small || worthless {
            return (Stage::Rest, LogWrite::default());
        }
        self.cut_at = applied;
        let snapshot = self.replica.snapshot(self.raw.store().conf_state());
        let write = LogWrite {
            snapshot: Some(store_snapshot(&snapshot)),
            hard_state: Some(self.hard_state()),
            sync: true,
            ..LogWrite::default()
        };
        let keep = if bytes < limits.compact_bytes { keep_entries } else { 0 };
        (Stage::Cut { snapshot, up_to: applied.saturating_sub(keep) }, write)
    }
}
