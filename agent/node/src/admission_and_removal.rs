//! As leader: what others ask of the members, and the tickets.
//!
//! A change that is asked for is one configuration change, like those that the leader plans itself, and there
//! is one at a time. Asked for again it changes nothing more: a raft id leaves once, a ticket admits one
//! store.

use std::net::SocketAddr;

use blixard_consensus::{ProposeError, TICK_MS};
use blixard_core::planner::membership::{RemovalAsk, RemovalStep, plan_removal};
use blixard_core::ticket::{self, TicketClock};
use blixard_model::formation::{Identity, Phase};
use blixard_model::wire::{JoinRequest, MembersAsk, ProposeResult};
use blixard_model::{
    Command, Member, MembershipChange, NodeName, Outcome, RaftId, Refusal, Removal, Request, Role, TicketId,
    TicketRecord, TicketState, TicketUse, mutant,
};

use crate::machine::encode_request;
use crate::node::Node;
use crate::notice::Notice;
use crate::waiting::Waits;

/// Expired tickets are proposed again after so many ticks, if they still stand.
const EXPIRY_TICKS: u64 = 20;

/// Signs of life count for so many ticks after a removal was asked for; then it is asked for anew.
const SIGN_TICKS: u64 = 50;
/// A member that lives has answered a heartbeat by then.
const FIRST_SIGN_TICKS: u64 = 15;
/// The link of a dead node falls within this time: one that stands is of a node whose disk may be slow.
const LINK_SIGN_TICKS: u64 = 35;

/// A change that somebody waits for.
#[derive(Debug)]
pub(crate) struct AskedChange<P> {
    change: MembershipChange,
    waiter: P,
}

fn later(why: &str) -> ProposeResult {
    ProposeResult::Rejected { why: why.to_owned() }
}

