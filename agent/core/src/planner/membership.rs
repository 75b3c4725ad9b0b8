//! Who becomes a member, who votes, whose lost store is let go: one change at a time, the leader's to
//! propose without being asked.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use blixard_model::formation::{Identity, Phase};
use blixard_model::{ClusterVersion, EndpointId, Member, MembershipChange, RaftId, Removal, Role, mutant};

use crate::declared::DeclaredMember;
use crate::formation::voter_target;
use crate::state::ClusterState;

/// A learner votes once it lacks no more than this many entries of what is committed.
pub const PROMOTE_LAG_MAX: u64 = 64;

/// How far the leader knows a member to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Highest log index known to be stored there.
    pub matched: u64,
    /// The leader has heard of it lately: only such a one counts when others are to be done without.
    pub heard: bool,
    /// The leader has heard of it lately, or has not led for long enough to miss its word. Not Raft's own
    /// mark of that name, which is taken back from everybody at each check of the quorum.
    pub recent_active: bool,
    /// It did not answer for longer than a voter may be missed, whatever it said unasked.
    pub lost: bool,
}

/// The identity that a node last sent to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The identity.
    pub identity: &'a Identity,
    /// It was asked after the last change of the members that the leader knows of: the store it names is at
    /// least as new as the one it is a member with, and no late word of one that is gone since.
    pub settled: bool,
}

/// The facts on which the leader plans.
#[derive(Debug, Clone, Copy)]
pub struct MembershipView<'a> {
    /// The replicated state.
    pub state: &'a ClusterState,
    /// The leader's raft id.
    pub leader: RaftId,
    /// The raft ids of the voters.
    pub voters: &'a [RaftId],
    /// The raft ids of the learners.
    pub learners: &'a [RaftId],
    /// The leader's own configured list: it authorises additions.
    pub declared: &'a [DeclaredMember],
    /// The last identities that reachable nodes sent.
    pub claims: &'a BTreeMap<EndpointId, Claim<'a>>,
    /// Replication per member.
    pub progress: &'a BTreeMap<RaftId, Progress>,
    /// Highest committed index.
    pub commit: u64,
    /// The newest version of a cluster that the leader supports.
    pub supports: ClusterVersion,
    /// What a node has to support to become a member: the cluster's version, or the one that the leader is
    /// raising it to.
    pub required: ClusterVersion,
}

/// The next change to propose, if any: first let go of a store that is lost, then admit, then see to it that
/// the right number of members vote.
pub fn plan_membership(view: &MembershipView<'_>) -> Option<MembershipChange> {
    lost_store(view).or_else(|| admission(view)).or_else(|| promotion(view)).or_else(|| demotion(view))
}

/// A change that would be refused must not stand in the way of the others.
pub(super) fn fitting(view: &MembershipView<'_>, change: MembershipChange) -> Option<MembershipChange> {
    view.state.check_membership(&change, view.voters).is_ok().then_some(change)
}

/// A member that speaks with an empty store under another store id has lost its disk: its old raft id can
/// never vote or acknowledge again, so it leaves before the node is admitted anew. A member that still
/// answers under its raft id has lost nothing, whatever late words of an earlier store say.
fn lost_store(view: &MembershipView<'_>) -> Option<MembershipChange> {
    view.state.nodes.members().find_map(|member| {
        let claim = view.claims.get(&member.node.endpoint_id)?;
        let other_store = !mutant::lives("lost-store-not-recognised")
            && claim.identity.node.store_id != member.node.store_id;
        let settled = claim.settled || mutant::lives("late-words-believed");
        let lost = settled && other_store && matches!(claim.identity.phase, Phase::Empty { .. });
        let progress = view.progress.get(&member.raft_id).filter(|_| !mutant::lives("late-words-believed"));
        let answers = progress.is_some_and(|progress| progress.recent_active);
        (lost && !answers && member.raft_id != view.leader)
            .then_some(MembershipChange::Remove { raft_id: member.raft_id, why: Removal::LostStore })
            .and_then(|change| fitting(view, change))
    })
}

