//! The Raft node: what goes in.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{MembershipChange, RaftId, Refusal, mutant};
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, HardState, Message, MessageType, Snapshot,
};
use raft::{RawNode, ReadOnlyOption, StateRole};

use crate::accept;
use crate::durable::{self, Durable, LogStore};
use crate::log::Log;
use crate::machine::Machine;
use crate::shape;
use crate::status::{LogStats, RaftRole, RaftStatus};

/// The period of [`Consensus::tick`], in milliseconds.
pub const TICK_MS: u64 = 100;
/// Election timeouts lie between this many ticks and twice as many.
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;
/// Largest Raft message accepted from a peer, in bytes (snapshots come by another way and may be larger).
const MESSAGE_LEN_MAX: usize = 8 << 20;
/// Largest command, in bytes.
const COMMAND_LEN_MAX: usize = 256 << 10;
/// Most proposals waiting to be applied.
const PROPOSALS_MAX: usize = 4_096;
/// Most reads waiting for their index.
pub(crate) const READS_MAX: usize = 4_096;

/// What a node is started with.
#[derive(Debug, Clone, Copy)]
pub struct ConsensusConfig {
    /// This node's raft id.
    pub raft_id: RaftId,
    /// Differs in every run of the agent, so that names of reads and proposals are never used twice.
    pub incarnation: u64,
    /// Election timeouts are a hash of this, the id and the term: a run can be repeated.
    pub seed: u64,
    /// When the log is cut.
    pub limits: Limits,
}

/// When a snapshot is taken and the log cut behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Once it holds more entries than this, beside those that are kept anyway ...
    pub compact_entries: usize,
    /// ... or more bytes than this.
    pub compact_bytes: usize,
    /// Entries kept in memory behind the snapshot, for members a little behind.
    pub keep_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { compact_entries: 8_192, compact_bytes: 32 << 20, keep_entries: 1_024 }
    }
}

/// Why a node can not be made of what the store holds.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The store holds what can not be understood.
    #[error("the log can not be read: {0}")]
    Corrupt(String),
    /// Raft's own objection.
    #[error("raft: {0}")]
    Raft(raft::Error),
}

/// Why a proposal was not taken. Nothing happened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none.
    #[error("this node does not lead")]
    NotLeader(Option<RaftId>),
    /// Too much is under way.
    #[error("too many requests are under way: try again")]
    Busy,
    /// The command is too large.
    #[error("the request is larger than {COMMAND_LEN_MAX} bytes")]
    TooLarge,
    /// A membership change that does not fit.
    #[error("{0}")]
    Refused(Refusal),
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// No Raft message.
    #[error("not a raft message: {0}")]
    Malformed(String),
    /// Not from whom it says, not for this node, or of a kind that no node sends.
    #[error("not acceptable: {0}")]
    Unacceptable(&'static str),
    /// It came too late to mean anything; harmless.
    #[error("too late: {0}")]
    Late(&'static str),
    /// The leader's words rest on something that this node acknowledged to it and does not have. Final.
    #[error(
        "the leader heard this node acknowledge the log up to index {acknowledged}, and it ends at {last}: \
         the store lost what was on disk, or an older copy of it was put back"
    )]
    RolledBack {
        /// What this node acknowledged, by the leader's word.
        acknowledged: u64,
        /// Where its log ends.
        last: u64,
    },
    /// A snapshot whose state this version can not understand; this node stays behind until it is upgraded.
    #[error("the leader's snapshot can not be understood: {0}; upgrade this node")]
    Snapshot(String),
    /// Raft's own objection; harmless.
    #[error("raft: {0}")]
    Raft(String),
}

/// A decoded message of a peer, of a kind that a peer may send.
#[derive(Debug)]
pub struct Inbound(Message);

impl Inbound {
    /// Decodes what a peer sent.
    ///
    /// # Errors
    /// It is no message, too large, or of a kind that no node sends this way.
    pub fn decode(bytes: &[u8], is_snapshot: bool) -> Result<Self, StepError> {
        if bytes.len() > MESSAGE_LEN_MAX && !is_snapshot {
            return Err(StepError::Unacceptable("too large"));
        }
        shape::check(bytes).map_err(|why| StepError::Malformed(why.to_owned()))?;
        let mut message = Message::default();
        message.merge_from_bytes(bytes).map_err(|error| StepError::Malformed(error.to_string()))?;
        if (message.get_msg_type() == MessageType::MsgSnapshot) != is_snapshot {
            return Err(StepError::Unacceptable("a snapshot came by the wrong way"));
        }
        accept::check_form(&message).map_err(StepError::Unacceptable)?;
        Ok(Self(message))
    }

