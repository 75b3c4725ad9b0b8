//! The Raft node: what goes in, and what is seen from outside.

mod ready;

use blixard_model::{MembershipChange, RaftId, Refusal, mutant};
use raft::eraftpb::{MessageType, Snapshot};
use raft::{LightReady, Ready, StateRole};

use crate::accept;
use crate::change::conf_change;
use crate::config::ConsensusConfig;
use crate::error::{NewError, ProposeError, StepError};
use crate::inbound::Inbound;
use crate::keys::Keys;
use crate::limits::COMMAND_LEN_MAX;
use crate::log::LogStats;
use crate::machine::Machine;
use crate::parts::{Log, Raw, ReplicatedMachine};
use crate::resume::Resumed;
use crate::status::{RaftStatus, UnderWay};
use crate::stored_form::Durable;

/// One Raft node and its state machine. Owned by one task; see the crate's documentation.
///
/// It is at rest, or a write that it handed out is under way. Inputs are for a node at rest alone: Raft would
/// make what it says next rest on a Ready whose write may still fail. Whatever only looks is allowed at any
/// time.
pub struct Consensus<M: Machine> {
    raw: Raw,
    replica: ReplicatedMachine<M>,
    keys: Keys,
    /// The applied index of the last snapshot that was written to cut the log.
    cut_at: u64,
    config: ConsensusConfig,
    stage: Stage,
}

/// What comes next, once the write that was handed out before it is durable.
enum Stage {
    /// Inputs, then the pump.
    Rest,
    /// The next Ready, or the end of the pump when there is none.
    Next,
    /// What rests on the Ready's write: its persisted messages, its committed entries, the advance.
    Persisted(Box<Ready>),
    /// The LightReady that the advance gave.
    Advanced { light: LightReady, reconfigured: bool },
    /// The log in memory is cut up to an index behind this snapshot.
    Cut { snapshot: Snapshot, up_to: u64 },
}

impl<M: Machine> std::fmt::Debug for Consensus<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl<M: Machine> Consensus<M> {
    /// Resumes from what the store holds: term, vote, log and configuration, nothing of it reset.
    ///
    /// # Errors
    /// The store's content cannot be understood.
    pub fn new(config: ConsensusConfig, durable: &Durable, machine: M) -> Result<Self, NewError> {
        let Resumed { snapshot, entries, hard_state } =
            Resumed::read(config.raft_id, durable).map_err(NewError::Corrupt)?;
        let replica = ReplicatedMachine::new(machine, snapshot.as_ref()).map_err(NewError::Corrupt)?;
        let log = Log::new(snapshot.as_ref(), entries, hard_state);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let base = replica.index();
        let raw = Raw::new(&config.raft(base), log, &logger).map_err(NewError::Raft)?;
        let keys = Keys::new(config.raft_id, config.incarnation);
        Ok(Self { raw, replica, keys, cut_at: base, config, stage: Stage::Rest })
    }

    /// The Raft node, to put something into it.
    ///
    /// # Panics
    /// A write is under way.
    #[track_caller]
    fn at_rest(&mut self) -> &mut Raw {
        assert!(
            matches!(self.stage, Stage::Rest),
            "a bug of the owner: an input while a write is under way; call Consensus::written first"
        );
        &mut self.raw
    }

    /// One [`crate::TICK_MS`] has passed.
    ///
    /// # Panics
    /// A write is under way.
    pub fn tick(&mut self) {
        let config = self.config;
        let raw = self.at_rest();
        // raft draws its election timeout from a thread-local generator each time it resets; ours is set
        // before every tick, so that what counts is always the hash.
        let timeout = config.election_timeout(raw.raft.term);
        raw.raft.set_randomized_election_timeout(timeout);
        raw.tick();
    }

    /// A message from another member. The caller has made sure that it came from [`Inbound::from`].
    ///
    /// # Errors
    /// It is dropped; Raft sends again. [`StepError::RolledBack`] alone is final.
    ///
    /// # Panics
    /// A write is under way.
    pub fn step(&mut self, inbound: Inbound) -> Result<(), StepError> {
        let message = inbound.message();
        accept::check_against(self.at_rest(), message)?;
        if message.get_msg_type() == MessageType::MsgSnapshot {
            self.replica.read_ahead(message.get_snapshot()).map_err(StepError::Snapshot)?;
        }
        self.raw.step(inbound.into_message()).map_err(|error| StepError::Raft(error.to_string()))
    }