fn refused(refusal: Refusal) -> ProposeResult {
    ProposeResult::Applied { outcome: refusal.into() }
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// This node's clock, in milliseconds since the Unix epoch. Nothing but the life of tickets rests on it.
    pub fn note_time(&mut self, wall_ms: u64) {
        self.wall_ms = wall_ms;
    }

    /// Changes the members as asked, if this node leads; the answer comes with a later [`crate::Turn`].
    pub fn change_members(&mut self, ask: MembersAsk, waiter: P) {
        let step = if !self.raft.leads() {
            Err(self.leads_not())
        } else {
            match ask {
                MembersAsk::Remove { raft_id, force, vms } => {
                    self.plan_asked_removal(RemovalAsk { raft_id, force, vms })
                }
                MembersAsk::Vouch { node } => self.plan_listed(*node),
                MembersAsk::Admit(request) => self.plan_admission(*request),
            }
        };
        let proposed = step.and_then(|change| self.propose_change(&change).map(|()| change));
        match proposed {
            Ok(change) => self.asked_change = Some(AskedChange { change, waiter }),
            Err(end) => self.waiting.answers.push((waiter, end)),
        }
    }

    fn leads_not(&self) -> ProposeResult {
        let status = self.raft.status();
        let members = &self.raft.machine().0.members;
        let leader = status.leader.filter(|id| *id != status.id).and_then(|id| members.get(&id));
        ProposeResult::NotLeader { leader: leader.map(|member| member.name.clone()) }
    }

    fn propose_change(&mut self, change: &MembershipChange) -> Result<(), ProposeResult> {
        if self.raft.membership_pending() || self.asked_change.is_some() {
            return Err(later("another change of the members is under way"));
        }
        match self.raft.propose_membership(change) {
            Ok(()) => {
                self.notices.push(Notice::MembershipProposed(change.clone()));
                Ok(())
            }
            Err(ProposeError::Refused(refusal)) => Err(refused(refusal)),
            Err(ProposeError::NotLeader(_)) => Err(self.leads_not()),
            Err(other) => Err(later(&other.to_string())),
        }
    }

    fn plan_asked_removal(&mut self, ask: RemovalAsk) -> Result<MembershipChange, ProposeResult> {
        if !self.knows_whether_heard(ask.raft_id) {
            return Err(later("this leader is new and has not heard of every node yet"));
        }
        // Who is left must be a quorum now, and not by a word that may have been the last.
        let now = self.tick;
        self.removals_asked.retain(|_, at| now.saturating_sub(*at) < SIGN_TICKS);
        let is_member = self.raft.machine().0.members.contains_key(&ask.raft_id);
        let since = match self.removals_asked.get(&ask.raft_id) {
            Some(at) => *at,
            None if !is_member => now,
            None => {
                self.removals_asked.insert(ask.raft_id, now);
                return Err(later("the others are asked for a sign of life first"));
            }
        };
        let waits = now.saturating_sub(since) < FIRST_SIGN_TICKS;
        let waits_for_it = waits || self.has_link(ask.raft_id) && now.saturating_sub(since) < LINK_SIGN_TICKS;
        let facts = self.membership_facts().heard_after(since, self);
        // What is about to be given up for dead gets the time to show that it is not.
        if waits_for_it && is_member && ask.force && !facts.has_heard(ask.raft_id) {
            return Err(later("the node itself is given the time for a sign of life"));
        }
        match plan_removal(&facts.view(self), ask) {
            Ok(RemovalStep::Propose(change)) => Ok(change),
            Ok(RemovalStep::Gone) => Err(ProposeResult::Applied { outcome: Outcome::unchanged(None) }),
            Ok(RemovalStep::HandOver) if self.raft.transfer_leadership() => {
                Err(later("the node leads: the leadership is being handed over first"))
            }
            Ok(RemovalStep::HandOver) => {
                Err(later("the node leads, and no other can take the leadership over"))
            }
            Err(Refusal::QuorumAtRisk { .. } | Refusal::NodeUnreachable { .. }) if waits => {
                Err(later("not all the others have given a sign of life yet"))
            }
            Err(refusal) => Err(refused(refusal)),
        }
    }

    fn has_link(&self, raft_id: RaftId) -> bool {
        let member = self.raft.machine().0.members.get(&raft_id);
        member.is_some_and(|member| self.linked.contains(&member.endpoint_id))
    }

    /// Why the VMs of a node that is no member cannot be forgotten yet: it was there a moment ago, and runs
    /// them for all that anybody knows.
    pub(crate) fn still_there(&self, node: &NodeName) -> Option<String> {
        let is_there = self.claims.values().any(|heard| heard.identity.name == *node);
        let why = || {
            format!("{node} answered a moment ago: while it is on it runs its VMs, so switch it off first")
        };
        is_there.then(why)
    }

    fn plan_admission(&mut self, request: JoinRequest) -> Result<MembershipChange, ProposeResult> {
        let JoinRequest { node, ticket: id, secret, guessed, known_as } = request;
        let state = &self.raft.machine().0;
        let invalid = |why: &str| refused(Refusal::Ticket { why: why.to_owned() });
        // One word for both: who has no secret learns nothing of the tickets there are.
        let member = state.member_by_endpoint(node.endpoint_id);
        // It proved who it is, and its ticket may be forgotten by now: the answer was lost on its way.
        if let Some(member) = member.filter(|member| member.store_id == node.store_id) {
            return Err(ProposeResult::Applied { outcome: Outcome::Admitted { raft_id: member.raft_id } });
        }
        let record = state.tickets.get(&id).filter(|ticket| ticket::matches(ticket, &secret));
        let record =
            record.ok_or_else(|| invalid("the cluster does not know it, or its secret is another one"))?;
        if record.is_open() && ticket::is_over(record, self.ticket_clock(record)) {
            return Err(invalid("it has expired"));
        }
        if !matches!(node.phase, Phase::Empty { .. }) {
            return Err(invalid(
                "the node's store belongs to a cluster already: a node joins with an empty store",
            ));
        }
        match member {
            Some(member) => self.let_go_first(member.raft_id, known_as, record),
            None => {
                let addresses = self.without_taken(&node, &guessed);
                if addresses.is_empty() && !node.addresses.is_empty() && node.relay_url.is_none() {
                    return Err(later(
                        "every address that the node guessed is another member's, and it has found no relay \
                         yet: without one it needs `addresses` in its configuration",
                    ));
                }
                let used = TicketUse { id, at_ms: self.wall_ms };
                Ok(self.admission(Identity { addresses, ..node }, Some(used)))
            }
        }
    }

    /// A node's addresses without those of its guesses that are another member's.
    fn without_taken(&self, node: &Identity, guessed: &[SocketAddr]) -> Vec<SocketAddr> {
        let members = &self.raft.machine().0.members;
        let others = || members.values().filter(|member| member.endpoint_id != node.endpoint_id);
        let taken = |address: &SocketAddr| others().any(|member| member.addresses.contains(address));
        let stays = |address: &&SocketAddr| !(guessed.contains(address) && taken(address));
        node.addresses.iter().filter(stays).copied().collect()
    }

    /// A member's word is as good as this node's own list. A node that is a member already needs none, also
    /// if its store is lost: that is for the leader to find.
    fn plan_listed(&self, node: Identity) -> Result<MembershipChange, ProposeResult> {
        let state = &self.raft.machine().0;
        if let Some(member) = state.member_by_endpoint(node.endpoint_id) {
            return Err(ProposeResult::Applied { outcome: Outcome::Admitted { raft_id: member.raft_id } });
        }
        if !matches!(node.phase, Phase::Empty { .. }) {
            let why = format!("{}'s store belongs to a cluster already", node.name);
            return Err(refused(Refusal::Membership { why }));
        }
        Ok(self.admission(node, None))
    }

    fn admission(&self, node: Identity, ticket: Option<TicketUse>) -> MembershipChange {
        let member = Member {
            raft_id: self.raft.machine().0.next_raft_id,
            name: node.name,
            endpoint_id: node.endpoint_id,
            store_id: node.store_id,
            addresses: node.addresses,
            relay_url: node.relay_url,
            role: Role::Learner,
            capacity: node.capacity,
            witness: node.witness,
        };
        MembershipChange::AddLearner { member, ticket }
    }

    /// The node has lost the store that it was a member with: that place is let go before it gets another.
    fn let_go_first(
        &self,
        raft_id: RaftId,
        known_as: Option<RaftId>,
        ticket: &TicketRecord,
    ) -> Result<MembershipChange, ProposeResult> {
        if let TicketState::Used { .. } | TicketState::Revoked | TicketState::Expired = ticket.state {
            let why = "it has ended, and the node is a member with another store".to_owned();
            return Err(refused(Refusal::Ticket { why }));
        }
        if known_as != Some(raft_id) && !mutant::lives("late-admission-believed") {
            return Err(later("the node is known with another store, and has not heard of that yet"));
        }
        if !self.knows_whether_heard(raft_id) || self.is_heard(raft_id) {
            return Err(later("the node still answers as a member with another store"));
        }
        Ok(MembershipChange::Remove { raft_id, why: Removal::LostStore })
    }

    /// What became of the change that somebody waits for; called after every pump.
    pub(crate) fn note_asked_change(&mut self, applied: &[MembershipChange]) {
        let Some(AskedChange { change, .. }) = &self.asked_change else { return };
        let is_applied = applied.contains(change);
        if !is_applied && self.raft.membership_pending() {
            return;
        }
        let Some(AskedChange { change, waiter }) = self.asked_change.take() else { return };
        let end = match change {
            _ if !is_applied => later("the members changed meanwhile"),
            MembershipChange::AddLearner { member, .. } => {
                ProposeResult::Applied { outcome: Outcome::Admitted { raft_id: member.raft_id } }
            }
            MembershipChange::Remove { why: Removal::LostStore, .. } => {
                later("the place of the node's lost store was let go first")
            }
            MembershipChange::Remove { .. }
            | MembershipChange::Promote { .. }
            | MembershipChange::Demote { .. } => ProposeResult::Applied { outcome: Outcome::done(None) },
        };
        self.waiting.answers.push((waiter, end));
    }

    /// It may still be committed by the next leader; asked for again it changes nothing more.
    pub(crate) fn abandon_asked_change(&mut self) {
        if let Some(AskedChange { waiter, .. }) = self.asked_change.take() {
            let why = "the leadership was lost before it was committed".to_owned();
            self.waiting.answers.push((waiter, ProposeResult::Unknown { why }));
        }
    }

    /// Since when each open ticket is known here.
    pub(crate) fn note_tickets(&mut self) {
        let tickets = &self.raft.machine().0.tickets;
        let tick = self.tick;
        self.tickets_known.retain(|id, _| tickets.get(id).is_some_and(TicketRecord::is_open));
        for ticket in tickets.values().filter(|ticket| ticket.is_open()) {
            self.tickets_known.entry(ticket.id).or_insert(tick);
        }
    }

    /// The leader's clock is the one that counts. A member whose clock is ahead would turn away who comes
    /// with a ticket that the leader takes: others go by how long they have known it alone.
    fn ticket_clock(&self, ticket: &TicketRecord) -> TicketClock {
        let since = self.tickets_known.get(&ticket.id).copied().unwrap_or(self.tick);
        let wall_ms = if self.raft.leads() { self.wall_ms } else { 0 };
        TicketClock { wall_ms, known_for_ms: self.tick.saturating_sub(since) * TICK_MS }
    }

    /// Whether somebody may still be admitted by a ticket, as far as this node can tell.
    pub(crate) fn is_joinable(&self) -> bool {
        let mut open = self.raft.machine().0.tickets.values().filter(|ticket| ticket.is_open());
        open.any(|ticket| !ticket::is_over(ticket, self.ticket_clock(ticket)))
    }

    /// As leader, writes down which tickets have expired: what a clock says later does not open them again.
    pub(crate) fn propose_expiry(&mut self) {
        let open = self.raft.machine().0.tickets.values().filter(|ticket| ticket.is_open());
        let over = open.filter(|ticket| ticket::is_over(ticket, self.ticket_clock(ticket)));
        let ids: Vec<TicketId> = over.map(|ticket| ticket.id).collect();
        let waits = self.expiry_proposed.is_some_and(|at| self.tick.saturating_sub(at) < EXPIRY_TICKS);
        if ids.is_empty() || waits {
            return;
        }
        self.expiry_proposed = Some(self.tick);
        let text = format!("expire-{}-{}", self.summary.term, self.tick);
        let Ok(id) = text.parse() else { return };
        let request = Request { id, command: Command::ExpireTickets { ids } };
        // Not taken: proposed again later.
        if let Ok(key) = self.raft.propose(encode_request(&request)) {
            self.raft.forget_proposal(key);
        }
    }
}