    /// Whom it says to be from.
    pub fn from(&self) -> RaftId {
        RaftId(self.0.from)
    }
}

/// One Raft node and its state machine. Owned by one task; see the crate's documentation.
pub struct Consensus<M: Machine, S: LogStore> {
    pub(crate) raw: RawNode<Log>,
    pub(crate) machine: M,
    pub(crate) store: S,
    pub(crate) applied: u64,
    pub(crate) applied_term: u64,
    pub(crate) proposals: BTreeSet<u64>,
    pub(crate) reads: BTreeMap<u64, Option<u64>>,
    /// The applied index of the last snapshot that was written to cut the log.
    pub(crate) cut_at: u64,
    /// The last snapshot that a peer sent and what it holds, until the next pump: a large one is read once.
    pub(crate) read_ahead: Option<(Snapshot, M::State)>,
    pub(crate) config: ConsensusConfig,
    next_key: u64,
}

impl<M: Machine, S: LogStore> std::fmt::Debug for Consensus<M, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl<M: Machine, S: LogStore> Consensus<M, S> {
    /// Resumes from what the store holds: term, vote, log and configuration, nothing of it reset.
    ///
    /// # Errors
    /// The store's content can not be understood.
    pub fn new(
        config: ConsensusConfig,
        durable: &Durable,
        mut machine: M,
        store: S,
    ) -> Result<Self, NewError> {
        let mut snapshot =
            durable.snapshot.as_ref().map(durable::decode_snapshot).transpose().map_err(NewError::Corrupt)?;
        if mutant::lives("conf-state-of-self") && durable.hard_state.term > 1 {
            let known = snapshot.get_or_insert_default().mut_metadata().mut_conf_state();
            known.voters = vec![config.raft_id.0];
        }
        let entries = durable.entries.iter().map(durable::decode_entry).collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(NewError::Corrupt)?;
        let base = snapshot.as_ref().map_or((0, 0), |s| (s.get_metadata().index, s.get_metadata().term));
        check_log(snapshot.as_ref(), &entries, &durable.hard_state).map_err(NewError::Corrupt)?;
        if let Some(snapshot) = &snapshot {
            let state = machine.read_snapshot(&snapshot.data).map_err(NewError::Corrupt)?;
            machine.restore(state);
        }
        let durable::HardState { mut term, mut vote, mut commit } = durable.hard_state;
        if mutant::lives("restart-resets-term") {
            (term, vote, commit) = (base.1, 0, base.0);
        }
        let hard_state = HardState { term, vote, commit, ..HardState::default() };
        let log = Log::new(snapshot.as_ref(), entries, hard_state);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft_config(config.raft_id, base.0), log, &logger).map_err(NewError::Raft)?;
        Ok(Self {
            raw,
            machine,
            store,
            applied: base.0,
            applied_term: base.1,
            proposals: BTreeSet::new(),
            reads: BTreeMap::new(),
            cut_at: base.0,
            read_ahead: None,
            config,
            next_key: 0,
        })
    }

    /// One [`TICK_MS`] has passed.
    pub fn tick(&mut self) {
        // raft draws its election timeout from a thread-local generator each time it resets; ours is set
        // before every tick, so that what counts is always the hash.
        let timeout = ELECTION_TICKS + self.spread(ELECTION_TICKS);
        self.raw.raft.set_randomized_election_timeout(timeout);
        self.raw.tick();
    }

    fn spread(&self, below: usize) -> usize {
        let mut x = self.config.seed ^ self.config.raft_id.0.rotate_left(32) ^ self.raw.raft.term;
        // splitmix64's finaliser: every input bit moves every output bit.
        for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
            x = (x ^ (x >> 30)).wrapping_mul(multiplier).rotate_left(17);
        }
        usize::try_from(x % below as u64).unwrap_or(0)
    }

    /// A message from another member. The caller has made sure that it came from [`Inbound::from`].
    ///
    /// # Errors
    /// It is dropped; Raft sends again. [`StepError::RolledBack`] alone is final.
    pub fn step(&mut self, inbound: Inbound) -> Result<(), StepError> {
        accept::check_against(&self.raw, &inbound.0)?;
        if inbound.0.get_msg_type() == MessageType::MsgSnapshot {
            let snapshot = inbound.0.get_snapshot();
            let state = self.machine.read_snapshot(&snapshot.data).map_err(StepError::Snapshot)?;
            self.read_ahead = Some((snapshot.clone(), state));
        }
        self.raw.step(inbound.0).map_err(|error| StepError::Raft(error.to_string()))
    }

    /// Proposes a command; the key comes back in [`crate::Applied`] when it is applied here. It may never be.
    ///
    /// # Errors
    /// Nothing was proposed.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, ProposeError> {
        if data.len() > COMMAND_LEN_MAX {
            return Err(ProposeError::TooLarge);
        }
        self.check_leads()?;
        if self.proposals.len() >= PROPOSALS_MAX {
            return Err(ProposeError::Busy);
        }
        let key = self.new_key();
        let context = self.key_bytes(key);
        self.raw.propose(context, data).map_err(|_| ProposeError::Busy)?;
        self.proposals.insert(key);
        Ok(key)
    }

    /// Proposes a membership change. Raft takes one at a time and drops others silently: plan again until it
    /// is done.
    ///
    /// # Errors
    /// Nothing was proposed.
    pub fn propose_membership(&mut self, change: &MembershipChange) -> Result<(), ProposeError> {
        self.check_leads()?;
        let voters = self.voters();
        self.machine.check_membership(change, &voters).map_err(ProposeError::Refused)?;
        // raft 0.7 panics when a leader goes on that does not vote.
        if self.takes_own_vote(change) {
            let why = "the leader can not remove or demote itself: transfer the leadership first".to_owned();
            return Err(ProposeError::Refused(Refusal::Membership { why }));
        }
        let context = change
            .encode()
            .map_err(|error| ProposeError::Refused(Refusal::Membership { why: error.to_string() }))?;
        let mut conf_change = conf_change(change);
        conf_change.context = context.into();
        self.raw.propose_conf_change(Vec::new(), conf_change).map_err(|_| ProposeError::Busy)
    }

    /// Whether this node does not vote any more after the change.
    pub(crate) fn takes_own_vote(&self, change: &MembershipChange) -> bool {
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
    /// a while.
    pub fn read(&mut self) -> Option<u64> {
        if self.reads.len() >= READS_MAX {
            return None;
        }
        let key = self.new_key();
        self.reads.insert(key, mutant::lives("read-without-read-index").then_some(self.applied));
        let context = self.key_bytes(key);
        self.raw.read_index(context);
        Some(key)
    }

    /// Forgets a read nobody waits for any more.
    pub fn forget_read(&mut self, key: u64) {
        self.reads.remove(&key);
    }

    /// Forgets a proposal nobody waits for any more; it may still be applied.
    pub fn forget_proposal(&mut self, key: u64) {
        self.proposals.remove(&key);
    }

    /// The link to a member is down, or its queue full: probe instead of streaming.
    pub fn report_unreachable(&mut self, member: RaftId) {
        self.raw.report_unreachable(member.0);
    }

    /// How the sending of a snapshot ended.
    pub fn report_snapshot(&mut self, member: RaftId, delivered: bool) {
        if mutant::lives("snapshot-end-not-reported") {
            return;
        }
        let status = if delivered { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raw.report_snapshot(member.0, status);
    }

    /// As leader, hands the leadership to the voter that has most of the log. False when there is none to
    /// take it.
    pub fn transfer_leadership(&mut self) -> bool {
        let status = self.status();
        let best = status
            .progress
            .iter()
            .filter(|(id, (_, active))| **id != status.id && *active && status.voters.contains(id))
            .max_by_key(|(id, (matched, _))| (*matched, std::cmp::Reverse(**id)));
        let (StateRole::Leader, Some((to, _))) = (self.raw.raft.state, best) else { return false };
        self.raw.transfer_leader(to.0);
        true
    }

    /// A moment's view.
    pub fn status(&self) -> RaftStatus {
        let raft = &self.raw.raft;
        let conf = self.raw.store().conf_state();
        let leads = raft.state == StateRole::Leader;
        let progress = if leads {
            raft.prs().iter().map(|(id, pr)| (RaftId(*id), (pr.matched, pr.recent_active))).collect()
        } else {
            BTreeMap::new()
        };
        let last = raft.raft_log.last_index();
        // A learner never campaigns, so Raft lets it believe in its last leader for ever.
        let heard = leads || raft.election_elapsed < 2 * ELECTION_TICKS;
        RaftStatus {
            id: self.config.raft_id,
            role: match raft.state {
                StateRole::Leader => RaftRole::Leader,
                StateRole::Follower => RaftRole::Follower,
                StateRole::Candidate | StateRole::PreCandidate => RaftRole::Candidate,
            },
            leader: (raft.leader_id != 0 && heard).then_some(RaftId(raft.leader_id)),
            term: raft.term,
            commit: raft.raft_log.committed,
            applied: self.applied,
            last: (raft.raft_log.term(last).unwrap_or(0), last),
            voters: conf.voters.iter().map(|id| RaftId(*id)).collect(),
            learners: conf.learners.iter().map(|id| RaftId(*id)).collect(),
            progress,
        }
    }

    /// The state machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// How large the log is.
    pub fn log_stats(&self) -> LogStats {
        self.raw.store().stats()
    }

    /// The store, of a node that has ended.
    pub fn into_store(self) -> S {
        self.store
    }

    /// The store, to look at.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The state machine, for a planted bug to write past the log.
    #[cfg(blixard_mutants)]
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Whether this node is in Raft's configuration, as far as it has applied.
    pub fn is_member(&self) -> bool {
        let conf = self.raw.store().conf_state();
        let id = self.config.raft_id.0;
        conf.voters.contains(&id) || conf.learners.contains(&id)
    }

    pub(crate) fn voters(&self) -> Vec<RaftId> {
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

    fn new_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Unique in the cluster for ever: a read whose name was used before would be answered by the old one.
    fn key_bytes(&self, key: u64) -> Vec<u8> {
        let run = if mutant::lives("names-used-again") { 0 } else { self.config.incarnation };
        [self.config.raft_id.0, run, key].iter().flat_map(|part| part.to_be_bytes()).collect()
    }

    /// The key in a context of this run of this node; `None` for anybody else's.
    pub(crate) fn own_key(&self, context: &[u8]) -> Option<u64> {
        let (prefix, key) = context.split_at_checked(16)?;
        let ours = self.key_bytes(0);
        (prefix == &ours[..16]).then_some(u64::from_be_bytes(key.try_into().ok()?))
    }
}

fn raft_config(raft_id: RaftId, applied: u64) -> raft::Config {
    raft::Config {
        id: raft_id.0,
        election_tick: ELECTION_TICKS,
        heartbeat_tick: HEARTBEAT_TICKS,
        applied,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 256,
        check_quorum: !mutant::lives("no-pre-vote-no-check-quorum"),
        pre_vote: !mutant::lives("no-pre-vote-no-check-quorum"),
        read_only_option: if mutant::lives("read-by-lease") {
            ReadOnlyOption::LeaseBased
        } else {
            ReadOnlyOption::Safe
        },
        max_uncommitted_size: 16 << 20,
        max_committed_size_per_ready: 4 << 20,
        ..raft::Config::default()
    }
}

/// A store whose parts contradict each other would make Raft panic later, or worse, go on.
fn check_log(
    snapshot: Option<&Snapshot>,
    entries: &[Entry],
    hard_state: &durable::HardState,
) -> Result<(), String> {
    let durable::HardState { term: last_term, commit, .. } = *hard_state;
    accept::check_numbers(&[last_term, commit])?;
    let base = snapshot.map_or((0, 0), |s| (s.get_metadata().index, s.get_metadata().term));
    if let Some(snapshot) = snapshot {
        accept::check_snapshot(snapshot, last_term)?;
    }
    let mut term = base.1;
    for (expected, entry) in (base.0 + 1..).zip(entries) {
        if entry.index != expected {
            return Err(format!("entry {expected} is missing, {} follows", entry.index));
        }
        if entry.term == 0 || entry.term < term {
            return Err(format!("the term goes backwards at entry {expected}: {term}, then {}", entry.term));
        }
        term = entry.term;
    }
    if term > last_term {
        return Err(format!("an entry has term {term}, later than the node's own, {last_term}"));
    }
    let last = base.0 + entries.len() as u64;
    if commit < base.0 || commit > last {
        let base = base.0;
        return Err(format!(
            "commit {commit} is not between the snapshot at {base} and the last entry {last}"
        ));
    }
    Ok(())
}

/// Raft's form of a change; always one step of one member, so that the simple protocol is enough.
pub(crate) fn conf_change(change: &MembershipChange) -> ConfChangeV2 {
    let (kind, raft_id) = match change {
        MembershipChange::AddLearner { member, .. } => (ConfChangeType::AddLearnerNode, member.raft_id),
        MembershipChange::Promote { raft_id } => (ConfChangeType::AddNode, *raft_id),
        // Of a voter, Raft's word for it makes it a learner.
        MembershipChange::Demote { raft_id } => (ConfChangeType::AddLearnerNode, *raft_id),
        MembershipChange::Remove { raft_id, .. } => (ConfChangeType::RemoveNode, *raft_id),
    };
    let mut single = ConfChangeSingle::default();
    single.set_change_type(kind);
    single.node_id = raft_id.0;
    let mut conf_change = ConfChangeV2::default();
    conf_change.mut_changes().push(single);
    conf_change
}
