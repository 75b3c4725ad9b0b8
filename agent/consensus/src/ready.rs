//! The one place that handles `Ready`.
//!
//! Order, which is the whole point: messages that rest on nothing new → one durable write of {snapshot,
//! entries, hard state} → messages that rest on it → committed entries of `Ready`, then of `LightReady` →
//! advance. Nothing is acknowledged before the write returned, and everything committed is applied exactly
//! once.

use blixard_model::{MembershipChange, RaftId, mutant};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use raft::{Ready, StateRole, Storage as _};

use crate::durable::{
    HardState, LogStore, LogWrite, decode_change, encode_behind, store_entry, store_snapshot,
};
use crate::machine::Machine;
use crate::node::{Consensus, conf_change};

/// A message to a member.
#[derive(Debug)]
pub struct Outgoing {
    /// To whom.
    pub to: RaftId,
    /// A snapshot: large, and its delivery must be reported.
    pub is_snapshot: bool,
    message: Message,
}

impl Outgoing {
    /// Raft's encoding, behind a head. A snapshot is copied once.
    pub fn encode_behind(&self, head: &[u8]) -> Vec<u8> {
        encode_behind(head, &self.message)
    }
}

/// An applied command.
#[derive(Debug)]
pub struct Applied<O> {
    /// Its place in the log.
    pub index: u64,
    /// The key of the proposal, if it was this node's in this run.
    pub key: Option<u64>,
    /// What it gave.
    pub outcome: O,
}

/// What the owner has to carry out.
#[derive(Debug)]
pub struct Effects<O> {
    /// To be sent, in order; any may be dropped.
    pub messages: Vec<Outgoing>,
    /// Applied commands, in log order.
    pub applied: Vec<Applied<O>>,
    /// Applied membership changes, in log order.
    pub membership: Vec<MembershipChange>,
    /// Reads that may be served now.
    pub reads: Vec<u64>,
    /// The state was replaced by a leader's snapshot.
    pub restored: bool,
}

/// Why the pump stopped. The process must end: what is on disk is what counts.
#[derive(Debug, thiserror::Error)]
pub enum PumpError<E: std::error::Error + 'static> {
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] E),
    /// An entry or snapshot that this version does not understand.
    #[error("index {index} can not be applied: {why}; upgrade this node")]
    Apply {
        /// The index.
        index: u64,
        /// Why.
        why: String,
    },
    /// Raft refused a configuration that the log holds.
    #[error("raft refused the configuration at index {index}: {source}")]
    Configuration {
        /// The index.
        index: u64,
        /// Why.
        source: raft::Error,
    },
}

type PumpResult<T, S> = Result<T, PumpError<<S as LogStore>::Error>>;

impl<M: Machine, S: LogStore> Consensus<M, S> {
    /// Does all there is to do: call it after every batch of inputs. Writes block until they are durable.
    ///
    /// # Errors
    /// Final; the node must not be used any more.
    pub fn pump(&mut self) -> PumpResult<Effects<M::Outcome>, S> {
        let mut effects = Effects {
            messages: Vec::new(),
            applied: Vec::new(),
            membership: Vec::new(),
            reads: Vec::new(),
            restored: false,
        };
        while self.raw.has_ready() {
            self.handle_ready(&mut effects)?;
        }
        if self.raw.store().take_snapshot_wanted() {
            let snapshot = self.make_snapshot();
            self.raw.mut_store().set_outgoing(snapshot);
        }
        self.read_ahead = None;
        self.compact_if_large()?;
        self.serve_reads(&mut effects);
        Ok(effects)
    }

