//! What the node knows as leader, brought together for the plans.

use std::collections::BTreeMap;

use blixard_consensus::{RaftRole, RaftStatus};
use blixard_core::planner::membership::{Claim, MembershipView, Progress};
use blixard_core::planner::{HEARD_TICKS, LeaderView};
use blixard_core::ticket::TicketClock;
use blixard_model::{EndpointId, RaftId, TicketId};

use super::Node;
use super::waiting::Waits;

/// What the leader knows beside the state, where the node itself keeps it in another form.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    status: RaftStatus,
    claims: BTreeMap<EndpointId, Claim<'a>>,
    progress: BTreeMap<RaftId, Progress>,
    ticket_clocks: BTreeMap<TicketId, TicketClock>,
}

impl Facts<'_> {
    /// All that the leader decides on. The node is the one whose facts these are.
    pub(super) fn view<'a, P: Waits, R: Waits>(&'a self, node: &'a Node<P, R>) -> LeaderView<'a> {
        let state = node.state();
        LeaderView {
            members: MembershipView {
                state,
                leader: self.status.id,
                voters: &self.status.voters,
                learners: &self.status.learners,
                declared: &node.config.declared,
                claims: &self.claims,
                progress: &self.progress,
                commit: self.status.commit,
                supports: node.config.supports,
                required: node.tasks.required_version(state.version),
            },
            signs: node.signs.view(node.tick),
            linked: node.routes.linked(),
            leased: &node.leased,
            blind: &node.blind,
            is_begun: node.raft.leads() && node.news.summary().role == RaftRole::Leader,
            is_changing: node.raft.membership_pending() || node.tasks.has_asked_change(),
            removals_asked: node.tasks.removals_asked(),
            wall_ms: node.tickets.wall_ms(),
            ticket_clocks: &self.ticket_clocks,
            expiry_proposed: node.tasks.expiry_proposed(),
            raising: node.tasks.raising(),
        }
    }
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// What the leader knows beside the state.
    pub(super) fn leader_facts(&self) -> Facts<'_> {
        let (status, signs) = (self.raft.status(), self.signs.view(self.tick));
        let progress = status.progress.iter().map(|(id, (matched, _))| {
            // Not Raft's own word for it: that one is taken back from everybody at each election and at each
            // check of the quorum, until the next answer.
            let heard = signs.is_heard(*id);
            let recent_active = signs.leads_for() < HEARD_TICKS || heard;
            let lost = self.signs.is_lost(*id, self.tick, self.config.voter_lost_ticks);
            (*id, Progress { matched: *matched, heard, recent_active, lost })
        });
        Facts {
            claims: self.claims.view(self.peers.version()),
            progress: progress.collect(),
            ticket_clocks: self.tickets.clocks(&self.state().tickets, self.tick, self.raft.leads()),
            status,
        }
    }
}
