//! The ticket of a host that is to join a cluster: which it has, and what became of it.

use std::collections::BTreeMap;

use blixard_model::api::RetryKind;
use blixard_model::{Contact, TicketId};

use crate::host::input::{HeldTicket, WaiterId};
use crate::host::trouble::Trouble;
use crate::joining::Joining;

/// While there is no ticket its file is looked at this often, in milliseconds: it may be put there later.
pub(super) const READ_PERIOD_MS: u64 = 5_000;

/// Why a ticket is of no use that every member turns away.
const NOT_SERVED: &str = "no ticket is open in that cluster any more, so this node's was used or revoked, or \
                          it has expired";

/// Why there is no ticket to use.
#[derive(Debug)]
pub(super) struct TicketProblem {
    /// For people.
    pub(super) why: String,
    /// It takes another ticket.
    pub(super) is_final: bool,
}

/// The ticket, and the use that is made of it.
#[derive(Debug)]
pub(super) struct TicketInUse {
    pub(super) held: Option<(HeldTicket, Joining)>,
    /// Why there is none to use.
    pub(super) problem: Option<TicketProblem>,
    /// The last ticket that admits nobody: its file may still be there.
    pub(super) refused: Option<TicketId>,
    /// Tickets that are being written to disk.
    pub(super) keeping: BTreeMap<WaiterId, HeldTicket>,
    seed: u64,
    pub(super) read_due_ms: u64,
    pub(super) failing_since_ms: Option<u64>,
}

impl TicketInUse {
    pub(super) fn new(ticket: Option<Result<HeldTicket, String>>, seed: u64, now_ms: u64) -> Self {
        let (held, problem) = match ticket {
            Some(Ok(ticket)) => (Some(ticket), None),
            Some(Err(why)) => (None, Some(TicketProblem { why, is_final: false })),
            None => (None, None),
        };
        let mut ticket = Self {
            held: None,
            problem,
            refused: None,
            keeping: BTreeMap::new(),
            seed,
            read_due_ms: now_ms.saturating_add(READ_PERIOD_MS),
            failing_since_ms: None,
        };
        if let Some(held) = held {
            ticket.hold(held);
        }
        ticket
    }

    /// Another ticket takes the place of the one there is.
    pub(super) fn hold(&mut self, ticket: HeldTicket) {
        let joining = Joining::new(ticket.cluster_id, ticket.contacts.clone(), self.seed);
        self.held = Some((ticket, joining));
        self.problem = None;
        self.failing_since_ms = None;
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_ref().map(|problem| problem.why.as_str())
    }

    /// A member was asked: is the ticket of no use?
    pub(super) fn note_served(&mut self) {
        let Some((_, joining)) = &self.held else { return };
        self.problem = joining
            .is_served_by_nobody()
            .then(|| TicketProblem { why: NOT_SERVED.to_owned(), is_final: true });
    }

    /// The members that the ticket names.
    pub(super) fn contacts(&self) -> &[Contact] {
        self.held.as_ref().map_or(&[], |(ticket, _)| &ticket.contacts)
    }

    pub(super) fn take_waiters(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.keeping).into_keys().collect()
    }

    pub(super) fn trouble(&self, now_ms: u64) -> Option<Trouble> {
        let (failures, at_ms, why) = self.held.as_ref()?.1.trouble()?;
        Some(Trouble {
            what: RetryKind::Join,
            peer: None,
            failures,
            next_try_ms: Some(at_ms).filter(|at| *at > now_ms),
            why: why.to_owned(),
            since_ms: self.failing_since_ms.unwrap_or(now_ms),
        })
    }
}
