//! What is being changed about the members and what it waits for, in words for people.
//!
//! Looks at what the plans look at and says what they wait for; decides nothing and changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::api::ChangeView;
use blixard_model::formation::Phase;
use blixard_model::words::{grouped, span};
use blixard_model::{ClusterVersion, MembershipChange, NodeName, RaftId, Removal};

use super::membership::{
    Claim, MembershipView, fitting, is_caught_up, learners_in_turn, quorum_without, voters_in_turn,
};
use super::version::held_back_by;
use crate::formation::voter_target;
use crate::state::MemberRef;

/// The facts from which the leader explains its plans.
#[derive(Debug)]
pub struct ExplainView<'a> {
    /// The facts on which it plans.
    pub plan: &'a MembershipView<'a>,
    /// A configuration change that is proposed and not applied.
    pub pending: Option<&'a MembershipChange>,
    /// The member that the leadership is handed over to.
    pub hands_over_to: Option<RaftId>,
    /// The members that are being sent a snapshot.
    pub snapshots: &'a BTreeSet<RaftId>,
    /// For how long each member was not heard of, in milliseconds.
    pub silence_ms: &'a BTreeMap<RaftId, u64>,
    /// A voter that was not heard of for so long, in milliseconds, is replaced.
    pub lost_after_ms: u64,
}

/// What is being changed and what it waits for, the most urgent first.
pub fn explain_changes(view: &ExplainView<'_>) -> Vec<ChangeView> {
    let mut changes: Vec<ChangeView> = view.pending.iter().map(|change| view.proposed(change)).collect();
    changes.extend(view.hands_over_to.map(|to| {
        let to = view.name(to);
        said(format!("the leadership is being handed over to {to}"), format!("{to} to have the whole log"))
    }));
    changes.extend(view.lost_stores());
    changes.extend(view.votes());
    changes.extend(view.without_state());
    changes.extend(view.too_old());
    changes.extend(view.held_back());
    changes
}

/// Most members that a line names.
const NAMED_MAX: usize = 5;

fn said(what: impl Into<String>, waits_for: impl Into<String>) -> ChangeView {
    ChangeView { what: what.into(), waits_for: Some(waits_for.into()) }
}

/// How near a learner is to a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    /// It has the log and is heard of.
    Ready,
    /// It is being brought up to date.
    Behind,
    /// It is not heard of.
    Silent,
}

