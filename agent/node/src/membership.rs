//! As leader: who becomes a member, who votes, who may be given a VM.

use std::collections::BTreeMap;

use blixard_consensus::LogStore;
use blixard_core::planner::membership::{MembershipView, Progress, plan_membership};
use blixard_model::formation::Identity;
use blixard_model::{Member, NodeName};

use crate::node::Node;
use crate::notice::Notice;
use crate::waiting::Waits;

/// What a peer said of itself counts for this long.
const IDENTITY_TICKS: u64 = 60;
/// A member that was not heard of for this long is not reachable, whatever its link says: links end later.
const HEARD_TICKS: u64 = 15;
/// A new leader waits this long for the first word of each linked member: a live one answers the first
/// heartbeat.
const FIRST_WORD_TICKS: u64 = 5;
/// The nodes of a new cluster say what they offer within this time.
const DECLARE_TICKS: u64 = 30;

impl<S: LogStore, P: Waits, R: Waits> Node<S, P, R> {
    /// What a peer said of itself just now.
    pub fn note_identity(&mut self, identity: Identity) {
        self.identities.insert(identity.endpoint_id, (identity, self.tick));
    }

    pub(crate) fn forget_old_identities(&mut self) {
        let now = self.tick;
        self.identities.retain(|_, (_, heard)| now.saturating_sub(*heard) < IDENTITY_TICKS);
    }

    /// Plans the next membership change and proposes it. One at a time: Raft drops others silently.
    pub(crate) fn propose_membership(&mut self) {
        if self.raft.membership_pending() {
            return;
        }
        let status = self.raft.status();
        let identities: BTreeMap<_, _> =
            self.identities.iter().map(|(id, (identity, _))| (*id, identity.clone())).collect();
        let progress: BTreeMap<_, _> = status
            .progress
            .iter()
            .map(|(id, (matched, active))| (*id, Progress { matched: *matched, recent_active: *active }))
            .collect();
        let change = plan_membership(&MembershipView {
            state: &self.raft.machine().0,
            leader: status.id,
            voters: &status.voters,
            learners: &status.learners,
            declared: &self.config.declared,
            identities: &identities,
            progress: &progress,
            commit: status.commit,
        });
        let Some(change) = change else { return };
        // Not taken: planned again when it still fits.
        if self.raft.propose_membership(&change).is_ok() {
            self.notices.push(Notice::MembershipProposed(change));
        }
    }

    /// The members with a link that were heard of lately, and this node itself.
    pub(crate) fn reachable(&self) -> Vec<NodeName> {
        let members = self.raft.machine().0.members.values();
        let reachable =
            members.filter(|m| m.name == self.config.name || self.is_linked(m) && self.is_heard(m));
        reachable.map(|member| member.name.clone()).collect()
    }

    /// A new leader has heard of those who voted for it; the others answer its first heartbeats, or are gone
    /// although their link still stands. In a new cluster every node has yet to say what it offers.
    pub(crate) fn is_unsettled(&self) -> bool {
        let leads_for = self.tick.saturating_sub(self.leads_since);
        let state = &self.raft.machine().0;
        let unheard = |m: &Member| m.name != self.config.name && self.is_linked(m) && !self.is_heard(m);
        let unsaid = |m: &Member| m.capacity.is_none() && !unheard(m);
        let waits =
            |m: &Member| leads_for < FIRST_WORD_TICKS && unheard(m) || leads_for < DECLARE_TICKS && unsaid(m);
        self.raft.leads() && state.members.values().any(waits)
    }

    fn is_linked(&self, member: &Member) -> bool {
        self.linked.contains(&member.endpoint_id)
    }

    /// Heard of lately, and since this node leads: what was heard before may have been the last word.
    fn is_heard(&self, member: &Member) -> bool {
        let heard = self.heard.get(&member.raft_id);
        heard.is_some_and(|at| *at >= self.leads_since && self.tick.saturating_sub(*at) < HEARD_TICKS)
    }
}
