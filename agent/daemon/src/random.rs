//! Random ids, from the system.

use blixard_model::{RequestId, StoreId, TicketId, TicketSecret};

/// A number that was never used before, for all purposes.
///
/// The kernel's random source fails only on systems that cannot run anything else either; an id of zeros
/// would be wrong, so this ends the process.
pub(crate) fn u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| std::process::abort())
}

/// The id of a new store.
pub(crate) fn store_id() -> StoreId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&u64().to_be_bytes());
    bytes[8..].copy_from_slice(&u64().to_be_bytes());
    StoreId::from_bytes(bytes)
}

/// The id of a new ticket.
pub(crate) fn ticket_id() -> TicketId {
    TicketId::from_bytes(u64().to_be_bytes())
}

/// The secret of a new ticket.
pub(crate) fn ticket_secret() -> TicketSecret {
    let mut bytes = [0; 32];
    if getrandom::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    TicketSecret::from_bytes(bytes)
}

/// The id of a request that this agent makes itself.
pub(crate) fn request_id() -> RequestId {
    let text = format!("agent-{:016x}{:016x}", u64(), u64());
    text.parse().unwrap_or_else(|_| unreachable!("hexadecimal digits are a request id"))
}
