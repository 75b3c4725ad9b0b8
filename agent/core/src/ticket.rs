//! Whether a ticket admits.
//!
//! The verdict is the leader's, and stands in the entry: replicas compare numbers that are in the log and
//! never ask their own clocks. A clock may be wrong, or jump. Forward it ends tickets early, which costs a
//! new one. Backward it must not make one live longer than it was made to: a leader also counts for how long
//! it has known the ticket, on a clock that does not jump, and what was found expired stays so.

use blixard_model::{TicketHash, TicketRecord, TicketSecret, mutant};

/// The hash that is kept of a secret.
pub fn hash_of(secret: &TicketSecret) -> TicketHash {
    TicketHash::from_bytes(blake3::derive_key("blixard 2026 ticket secret", secret.as_bytes()))
}

/// The clocks of a leader, for the expiry of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketClock {
    /// Milliseconds since the Unix epoch, by its clock.
    pub wall_ms: u64,
    /// For how long it has known the ticket at least, in milliseconds.
    pub known_for_ms: u64,
}

/// Whether the ticket's time is over. Says nothing of whether it was used or taken back.
pub fn is_over(ticket: &TicketRecord, clock: TicketClock) -> bool {
    let over = clock.wall_ms >= ticket.expires_ms || clock.known_for_ms >= ticket.ttl_ms;
    over && !mutant::lives("expired-ticket-admits")
}

/// Whether the secret is the ticket's. Takes the same time whatever it is.
pub fn matches(ticket: &TicketRecord, secret: &TicketSecret) -> bool {
    let hash = blake3::Hash::from_bytes(*hash_of(secret).as_bytes());
    hash == blake3::Hash::from_bytes(*ticket.hash.as_bytes())
}
