//! The tickets, and by which clock they end.

use blixard_consensus::TICK_MS;
use blixard_core::ticket::{self, TicketClock};
use blixard_model::TicketRecord;

use crate::node::Node;
use crate::waiting::Waits;

impl<P: Waits, R: Waits> Node<P, R> {
    /// This node's clock, in milliseconds since the Unix epoch. Nothing but the life of tickets rests on it.
    pub fn note_time(&mut self, wall_ms: u64) {
        self.wall_ms = wall_ms;
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
    pub(crate) fn ticket_clock(&self, ticket: &TicketRecord) -> TicketClock {
        let since = self.tickets_known.get(&ticket.id).copied().unwrap_or(self.tick);
        let wall_ms = if self.raft.leads() { self.wall_ms } else { 0 };
        TicketClock { wall_ms, known_for_ms: self.tick.saturating_sub(since) * TICK_MS }
    }

    /// Whether somebody may still be admitted by a ticket, as far as this node can tell.
    pub(crate) fn is_joinable(&self) -> bool {
        let mut open = self.raft.machine().0.tickets.values().filter(|ticket| ticket.is_open());
        open.any(|ticket| !ticket::is_over(ticket, self.ticket_clock(ticket)))
    }
}