/// A declared node with an empty store that is no member is replicated to, under a new raft id.
fn admission(view: &MembershipView<'_>) -> Option<MembershipChange> {
    view.declared.iter().find_map(|declared| {
        if view.state.member_by_endpoint(declared.endpoint_id).is_some() {
            return None;
        }
        let identity = view.claims.get(&declared.endpoint_id)?.identity;
        if !matches!(identity.phase, Phase::Empty { .. }) || identity.node.name != declared.name {
            return None;
        }
        if identity.supports < view.required && !mutant::lives("old-release-admitted") {
            return None;
        }
        let node = declared.let_in(&identity.node);
        let member = Member { raft_id: view.state.next_raft_id, node, role: Role::Learner };
        fitting(view, MembershipChange::AddLearner { member, ticket: None })
    })
}

/// A learner that has caught up votes when there are not enough voters, or when one of them is lost: that one
/// is replaced before it is demoted. Witnesses go first: it is what they are there for.
fn promotion(view: &MembershipView<'_>) -> Option<MembershipChange> {
    let target = voter_target(view.state.nodes.member_count());
    let is_lost = |id: &RaftId| view.progress.get(id).is_some_and(|progress| progress.lost);
    let replaces = view.voters.len() == target && view.voters.iter().any(is_lost);
    let replaces = replaces && !mutant::lives("lost-voter-not-replaced");
    if view.voters.len() >= target && !replaces {
        return None;
    }
    learners_in_turn(view).into_iter().find_map(|raft_id| {
        let progress = view.progress.get(&raft_id)?;
        (is_caught_up(view, progress) && progress.heard && progress.matched > 0)
            .then_some(MembershipChange::Promote { raft_id })
            .and_then(|change| fitting(view, change))
    })
}

/// The learners in the order in which they are to vote.
pub(super) fn learners_in_turn(view: &MembershipView<'_>) -> Vec<RaftId> {
    let is_witness =
        |id: &RaftId| view.state.nodes.member(*id).is_some_and(|member| member.node.offer.witness);
    let mut learners = view.learners.to_vec();
    learners.sort_by_key(|id| (!is_witness(id), *id));
    learners
}

/// Whether a learner has so much of the log that it may vote.
pub(super) fn is_caught_up(view: &MembershipView<'_>, progress: &Progress) -> bool {
    progress.matched.saturating_add(PROMOTE_LAG_MAX) >= view.commit
}

/// One voter too many does not vote any more: one that is lost, else the one that came last and is no
/// witness. Never the leader, and never one without whom the rest would be no quorum.
fn demotion(view: &MembershipView<'_>) -> Option<MembershipChange> {
    if view.voters.len() <= voter_target(view.state.nodes.member_count()) {
        return None;
    }
    voters_in_turn(view).into_iter().find_map(|raft_id| {
        quorum_without(view, raft_id)
            .is_ok()
            .then_some(MembershipChange::Demote { raft_id })
            .and_then(|change| fitting(view, change))
    })
}

/// The voters beside the leader in the order in which they are to vote no more.
pub(super) fn voters_in_turn(view: &MembershipView<'_>) -> Vec<RaftId> {
    let is_lost = |id: &RaftId| view.progress.get(id).is_some_and(|progress| progress.lost);
    let is_witness =
        |id: &RaftId| view.state.nodes.member(*id).is_some_and(|member| member.node.offer.witness);
    let mut voters: Vec<RaftId> = view.voters.iter().copied().filter(|id| *id != view.leader).collect();
    voters.sort_by_key(|id| (!is_lost(id), is_witness(id), Reverse(*id)));
    voters
}

/// Checks that a majority of the other voters was heard of; names the missing ones if not.
pub(super) fn quorum_without(view: &MembershipView<'_>, raft_id: RaftId) -> Result<(), String> {
    let others: Vec<&RaftId> = view.voters.iter().filter(|id| **id != raft_id).collect();
    let is_heard = |id: &RaftId| *id == view.leader || view.progress.get(id).is_some_and(|p| p.heard);
    let (heard, missing): (Vec<&RaftId>, Vec<&RaftId>) = others.iter().partition(|id| is_heard(id));
    if heard.len() * 2 > others.len() {
        return Ok(());
    }
    let name = |id: &RaftId| match view.state.nodes.member(*id) {
        Some(member) => member.node.name.to_string(),
        None => format!("raft id {id}"),
    };
    let missing: Vec<String> = missing.into_iter().map(name).collect();
    Err(format!("{} cannot be reached", missing.join(", ")))
}
