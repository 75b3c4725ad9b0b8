//! Since when tickets are known here, and by which clock they end.

use std::collections::BTreeMap;

use blixard_consensus::TICK_MS;
use blixard_core::ticket::{self, TicketClock};
use blixard_model::{TicketId, TicketRecord};

/// The open tickets as this node's clocks see them.
#[derive(Debug, Default)]
pub(super) struct KnownTickets {
    /// This node's clock, in milliseconds since the Unix epoch. Nothing but the life of tickets rests on it.
    wall_ms: u64,
    /// Since which tick each open ticket is known here.
    since: BTreeMap<TicketId, u64>,
}

impl KnownTickets {
    pub(super) fn note_time(&mut self, wall_ms: u64) {
        self.wall_ms = wall_ms;
    }

    /// This node's clock, in milliseconds since the Unix epoch.
    pub(super) fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    /// The tickets by the log here: those that are open are known from now on, if they were not before.
    pub(super) fn note(&mut self, tickets: &BTreeMap<TicketId, TicketRecord>, tick: u64) {
        self.since.retain(|id, _| tickets.get(id).is_some_and(TicketRecord::is_open));
        for ticket in open(tickets) {
            self.since.entry(ticket.id).or_insert(tick);
        }
    }

    /// The clocks of each open ticket.
    pub(super) fn clocks(
        &self,
        tickets: &BTreeMap<TicketId, TicketRecord>,
        tick: u64,
        leads: bool,
    ) -> BTreeMap<TicketId, TicketClock> {
        open(tickets).map(|ticket| (ticket.id, self.clock(ticket.id, tick, leads))).collect()
    }

    /// Whether somebody may still be admitted by a ticket, as far as this node can tell.
    pub(super) fn may_admit(
        &self,
        tickets: &BTreeMap<TicketId, TicketRecord>,
        tick: u64,
        leads: bool,
    ) -> bool {
        open(tickets).any(|ticket| !ticket::is_over(ticket, self.clock(ticket.id, tick, leads)))
    }

    /// The leader's clock is the one that counts. A member whose clock is ahead would turn away who comes
    /// with a ticket that the leader takes: others go by how long they have known it alone.
    fn clock(&self, ticket: TicketId, tick: u64, leads: bool) -> TicketClock {
        let since = self.since.get(&ticket).copied().unwrap_or(tick);
        let wall_ms = if leads { self.wall_ms } else { 0 };
        TicketClock { wall_ms, known_for_ms: tick.saturating_sub(since) * TICK_MS }
    }
}

fn open(tickets: &BTreeMap<TicketId, TicketRecord>) -> impl Iterator<Item = &TicketRecord> {
    tickets.values().filter(|ticket| ticket.is_open())
}

#[cfg(test)]
mod tests {
    use blixard_model::{TicketHash, TicketState};

    use super::*;

    fn tickets(state: TicketState) -> BTreeMap<TicketId, TicketRecord> {
        let id = TicketId::from_bytes([1; 8]);
        let hash = TicketHash::from_bytes([1; 32]);
        BTreeMap::from([(id, TicketRecord { id, name: None, hash, ttl_ms: 1_000, expires_ms: 5_000, state })])
    }

    #[test]
    fn a_ticket_ends_by_how_long_it_is_known_and_by_the_clock_of_a_leader() {
        let open = tickets(TicketState::Open);
        let mut known = KnownTickets::default();
        known.note(&open, 7);
        known.note(&open, 8);
        let lives = 1_000 / TICK_MS;
        for leads in [false, true] {
            assert!(known.may_admit(&open, 6 + lives, leads) && !known.may_admit(&open, 7 + lives, leads));
        }
        known.note_time(5_000);
        assert!(known.may_admit(&open, 8, false), "the leader's clock may say otherwise");
        assert!(!known.may_admit(&open, 8, true));
    }

    #[test]
    fn what_is_not_open_is_forgotten_and_admits_nobody() {
        let mut known = KnownTickets::default();
        known.note(&tickets(TicketState::Open), 1);
        let revoked = tickets(TicketState::Revoked);
        known.note(&revoked, 2);
        assert!(!known.may_admit(&revoked, 2, false) && known.clocks(&revoked, 2, true).is_empty());
        known.note(&tickets(TicketState::Open), 9);
        let clocks = known.clocks(&tickets(TicketState::Open), 9, false);
        assert!(clocks.values().all(|clock| clock.known_for_ms == 0));
    }
}
