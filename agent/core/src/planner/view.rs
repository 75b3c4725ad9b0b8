//! What a leader knows when it decides what to do next: the state, and what it has heard of whom.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{EndpointId, NodeName, RaftId, TicketId, TicketRecord};

use super::membership::MembershipView;
use super::version::Raising;
use crate::state::MemberRef;
use crate::ticket::{self, TicketClock};

/// A member that was not heard of for so many ticks is not reachable, whatever its link says: links end
/// later.
pub const HEARD_TICKS: u64 = 15;
/// A new leader waits so many ticks for the first word of each linked member: a live one answers the first
/// heartbeat.
const FIRST_WORD_TICKS: u64 = 5;

/// When the members were heard of, in ticks of consensus since this node started.
#[derive(Debug, Clone, Copy)]
pub struct Signs<'a> {
    /// The present tick.
    pub tick: u64,
    /// When this node began to lead its term.
    pub leads_since: u64,
    /// This node's raft id.
    pub own: RaftId,
    /// When each member was last heard of.
    pub heard: &'a BTreeMap<RaftId, u64>,
}

impl Signs<'_> {
    /// For how long this node leads its term.
    pub fn leads_for(&self) -> u64 {
        self.tick.saturating_sub(self.leads_since)
    }

    /// Heard of lately, and since this node leads: what was heard before may have been the last word.
    pub fn is_heard(&self, member: RaftId) -> bool {
        let heard = self.heard.get(&member);
        heard.is_some_and(|at| *at >= self.leads_since && self.tick.saturating_sub(*at) < HEARD_TICKS)
    }

    /// This node itself, or one that it has heard of or had the time to.
    pub fn knows_whether_heard(&self, member: RaftId) -> bool {
        member == self.own || self.is_heard(member) || self.leads_for() >= HEARD_TICKS
    }

    /// Heard of after this tick.
    pub fn is_heard_after(&self, member: RaftId, tick: u64) -> bool {
        self.heard.get(&member).is_some_and(|at| *at > tick)
    }
}

/// All facts on which a leader decides.
#[derive(Debug, Clone, Copy)]
pub struct LeaderView<'a> {
    /// The state and the members, as the membership plans look at them.
    pub members: MembershipView<'a>,
    /// When the members were heard of.
    pub signs: Signs<'a>,
    /// The peers with a link.
    pub linked: &'a BTreeSet<EndpointId>,
    /// The nodes that are known to have a lease.
    pub leased: &'a BTreeSet<NodeName>,
    /// The nodes that do not see their units, by their own reports: they start nothing.
    pub blind: &'a BTreeSet<NodeName>,
    /// It has committed in its term, and the turn in which it began to lead has ended: before that it has not
    /// even begun to listen.
    pub is_begun: bool,
    /// A change of the members is proposed and not applied.
    pub is_changing: bool,
    /// The members whose removal was asked for lately, and the tick at which it was first.
    pub removals_asked: &'a BTreeMap<RaftId, u64>,
    /// Its clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Its clocks for each open ticket.
    pub ticket_clocks: &'a BTreeMap<TicketId, TicketClock>,
    /// The tick at which expired tickets were proposed last.
    pub expiry_proposed: Option<u64>,
    /// The version that it proposed to raise the cluster to.
    pub raising: Option<Raising>,
}

impl LeaderView<'_> {
    /// Whether a ticket that is open has expired.
    pub(super) fn is_over(&self, ticket: &TicketRecord) -> bool {
        let clock = self.ticket_clocks.get(&ticket.id);
        ticket.is_open() && clock.is_some_and(|clock| ticket::is_over(ticket, *clock))
    }

    pub(super) fn has_link(&self, member: MemberRef<'_>) -> bool {
        self.linked.contains(&member.node.endpoint_id)
    }

    /// This node itself, and the members with a link that were heard of lately.
    pub(super) fn is_reachable(&self, member: MemberRef<'_>) -> bool {
        member.raft_id == self.signs.own || self.has_link(member) && self.signs.is_heard(member.raft_id)
    }

    /// Whether the leader has not begun, or waits for the first word of a member. It has heard of those who
    /// voted for it; the others answer its first heartbeats, or are gone although their link still stands.
    pub(super) fn is_unsettled(&self) -> bool {
        let unheard = |member: MemberRef<'_>| {
            let id = member.raft_id;
            id != self.signs.own && self.has_link(member) && !self.signs.is_heard(id)
        };
        let waits = || self.members.state.nodes.members().any(unheard);
        !self.is_begun || self.signs.leads_for() < FIRST_WORD_TICKS && waits()
    }
}