impl ExplainView<'_> {
    fn name(&self, raft_id: RaftId) -> String {
        let member = self.plan.state.nodes.member(raft_id);
        member.map_or_else(|| format!("raft id {raft_id}"), |member| member.node.name.to_string())
    }

    fn proposed(&self, change: &MembershipChange) -> ChangeView {
        let what = match change {
            MembershipChange::AddLearner { member, .. } => format!("{} is being admitted", member.node.name),
            MembershipChange::Promote { raft_id } => format!("{} is being given a vote", self.name(*raft_id)),
            MembershipChange::Demote { raft_id } => format!("{} is to vote no more", self.name(*raft_id)),
            MembershipChange::Remove { raft_id, why: Removal::Operator { .. } } => {
                format!("{} is being removed", self.name(*raft_id))
            }
            MembershipChange::Remove { raft_id, why: Removal::LostStore } => {
                format!("the place of {}'s lost store is being let go", self.name(*raft_id))
            }
        };
        let voters = self.plan.voters.len();
        said(what, format!("{} of {voters} voters to store it", voters / 2 + 1))
    }

    fn is_pending(&self, raft_id: RaftId) -> bool {
        self.pending.is_some_and(|change| match change {
            MembershipChange::AddLearner { member, .. } => member.raft_id == raft_id,
            MembershipChange::Promote { raft_id: of }
            | MembershipChange::Demote { raft_id: of }
            | MembershipChange::Remove { raft_id: of, .. } => *of == raft_id,
        })
    }

    /// Members that came back with an empty store.
    fn lost_stores(&self) -> Vec<ChangeView> {
        let members = self.plan.state.nodes.members();
        let lost = members.filter_map(|member| {
            let claim = self.plan.claims.get(&member.node.endpoint_id)?;
            let other = claim.identity.node.store_id != member.node.store_id;
            let empty = matches!(claim.identity.phase, Phase::Empty { .. });
            let said_so = other && empty && member.raft_id != self.plan.leader;
            (said_so && !self.is_pending(member.raft_id)).then_some((member, claim.settled))
        });
        let change = |raft_id| MembershipChange::Remove { raft_id, why: Removal::LostStore };
        let view = |(member, settled): (MemberRef<'_>, bool)| {
            let answers = self.plan.progress.get(&member.raft_id).is_some_and(|p| p.recent_active);
            let check = self.plan.state.check_membership(&change(member.raft_id), self.plan.voters);
            let waits_for = match check {
                _ if answers => Some("no more word from its old store".to_owned()),
                _ if !settled => Some("it to say so again".to_owned()),
                Err(refusal) => Some(refusal.to_string()),
                Ok(()) => None,
            };
            let what = format!("{} lost its store: it is to be admitted anew", member.node.name);
            ChangeView { what, waits_for }
        };
        lost.map(view).collect()
    }

    /// Explains promotions and demotions that are due.
    fn votes(&self) -> Vec<ChangeView> {
        let plan = self.plan;
        let (target, voters) = (voter_target(plan.state.nodes.member_count()), plan.voters.len());
        let mut learners = self.candidates().into_iter();
        let missing = target.saturating_sub(voters);
        let mut changes: Vec<ChangeView> = learners
            .by_ref()
            .take(missing)
            .map(|(learner, nearness)| ChangeView {
                what: format!("{} is to vote", self.name(learner)),
                waits_for: self.hindrance(learner, nearness),
            })
            .collect();
        if voters > target {
            changes.extend(self.surplus(target));
            return changes;
        }
        for voter in plan.voters.iter().filter(|id| **id != plan.leader && !self.is_pending(**id)) {
            let Some(progress) = plan.progress.get(voter) else { continue };
            if progress.lost {
                changes.push(self.lost_voter(*voter, learners.next()));
            } else if !progress.recent_active
                && let Some((learner, Nearness::Ready | Nearness::Behind)) = learners.next()
            {
                let silence = self.silence_ms.get(voter).copied().unwrap_or(0);
                let left = span(self.lost_after_ms.saturating_sub(silence));
                let then = format!("its answer; in {left} {} votes in its place", self.name(learner));
                changes.push(said(format!("{} does not answer", self.name(*voter)), then));
            }
        }
        changes
    }

    /// The learners in the order in which they will vote, if nothing happens meanwhile.
    fn candidates(&self) -> Vec<(RaftId, Nearness)> {
        let nearness = |id: RaftId| match self.plan.progress.get(&id) {
            Some(progress) if !progress.recent_active => Nearness::Silent,
            Some(progress) if progress.matched > 0 && is_caught_up(self.plan, progress) => Nearness::Ready,
            Some(_) => Nearness::Behind,
            None => Nearness::Silent,
        };
        let learners = learners_in_turn(self.plan).into_iter().filter(|id| !self.is_pending(*id));
        let mut learners: Vec<_> = learners.map(|id| (id, nearness(id))).collect();
        // Stable: among equals the planner's order counts.
        learners.sort_by_key(|(_, nearness)| *nearness);
        learners
    }

    /// Why a learner that is to vote does not yet.
    fn hindrance(&self, learner: RaftId, nearness: Nearness) -> Option<String> {
        let name = self.name(learner);
        match nearness {
            Nearness::Silent => Some(format!("{name} to answer")),
            Nearness::Behind if self.snapshots.contains(&learner) => {
                Some(format!("{name} to have the state, which is being sent"))
            }
            Nearness::Behind => {
                let matched = self.plan.progress.get(&learner).map_or(0, |progress| progress.matched);
                let behind = grouped(self.plan.commit.saturating_sub(matched));
                Some(format!("{name} to catch up: it is {behind} entries behind"))
            }
            Nearness::Ready => match fitting(self.plan, MembershipChange::Promote { raft_id: learner }) {
                Some(_) => None,
                None => Some(format!("a change of the members by which {name} may vote")),
            },
        }
    }

    fn lost_voter(&self, voter: RaftId, learner: Option<(RaftId, Nearness)>) -> ChangeView {
        let silence = span(self.silence_ms.get(&voter).copied().unwrap_or(self.lost_after_ms));
        let lost = format!("{} is lost since {silence}", self.name(voter));
        match learner {
            None | Some((_, Nearness::Silent)) => said(lost, "a learner that could vote in its place"),
            Some((learner, nearness)) => ChangeView {
                what: format!("{lost}: {} is to vote in its place", self.name(learner)),
                waits_for: self.hindrance(learner, nearness),
            },
        }
    }

    /// More vote than are to.
    fn surplus(&self, target: usize) -> Option<ChangeView> {
        let voters = self.plan.voters.len();
        let in_turn = voters_in_turn(self.plan);
        if in_turn.iter().any(|id| self.is_pending(*id)) {
            return None;
        }
        let free = in_turn.iter().find(|id| quorum_without(self.plan, **id).is_ok());
        let voter = *free.or(in_turn.first())?;
        let what = format!("{} is to vote no more: {voters} vote, {target} are to", self.name(voter));
        let waits_for = quorum_without(self.plan, voter).err();
        Some(ChangeView { what, waits_for: waits_for.map(|why| format!("a quorum without it: {why}")) })
    }

    /// Listed nodes whose release is too old to be let in.
    fn too_old(&self) -> Vec<ChangeView> {
        let plan = self.plan;
        let is_member = |id| plan.state.member_by_endpoint(id).is_some();
        let listed = plan.declared.iter().filter(|declared| !is_member(declared.endpoint_id));
        let claims = listed.filter_map(|declared| plan.claims.get(&declared.endpoint_id));
        let old = claims.filter(|claim| claim.identity.supports < plan.required);
        let view = |claim: &Claim| {
            let (name, supports) = (&claim.identity.node.name, claim.identity.supports);
            let required = plan.required;
            said(
                format!("{name} is to be admitted"),
                format!("a newer release on it: it supports version {supports}, the cluster has {required}"),
            )
        };
        old.map(view).collect()
    }

    /// Why the cluster does not use yet what this leader's release knows.
    fn held_back(&self) -> Option<ChangeView> {
        let (now, supports) = (self.plan.state.version, self.plan.supports);
        let words = |(name, supported): (NodeName, Option<ClusterVersion>)| match supported {
            Some(_) => format!("{name} to run a release that does"),
            None => format!("{name} to say what it supports"),
        };
        let mut old = held_back_by(self.plan).into_iter().map(words);
        let some: Vec<String> = old.by_ref().take(NAMED_MAX).collect();
        if supports <= now || some.is_empty() {
            return None;
        }
        let more = old.count();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        Some(said(
            format!("the cluster goes on with version {now}, its leader supports {supports}"),
            format!("{}{more}", some.join(", ")),
        ))
    }

    /// Members that were admitted and have not taken their place.
    fn without_state(&self) -> Vec<ChangeView> {
        let members = self.plan.state.nodes.members().filter(|member| {
            let claim = self.plan.claims.get(&member.node.endpoint_id);
            claim.is_some_and(|claim| {
                let its_store = claim.identity.node.store_id == member.node.store_id;
                its_store && matches!(claim.identity.phase, Phase::Empty { .. })
            })
        });
        let view = |member: MemberRef<'_>| {
            said(format!("{} was admitted", member.node.name), "it to come for the state")
        };
        members.map(view).collect()
    }
}
