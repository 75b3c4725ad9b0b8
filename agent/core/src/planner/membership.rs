//! Who becomes a member, who votes, whose lost store is let go: one change at a time, the leader's to
//! propose.

use std::collections::BTreeMap;

use blixard_model::formation::{Identity, Phase};
use blixard_model::{EndpointId, Member, MembershipChange, RaftId, Role, mutant};

use crate::formation::{DeclaredMember, VOTERS_MAX};
use crate::state::ClusterState;

/// A learner votes once it lacks no more than this many entries of what is committed.
pub const PROMOTE_LAG_MAX: u64 = 64;

/// How far the leader knows a member to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Highest log index known to be stored there.
    pub matched: u64,
    /// The leader has heard of it lately, or has not led for long enough to miss its word. Not Raft's own
    /// mark of that name, which is taken back from everybody at each check of the quorum.
    pub recent_active: bool,
}

/// What a node lately said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The last that it said.
    pub identity: Identity,
    /// It was asked after the last change of the members that the leader knows of: the store it names is at
    /// least as new as the one it is a member with, and no late word of one that is gone since.
    pub settled: bool,
}

/// What the leader looks at.
#[derive(Debug)]
pub struct MembershipView<'a> {
    /// The replicated state.
    pub state: &'a ClusterState,
    /// The leader's raft id.
    pub leader: RaftId,
    /// Who votes.
    pub voters: &'a [RaftId],
    /// Who is replicated to without voting.
    pub learners: &'a [RaftId],
    /// The leader's own configured list: it authorises additions.
    pub declared: &'a [DeclaredMember],
    /// What reachable nodes lately said of themselves.
    pub claims: &'a BTreeMap<EndpointId, Claim>,
    /// Replication per member.
    pub progress: &'a BTreeMap<RaftId, Progress>,
    /// Highest committed index.
    pub commit: u64,
}

/// The next change to propose, if any: first let go of a store that is lost, then admit, then promote.
pub fn plan_membership(view: &MembershipView<'_>) -> Option<MembershipChange> {
    lost_store(view).or_else(|| admission(view)).or_else(|| promotion(view))
}

/// A change that would be refused must not stand in the way of the others.
fn fitting(view: &MembershipView<'_>, change: MembershipChange) -> Option<MembershipChange> {
    view.state.check_membership(&change, view.voters).is_ok().then_some(change)
}

/// A member that speaks with an empty store under another store id has lost its disk: its old raft id can
/// never vote or acknowledge again, so it leaves before the node is admitted anew. A member that still
/// answers under its raft id has lost nothing, whatever late words of an earlier store say.
fn lost_store(view: &MembershipView<'_>) -> Option<MembershipChange> {
    view.state.members.values().find_map(|member| {
        let claim = view.claims.get(&member.endpoint_id)?;
        let other_store =
            !mutant::lives("lost-store-not-recognised") && claim.identity.store_id != member.store_id;
        let settled = claim.settled || mutant::lives("late-words-believed");
        let lost = settled && other_store && matches!(claim.identity.phase, Phase::Empty { .. });
        let progress = view.progress.get(&member.raft_id).filter(|_| !mutant::lives("late-words-believed"));
        let answers = progress.is_some_and(|progress| progress.recent_active);
        (lost && !answers && member.raft_id != view.leader)
            .then_some(MembershipChange::Remove { raft_id: member.raft_id })
            .and_then(|change| fitting(view, change))
    })
}

/// A declared node with an empty store that is no member is replicated to, under a new raft id.
fn admission(view: &MembershipView<'_>) -> Option<MembershipChange> {
    view.declared.iter().find_map(|declared| {
        if view.state.member_by_endpoint(declared.endpoint_id).is_some() {
            return None;
        }
        let identity = &view.claims.get(&declared.endpoint_id)?.identity;
        if !matches!(identity.phase, Phase::Empty { .. }) || identity.name != declared.name {
            return None;
        }
        let member = Member {
            raft_id: view.state.next_raft_id,
            name: declared.name.clone(),
            endpoint_id: declared.endpoint_id,
            store_id: identity.store_id,
            addresses: declared.addresses.clone(),
            relay_url: identity.relay_url.clone(),
            role: Role::Learner,
            capacity: identity.capacity,
        };
        fitting(view, MembershipChange::AddLearner { member })
    })
}

/// A learner that has caught up votes, as long as there are not enough voters.
fn promotion(view: &MembershipView<'_>) -> Option<MembershipChange> {
    if view.voters.len() >= VOTERS_MAX {
        return None;
    }
    view.learners.iter().find_map(|raft_id| {
        let progress = view.progress.get(raft_id)?;
        let caught_up = progress.matched.saturating_add(PROMOTE_LAG_MAX) >= view.commit;
        (caught_up && progress.recent_active && progress.matched > 0)
            .then_some(MembershipChange::Promote { raft_id: *raft_id })
            .and_then(|change| fitting(view, change))
    })
}
