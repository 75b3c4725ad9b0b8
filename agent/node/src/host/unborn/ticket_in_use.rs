//! The ticket of a host that is to join a cluster: which it has, and what became of it.

use std::collections::BTreeMap;

use blixard_model::api::RetryKind;
use blixard_model::wire::JoinResponse;
use blixard_model::{ClusterId, Contact, JoinTicket, RaftId, Refusal, TicketId, TicketSecret};

use crate::forming::Birth;
use crate::host::input::WaiterId;
use crate::host::trouble::Trouble;
use crate::joining::{JoinFailure, JoinStep, Joining};

/// While there is no ticket its file is looked at this often, in milliseconds: it may be put there later.
const READ_PERIOD_MS: u64 = 5_000;
/// Why a ticket is of no use that every member turns away.
const NOT_SERVED: &str = "no ticket is open in that cluster any more, so this node's was used or revoked, or \
                          it has expired";
/// Where a ticket comes from.
const MADE: &str = "`blixard cluster ticket create` on a member makes one, and `blixard cluster join` \
                    here takes it";

/// Why there is no ticket to use.
#[derive(Debug)]
struct TicketProblem {
    /// For people.
    why: String,
    /// It takes another ticket.
    is_final: bool,
}

/// What to do with the ticket now.
#[derive(Debug)]
pub(super) enum TicketStep {
    /// There is none: look at its file.
    Read,
    /// Ask this member, with what it has to be told of the ticket.
    Ask {
        contact: Contact,
        cluster_id: ClusterId,
        id: TicketId,
        secret: TicketSecret,
        known_as: Option<RaftId>,
    },
    /// Nothing yet.
    Wait,
    /// It admits nobody, and is not held any more.
    Refused { id: TicketId, refusal: Refusal },
}

/// The ticket, and the use that is made of it.
#[derive(Debug)]
pub(super) struct TicketInUse {
    held: Option<(JoinTicket, Joining)>,
    /// Why there is none to use.
    problem: Option<TicketProblem>,
    /// The last ticket that admits nobody: its file may still be there.
    refused: Option<TicketId>,
    /// Tickets that are being written to disk.
    keeping: BTreeMap<WaiterId, JoinTicket>,
    seed: u64,
    read_due_ms: u64,
    failing_since_ms: Option<u64>,
}

impl TicketInUse {
    pub(super) fn new(ticket: Option<Result<JoinTicket, String>>, seed: u64, now_ms: u64) -> Self {
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

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Another ticket takes the place of the one there is.
    pub(super) fn hold(&mut self, ticket: JoinTicket) {
        let joining = Joining::new(ticket.cluster_id, ticket.contacts.clone(), self.seed);
        self.held = Some((ticket, joining));
        self.problem = None;
        self.failing_since_ms = None;
    }

    /// A ticket is being written to disk.
    pub(super) fn keep(&mut self, waiter: WaiterId, ticket: JoinTicket) {
        self.keeping.insert(waiter, ticket);
    }

    /// The ticket that was being written for this one.
    pub(super) fn take_kept(&mut self, waiter: WaiterId) -> Option<JoinTicket> {
        self.keeping.remove(&waiter)
    }

    pub(super) fn take_waiters(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.keeping).into_keys().collect()
    }

    /// The ticket in its file cannot be read. It may be written again.
    pub(super) fn note_unreadable(&mut self, why: String) {
        self.problem = Some(TicketProblem { why, is_final: false });
    }

    /// Whether this is the last ticket that admits nobody.
    pub(super) fn is_refused(&self, id: TicketId) -> bool {
        self.refused == Some(id)
    }

    /// When [`TicketInUse::next`] has something to say.
    pub(super) fn due_ms(&self) -> u64 {
        self.held.as_ref().map_or(self.read_due_ms, |(_, joining)| joining.due_ms())
    }

    /// What to do now.
    pub(super) fn next(&mut self, now_ms: u64) -> TicketStep {
        let Some((ticket, joining)) = &mut self.held else {
            self.read_due_ms = now_ms.saturating_add(READ_PERIOD_MS);
            return TicketStep::Read;
        };
        let id = ticket.id;
        match joining.next(now_ms) {
            JoinStep::Ask(contact) => {
                let (cluster_id, secret) = (ticket.cluster_id, ticket.secret.clone());
                TicketStep::Ask { contact, cluster_id, id, secret, known_as: joining.known_as() }
            }
            JoinStep::Wait { .. } => TicketStep::Wait,
            JoinStep::Refused(refusal) => {
                self.held = None;
                self.refused = Some(id);
                self.problem = Some(TicketProblem { why: refusal.to_string(), is_final: true });
                TicketStep::Refused { id, refusal }
            }
        }
    }

    /// A member answered, or did not; the node's place once it has one.
    pub(super) fn note(&mut self, now_ms: u64, ended: Result<JoinResponse, JoinFailure>) -> Option<Birth> {
        let (_, joining) = self.held.as_mut()?;
        let birth = joining.note(now_ms, ended);
        if birth.is_none() {
            let troubled = joining.trouble().is_some();
            let since_ms = self.failing_since_ms.unwrap_or(now_ms);
            self.failing_since_ms = troubled.then_some(since_ms);
            self.problem = joining
                .is_served_by_nobody()
                .then(|| TicketProblem { why: NOT_SERVED.to_owned(), is_final: true });
        }
        birth
    }

    /// Why this node is in no cluster yet. `needs` is what an operator has to do while there is no ticket, if
    /// it is something special.
    pub(super) fn words(&self, needs: Option<&str>) -> String {
        match (&self.problem, &self.held) {
            (Some(problem), _) if problem.is_final => format!("another ticket ({}): {MADE}", problem.why),
            (Some(problem), _) => problem.why.clone(),
            (None, None) => needs.map_or_else(|| format!("a ticket: {MADE}"), str::to_owned),
            (None, Some((ticket, _))) => {
                format!("a member of cluster {} to let this node in", ticket.cluster_id.short())
            }
        }
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_ref().map(|problem| problem.why.as_str())
    }

    /// The members that the ticket names.
    pub(super) fn contacts(&self) -> &[Contact] {
        self.held.as_ref().map_or(&[], |(ticket, _)| &ticket.contacts)
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