    fn handle_ready(&mut self, effects: &mut Effects<M::Outcome>) -> PumpResult<(), S> {
        let changes = effects.membership.len();
        let mut ready = self.raw.ready();
        send(effects, ready.take_messages());
        for state in ready.take_read_states() {
            let key = self.own_key(&state.request_ctx);
            if let Some(waiting) = key.and_then(|key| self.reads.get_mut(&key)) {
                *waiting = Some(state.index);
            }
        }
        self.persist(&ready, effects)?;
        let persisted = ready.take_persisted_messages();
        if !mutant::lives("persisted-messages-not-sent") {
            send(effects, persisted);
        }
        self.apply_all(ready.take_committed_entries(), effects)?;

        let mut light = self.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            self.raw.mut_store().set_commit(commit);
            let write = LogWrite { hard_state: Some(self.hard_state()), ..LogWrite::default() };
            self.store.write(&write).map_err(PumpError::Store)?;
        }
        send(effects, light.take_messages());
        if !mutant::lives("light-ready-dropped") {
            self.apply_all(light.take_committed_entries(), effects)?;
        }
        self.raw.advance_apply();
        if effects.membership.len() > changes && !mutant::lives("configuration-not-synced") {
            self.keep_configuration()?;
        }
        Ok(())
    }

    /// Raft counts votes by the configuration that it has applied, and a commit index that was not synced is
    /// forgotten in a crash: without this all that are left might count with a voter that is gone.
    fn keep_configuration(&mut self) -> PumpResult<(), S> {
        let hard_state = Some(self.hard_state());
        let write = LogWrite { hard_state, sync: true, ..LogWrite::default() };
        self.store.write(&write).map_err(PumpError::Store)
    }

    /// The one durable write of a Ready.
    fn persist(&mut self, ready: &Ready, effects: &mut Effects<M::Outcome>) -> PumpResult<(), S> {
        let mut write = LogWrite { sync: ready.must_sync(), ..LogWrite::default() };
        write.sync &= !mutant::lives("entries-not-synced") || ready.entries().is_empty();
        write.sync &= !mutant::lives("vote-not-synced") || !ready.entries().is_empty();
        let snapshot = ready.snapshot();
        if snapshot.get_metadata().index > 0 {
            self.restore_machine(snapshot)?;
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
        if mutant::lives("hard-state-not-written")
            || mutant::lives("snapshot-without-hard-state") && write.snapshot.is_some()
            || mutant::lives("vote-not-persisted") && write.entries.is_empty() && write.snapshot.is_none()
        {
            write.hard_state = None;
        }
        if write.is_empty() {
            return Ok(());
        }
        self.store.write(&write).map_err(PumpError::Store)
    }

    fn restore_machine(&mut self, snapshot: &Snapshot) -> PumpResult<(), S> {
        let meta = snapshot.get_metadata();
        // Compared by where it is, not byte by byte: what is kept can not have moved.
        let same = |(read, _): &mut (Snapshot, M::State)| {
            read.data.as_ptr() == snapshot.data.as_ptr() && read.data.len() == snapshot.data.len()
        };
        let state = match self.read_ahead.take_if(same) {
            Some((_, state)) => Ok(state),
            None => self.machine.read_snapshot(&snapshot.data),
        };
        self.machine.restore(state.map_err(|why| PumpError::Apply { index: meta.index, why })?);
        self.applied = meta.index;
        self.applied_term = meta.term;
        Ok(())
    }

    fn hard_state(&self) -> HardState {
        let state = self.raw.store().hard_state();
        HardState { term: state.term, vote: state.vote, commit: state.commit }
    }

    fn apply_all(&mut self, entries: Vec<Entry>, effects: &mut Effects<M::Outcome>) -> PumpResult<(), S> {
        for entry in entries {
            // A snapshot may have covered what was already on its way.
            if entry.index <= self.applied {
                continue;
            }
            match entry.get_entry_type() {
                EntryType::EntryNormal => self.apply_command(&entry, effects)?,
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.apply_configuration(&entry, effects)?;
                }
            }
            self.applied = entry.index;
            self.applied_term = entry.term;
        }
        Ok(())
    }

    fn apply_command(&mut self, entry: &Entry, effects: &mut Effects<M::Outcome>) -> PumpResult<(), S> {
        // A leader's first entry is empty: it commits what came before it.
        if entry.data.is_empty() {
            return Ok(());
        }
        let follows = |last: &Applied<_>| last.index + 1 == entry.index;
        if mutant::lives("second-of-two-lost") && effects.applied.last().is_some_and(follows) {
            return Ok(());
        }
        let run = if mutant::lives("local-value-in-apply") { self.config.incarnation } else { 0 };
        let applied = self.machine.apply(entry.index + run, &entry.data);
        let outcome = applied.map_err(|why| PumpError::Apply { index: entry.index, why })?;
        let key = self.own_key(&entry.context).filter(|key| self.proposals.remove(key));
        effects.applied.push(Applied { index: entry.index, key, outcome });
        Ok(())
    }

    /// One that does not fit the members there are now is a no-op, on every replica alike.
    fn apply_configuration(&mut self, entry: &Entry, effects: &mut Effects<M::Outcome>) -> PumpResult<(), S> {
        let change = decode_change(entry).map_err(|why| PumpError::Apply { index: entry.index, why })?;
        if self.machine.check_membership(&change, &self.voters()).is_err() {
            return Ok(());
        }
        let applied = self.raw.apply_conf_change(&conf_change(&change));
        let conf_state = applied.map_err(|source| PumpError::Configuration { index: entry.index, source })?;
        if !mutant::lives("stale-conf-state") {
            self.raw.mut_store().set_conf_state(conf_state);
        }
        self.machine.apply_membership(&change);
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

    fn make_snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_data(self.machine.snapshot().into());
        let metadata = snapshot.mut_metadata();
        metadata.index = self.applied;
        metadata.term = self.applied_term;
        metadata.set_conf_state(self.raw.store().conf_state().clone());
        if mutant::lives("applied-not-atomic")
            && let Ok(term) = self.raw.store().term(self.applied - 1)
        {
            (metadata.index, metadata.term) = (self.applied - 1, term);
        }
        snapshot
    }

    fn compact_if_large(&mut self) -> PumpResult<(), S> {
        let (entries, bytes) = self.raw.store().size();
        let limits = self.config.limits;
        let keep_entries = u64::try_from(limits.keep_entries).unwrap_or(u64::MAX);
        // Counted from what is kept on purpose, or a full memory would be cut again at every entry.
        let small = entries < limits.compact_entries.saturating_add(limits.keep_entries)
            && bytes < limits.compact_bytes;
        if small || mutant::lives("log-never-cut") {
            return Ok(());
        }
        // What is not applied can not be cut: a snapshot that would cut next to nothing is not worth its
        // write.
        if self.applied.saturating_sub(self.cut_at) < keep_entries {
            return Ok(());
        }
        self.cut_at = self.applied;
        let snapshot = self.make_snapshot();
        let write = LogWrite {
            snapshot: Some(store_snapshot(&snapshot)),
            hard_state: Some(self.hard_state()),
            sync: true,
            ..LogWrite::default()
        };
        self.store.write(&write).map_err(PumpError::Store)?;
        let keep = if bytes < limits.compact_bytes { keep_entries } else { 0 };
        let log = self.raw.mut_store();
        log.set_outgoing(snapshot);
        log.compact(self.applied.saturating_sub(keep));
        Ok(())
    }

    fn serve_reads(&mut self, effects: &mut Effects<M::Outcome>) {
        let applied = self.applied;
        let ready = |index: &Option<u64>| index.is_some_and(|index| index <= applied);
        effects.reads.extend(self.reads.iter().filter(|(_, index)| ready(index)).map(|(key, _)| *key));
        self.reads.retain(|_, index| !ready(index));
    }

    /// Whether this node leads its term and has committed in it: only then its state is certainly the newest.
    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.raw.raft.commit_to_current_term()
    }
}

fn send<O>(effects: &mut Effects<O>, messages: Vec<Message>) {
    effects.messages.extend(messages.into_iter().map(|message| Outgoing {
        to: RaftId(message.to),
        is_snapshot: message.get_msg_type() == MessageType::MsgSnapshot,
        message,
    }));
}
