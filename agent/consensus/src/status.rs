//! What can be seen of the Raft node from outside.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{MembershipChange, RaftId};
use raft::eraftpb::EntryType;
use raft::{GetEntriesContext, ProgressState, StateRole};

use crate::durable::{LogStore, decode_change};
use crate::machine::Machine;
use crate::node::Consensus;

/// Raft's volatile role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaftRole {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads its term.
    Leader,
}

/// A moment's view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub id: RaftId,
    /// Its role.
    pub role: RaftRole,
    /// Who leads the term, if known. Known means: heard of within an election timeout.
    pub leader: Option<RaftId>,
    /// The term.
    pub term: u64,
    /// Highest index known committed.
    pub commit: u64,
    /// Highest index applied.
    pub applied: u64,
    /// The last entry here, committed or not: its term and its index. Raft compares logs by them, in this
    /// order.
    pub last: (u64, u64),
    /// Counted in the quorum (the incoming ones while a joint change is under way).
    pub voters: Vec<RaftId>,
    /// Replicated to, not counted.
    pub learners: Vec<RaftId>,
    /// As leader: highest index stored by each member, and whether it answered within an election timeout.
    pub progress: BTreeMap<RaftId, (u64, bool)>,
}

/// How large the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Entries kept in memory.
    pub entries: usize,
    /// Their size in bytes.
    pub bytes: usize,
    /// The last index that the last snapshot holds; 0 when there is none.
    pub snapshot_index: u64,
    /// That snapshot's state in bytes.
    pub snapshot_bytes: usize,
}

/// What a leader has under way beside replicating the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnderWay {
    /// A configuration change that is proposed and not applied.
    pub change: Option<MembershipChange>,
    /// Who is to take the leadership over.
    pub hands_over_to: Option<RaftId>,
    /// Who is being sent a snapshot.
    pub snapshots: BTreeSet<RaftId>,
}

impl<M: Machine, S: LogStore> Consensus<M, S> {
    /// What this node has under way as leader; nothing when it does not lead.
    pub fn under_way(&self) -> UnderWay {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return UnderWay::default();
        }
        let sent = raft.prs().iter().filter(|(_, progress)| progress.state == ProgressState::Snapshot);
        UnderWay {
            change: self.pending_change(),
            hands_over_to: raft.lead_transferee.map(RaftId),
            snapshots: sent.map(|(id, _)| RaftId(*id)).collect(),
        }
    }

    /// What Raft holds back other changes for. A new leader holds them back up to where its log ended, where
    /// there may be anything.
    fn pending_change(&self) -> Option<MembershipChange> {
        let raft = &self.raw.raft;
        if !raft.has_pending_conf() {
            return None;
        }
        let index = raft.pending_conf_index;
        let entries = raft.raft_log.slice(index, index + 1, None, GetEntriesContext::empty(false)).ok()?;
        let change = entries.first().filter(|entry| entry.get_entry_type() != EntryType::EntryNormal)?;
        decode_change(change).ok()
    }
}
