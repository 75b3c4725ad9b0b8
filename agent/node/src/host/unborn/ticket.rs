//! What a host without a cluster does with its ticket: takes it, asks one member after another with it.

use blixard_model::wire::{JoinRequest, JoinResponse};

use super::held::{READ_PERIOD_MS, TicketProblem};
use super::{Unborn, UnbornCall};
use crate::host::effect::{Answer, Effect, JoinRefusal};
use crate::host::input::{HeldTicket, WaiterId};
use crate::host::moment::Moment;
use crate::joining::{JoinFailure, JoinStep};
use crate::notice::Notice;

/// How long one member may take, in milliseconds: it brings the request to the leader meanwhile.
const ATTEMPT_MS: u64 = 28_000;
/// Where a ticket comes from.
const MADE: &str = "`blixard cluster ticket create` on a member makes one, and `blixard cluster join` \
                    here takes it";

impl Unborn {
    /// Why this node is in no cluster yet, when it is to join one.
    pub(super) fn ticket_words(&self) -> String {
        match (&self.ticket.problem, &self.ticket.held) {
            (Some(problem), _) if problem.is_final => format!("another ticket ({}): {MADE}", problem.why),
            (Some(problem), _) => problem.why.clone(),
            (None, None) => self.wanted.needs.clone().unwrap_or_else(|| format!("a ticket: {MADE}")),
            (None, Some((ticket, _))) => {
                format!("a member of cluster {} to let this node in", ticket.cluster_id.short())
            }
        }
    }

    /// Somebody brings a ticket: it is kept on disk before it is used, so that a crash anywhere resumes.
    pub(super) fn take_ticket(&mut self, waiter: WaiterId, ticket: HeldTicket, text: String) {
        if !self.wanted.joins {
            let answer = Answer::TicketTaken(Err(JoinRefusal::Listed));
            return self.out.push(Effect::Answer { waiter, answer });
        }
        self.ticket.keeping.insert(waiter, ticket);
        self.out.push(Effect::KeepTicket { waiter, text });
    }

    pub(super) fn handle_ticket_kept(&mut self, now: Moment, waiter: WaiterId, kept: Result<(), String>) {
        let Some(ticket) = self.ticket.keeping.remove(&waiter) else { return };
        let taken = match kept {
            Ok(()) => {
                self.use_ticket(now, ticket);
                Ok(())
            }
            Err(why) => Err(JoinRefusal::NotKept { why }),
        };
        self.out.push(Effect::Answer { waiter, answer: Answer::TicketTaken(taken) });
    }

    /// The ticket's file was looked at again.
    pub(super) fn handle_ticket_read(&mut self, now: Moment, read: Option<Result<HeldTicket, String>>) {
        if self.ticket.held.is_some() {
            return;
        }
        match read {
            Some(Ok(ticket)) if self.ticket.refused == Some(ticket.id) => {}
            Some(Ok(ticket)) => self.use_ticket(now, ticket),
            Some(Err(why)) => {
                self.ticket.problem = Some(TicketProblem { why, is_final: false });
                self.set_waiting_for(vec![self.ticket_words()]);
            }
            None => {}
        }
    }

    fn use_ticket(&mut self, now: Moment, ticket: HeldTicket) {
        // What was asked with the ticket before does not count any more.
        for call in self.calls.take_all(|purpose| *purpose == UnbornCall::Join) {
            self.out.push(Effect::ForgetCall { call });
        }
        self.ticket.hold(ticket);
        self.tell_peers();
        self.pace.hurry();
        self.set_waiting_for(vec![self.ticket_words()]);
        self.ask_to_join(now);
    }

    pub(super) fn ticket_due_ms(&self) -> Option<u64> {
        if !self.wanted.joins || self.writing.is_some() || self.asks_to_join() {
            return None;
        }
        match &self.ticket.held {
            Some((_, joining)) => Some(joining.due_ms()),
            None => Some(self.ticket.read_due_ms),
        }
    }

    fn asks_to_join(&self) -> bool {
        self.calls.iter().any(|(purpose, _)| *purpose == UnbornCall::Join)
    }

    /// Asks the next member to be admitted, if that is due.
    pub(super) fn ask_to_join(&mut self, now: Moment) {
        if self.ticket_due_ms().is_none_or(|due| due > now.boot_ms) {
            return;
        }
        let Some((ticket, joining)) = &mut self.ticket.held else {
            self.ticket.read_due_ms = now.boot_ms.saturating_add(READ_PERIOD_MS);
            return self.out.push(Effect::ReadTicket);
        };
        match joining.next(now.boot_ms) {
            JoinStep::Ask(contact) => {
                let (cluster_id, id, secret) = (ticket.cluster_id, ticket.id, ticket.secret.clone());
                let known_as = joining.known_as();
                let node = self.identity();
                let is_guess = |address: &&std::net::SocketAddr| !self.own.written.contains(address);
                let guessed = node.node.offer.addresses.iter().filter(is_guess).copied().collect();
                let request = Box::new(JoinRequest { node, ticket: id, secret, guessed, known_as });
                let to = contact.endpoint_id;
                let call = self.calls.open(UnbornCall::Join, to, now.boot_ms, ATTEMPT_MS);
                let patience_ms = ATTEMPT_MS;
                self.out.push(Effect::AskToJoin { call, contact, cluster_id, request, patience_ms });
            }
            JoinStep::Wait { .. } => {}
            JoinStep::Refused(refusal) => {
                let id = ticket.id;
                self.ticket.held = None;
                self.ticket.refused = Some(id);
                let why = refusal.to_string();
                self.ticket.problem = Some(TicketProblem { why, is_final: true });
                self.out.push(Effect::ForgetTicket(Some(id)));
                self.out.push(Effect::Notice(Notice::NotLetIn(refusal)));
                self.set_waiting_for(vec![self.ticket_words()]);
                self.tell_peers();
            }
        }
    }

    /// A member answered, or did not.
    pub(super) fn admission_ended(&mut self, now: Moment, ended: Result<JoinResponse, JoinFailure>) {
        if self.writing.is_some() {
            return;
        }
        let Some((_, joining)) = &mut self.ticket.held else { return };
        match joining.note(now.boot_ms, ended) {
            Some(birth) => self.be_born(now, birth),
            None => {
                let troubled = joining.trouble().is_some();
                let since = &mut self.ticket.failing_since_ms;
                *since = troubled.then(|| since.unwrap_or(now.boot_ms));
                self.ticket.note_served();
                let words = vec![self.ticket_words()];
                if self.waiting_for != words {
                    self.set_waiting_for(words);
                }
            }
        }
    }
}
