//! The status of the Raft node, for its owner.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{MembershipChange, RaftId};
use raft::eraftpb::EntryType;
use raft::{GetEntriesContext, ProgressState, RawNode, StateRole};

use crate::change::decode_change;
use crate::config::ELECTION_TICKS;
use crate::parts::Log;

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
    /// The leader of the term, if known. Known means: heard of within an election timeout.
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
    /// Counted in the quorum.
    pub voters: Vec<RaftId>,
    /// Replicated to, not counted.
    pub learners: Vec<RaftId>,
    /// As leader: highest index stored by each member, and whether it answered within an election timeout.
    pub progress: BTreeMap<RaftId, (u64, bool)>,
}

/// The work of a leader beside replicating the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnderWay {
    /// A configuration change that is proposed and not applied.
    pub change: Option<MembershipChange>,
    /// The member that the leadership is handed over to.
    pub hands_over_to: Option<RaftId>,
    /// The members that are being sent a snapshot.
    pub snapshots: BTreeSet<RaftId>,
}

impl RaftStatus {
    /// The status of a node that has applied the log up to `applied`.
    pub(crate) fn of(raw: &RawNode<Log>, applied: u64) -> Self {
        let raft = &raw.raft;
        let conf = raw.store().conf_state();
        let leads = raft.state == StateRole::Leader;
        let progress = if leads {
            raft.prs().iter().map(|(id, pr)| (RaftId(*id), (pr.matched, pr.recent_active))).collect()
        } else {
            BTreeMap::new()
        };
        let last = raft.raft_log.last_index();
        // A learner never campaigns, so Raft lets it believe in its last leader for ever.
        let heard = leads || raft.election_elapsed < 2 * ELECTION_TICKS;
        Self {
            id: RaftId(raft.id),
            role: match raft.state {
                StateRole::Leader => RaftRole::Leader,
                StateRole::Follower => RaftRole::Follower,
                StateRole::Candidate | StateRole::PreCandidate => RaftRole::Candidate,
            },
            leader: (raft.leader_id != 0 && heard).then_some(RaftId(raft.leader_id)),
            term: raft.term,
            commit: raft.raft_log.committed,
            applied,
            last: (raft.raft_log.term(last).unwrap_or(0), last),
            voters: conf.voters.iter().map(|id| RaftId(*id)).collect(),
            learners: conf.learners.iter().map(|id| RaftId(*id)).collect(),
            progress,
        }
    }
}

impl UnderWay {
    /// What this node has under way as leader; nothing when it does not lead.
    pub(crate) fn of(raw: &RawNode<Log>) -> Self {
        let raft = &raw.raft;
        if raft.state != StateRole::Leader {
            return Self::default();
        }
        let sent = raft.prs().iter().filter(|(_, progress)| progress.state == ProgressState::Snapshot);
        Self {
            change: pending_change(raw),
            hands_over_to: raft.lead_transferee.map(RaftId),
            snapshots: sent.map(|(id, _)| RaftId(*id)).collect(),
        }
    }
}

/// What Raft holds back other changes for. A new leader holds them back up to where its log ended, where
/// there may be anything.
fn pending_change(raw: &RawNode<Log>) -> Option<MembershipChange> {
    let raft = &raw.raft;
    if !raft.has_pending_conf() {
        return None;
    }
    let index = raft.pending_conf_index;
    let entries = raft.raft_log.slice(index, index + 1, None, GetEntriesContext::empty(false)).ok()?;
    let change = entries.first().filter(|entry| entry.get_entry_type() != EntryType::EntryNormal)?;
    decode_change(change).ok()
}
