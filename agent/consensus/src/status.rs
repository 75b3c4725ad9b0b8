//! What can be seen of the Raft node from outside.

use std::collections::BTreeMap;

use blixard_model::RaftId;

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