    /// Proposes a command; the key comes back in [`crate::Applied`] when it is applied here. It may never be.
    ///
    /// # Errors
    /// Nothing was proposed.
    ///
    /// # Panics
    /// A write is under way.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, ProposeError> {
        self.at_rest();
        if data.len() > COMMAND_LEN_MAX {
            return Err(ProposeError::TooLarge);
        }
        self.check_leads()?;
        if !self.keys.has_room_for_proposal() {
            return Err(ProposeError::Busy);
        }
        let (key, name) = self.keys.make();
        self.raw.propose(name, data).map_err(|_| ProposeError::Busy)?;
        self.keys.add_proposal(key);
        Ok(key)
    }

    /// Proposes a membership change, one at a time.
    ///
    /// # Errors
    /// Nothing was proposed.
    ///
    /// # Panics
    /// A write is under way.
    pub fn propose_membership(&mut self, change: &MembershipChange) -> Result<(), ProposeError> {
        self.at_rest();
        self.check_leads()?;
        self.replica.check_membership(change, &self.voters()).map_err(ProposeError::Refused)?;
        // raft 0.7 panics when a leader goes on that does not vote.
        if self.takes_own_vote(change) {
            let why = "the leader cannot remove or demote itself: transfer the leadership first".to_owned();
            return Err(ProposeError::Refused(Refusal::Membership { why }));
        }
        let context = change
            .encode()
            .map_err(|error| ProposeError::Refused(Refusal::Membership { why: error.to_string() }))?;
        // raft 0.7 would take it, and put an empty entry into the log in its place.
        if self.membership_pending() {
            return Err(ProposeError::ChangeUnderWay);
        }
        let mut conf_change = conf_change(change);
        conf_change.context = context.into();
        self.raw.propose_conf_change(Vec::new(), conf_change).map_err(|_| ProposeError::Busy)
    }

    /// Whether this node does not vote any more after the change.
    fn takes_own_vote(&self, change: &MembershipChange) -> bool {
        match change {
            MembershipChange::Remove { raft_id, .. } | MembershipChange::Demote { raft_id } => {
                *raft_id == self.config.raft_id
            }
            MembershipChange::AddLearner { .. } | MembershipChange::Promote { .. } => false,
        }
    }

    /// Whether a membership change is proposed and not applied yet.
    pub fn membership_pending(&self) -> bool {
        self.raw.raft.has_pending_conf()
    }

    /// Asks for a linearizable read. The key comes back in [`crate::Effects::reads`] once everything
    /// acknowledged before this call is applied here; it may never come back (no leader yet): ask again after
    /// a while. `None`: too many reads wait.
    ///
    /// # Panics
    /// A write is under way.
    pub fn read(&mut self) -> Option<u64> {
        self.at_rest();
        if !self.keys.has_room_for_read() {
            return None;
        }
        let (key, name) = self.keys.make();
        let at_once = mutant::lives("read-without-read-index").then_some(self.replica.index());
        self.keys.add_read(key, at_once);
        self.raw.read_index(name);
        Some(key)
    }

    /// Forgets a read nobody waits for any more.
    pub fn forget_read(&mut self, key: u64) {
        self.keys.forget_read(key);
    }

    /// Forgets a proposal nobody waits for any more; it may still be applied.
    pub fn forget_proposal(&mut self, key: u64) {
        self.keys.forget_proposal(key);
    }

    /// The link to a member is down, or its queue full: probe instead of streaming.
    ///
    /// # Panics
    /// A write is under way.
    pub fn report_unreachable(&mut self, member: RaftId) {
        self.at_rest().report_unreachable(member.0);
    }

    /// How the sending of a snapshot ended.
    ///
    /// # Panics
    /// A write is under way.
    pub fn report_snapshot(&mut self, member: RaftId, delivered: bool) {
        if mutant::lives("snapshot-end-not-reported") {
            return;
        }
        let status = if delivered { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.at_rest().report_snapshot(member.0, status);
    }

    /// As leader, hands the leadership to the voter that has most of the log. False when there is none to
    /// take it.
    ///
    /// # Panics
    /// A write is under way.
    pub fn transfer_leadership(&mut self) -> bool {
        let status = self.status();
        let best = status
            .progress
            .iter()
            .filter(|(id, (_, active))| **id != status.id && *active && status.voters.contains(id))
            .max_by_key(|(id, (matched, _))| (*matched, std::cmp::Reverse(**id)));
        let raw = self.at_rest();
        let (StateRole::Leader, Some((to, _))) = (raw.raft.state, best) else { return false };
        raw.transfer_leader(to.0);
        true
    }

    /// A moment's view.
    pub fn status(&self) -> RaftStatus {
        RaftStatus::of(&self.raw, self.replica.index())
    }

    /// What this node has under way as leader; nothing when it does not lead.
    pub fn under_way(&self) -> UnderWay {
        UnderWay::of(&self.raw)
    }

    /// Whether this node leads its term and has committed in it: only then its state is certainly the newest.
    pub fn leads(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.raw.raft.commit_to_current_term()
    }

    /// The state machine.
    pub fn machine(&self) -> &M {
        self.replica.machine()
    }

    /// The state machine, of a node that has ended.
    pub fn into_machine(self) -> M {
        self.replica.into_machine()
    }

    /// How large the log is.
    pub fn log_stats(&self) -> LogStats {
        self.raw.store().stats()
    }

    /// The state machine, for a planted bug to write past the log.
    #[cfg(blixard_mutants)]
    pub fn machine_mut(&mut self) -> &mut M {
        self.replica.machine_mut()
    }

    /// Whether this node is in Raft's configuration, as far as it has applied.
    pub fn is_member(&self) -> bool {
        let conf = self.raw.store().conf_state();
        let id = self.config.raft_id.0;
        conf.voters.contains(&id) || conf.learners.contains(&id)
    }

    fn voters(&self) -> Vec<RaftId> {
        self.raw.store().conf_state().voters.iter().map(|id| RaftId(*id)).collect()
    }

    fn check_leads(&self) -> Result<(), ProposeError> {
        let raft = &self.raw.raft;
        if raft.state == StateRole::Leader && raft.lead_transferee.is_none() {
            return Ok(());
        }
        let other = (raft.leader_id != 0 && raft.leader_id != raft.id).then_some(RaftId(raft.leader_id));
        Err(ProposeError::NotLeader(other))
    }
}
