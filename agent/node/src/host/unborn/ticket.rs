//! What a host without a cluster does with its ticket: takes it, asks one member after another with it.

use blixard_model::JoinTicket;
use blixard_model::wire::{JoinRequest, JoinResponse};

use super::ticket_in_use::TicketStep;
use super::{Unborn, UnbornCall};
use crate::host::effect::{Answer, Effect, JoinRefusal};
use crate::host::input::WaiterId;
use crate::host::moment::Moment;
use crate::joining::JoinFailure;
use crate::notice::Notice;

/// How long one member may take, in milliseconds: it brings the request to the leader meanwhile. Where a
/// request was lost the next member is asked so much later; one that was decided after that is answered at
/// once.
const ATTEMPT_MS: u64 = 12_000;

impl Unborn {
    /// Why this node is in no cluster yet, when it is to join one.
    pub(super) fn ticket_words(&self) -> String {
        self.ticket.words(self.wanted.needs.as_deref())
    }

    /// Somebody brings a ticket: it is kept on disk before it is used, so that a crash anywhere resumes.
    pub(super) fn take_ticket(&mut self, waiter: WaiterId, ticket: JoinTicket, text: String) {
        if !self.wanted.joins {
            let answer = Answer::TicketTaken(Err(JoinRefusal::Listed));
            return self.out.push(Effect::Answer { waiter, answer });
        }
        self.ticket.keep(waiter, ticket);
        self.out.push(Effect::KeepTicket { waiter, text });
    }

    pub(super) fn handle_ticket_kept(&mut self, now: Moment, waiter: WaiterId, kept: Result<(), String>) {
        let Some(ticket) = self.ticket.take_kept(waiter) else { return };
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
    pub(super) fn handle_ticket_read(&mut self, now: Moment, read: Option<Result<JoinTicket, String>>) {
        if self.ticket.is_held() {
            return;
        }
        match read {
            Some(Ok(ticket)) if self.ticket.is_refused(ticket.id) => {}
            Some(Ok(ticket)) => self.use_ticket(now, ticket),
            Some(Err(why)) => {
                self.ticket.note_unreadable(why);
                self.set_waiting_for(vec![self.ticket_words()]);
            }
            None => {}
        }
    }

    fn use_ticket(&mut self, now: Moment, ticket: JoinTicket) {
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
        Some(self.ticket.due_ms())
    }

    fn asks_to_join(&self) -> bool {
        self.calls.iter().any(|(purpose, _)| *purpose == UnbornCall::Join)
    }

    /// Asks the next member to be admitted, if that is due.
    pub(super) fn ask_to_join(&mut self, now: Moment) {
        if self.ticket_due_ms().is_none_or(|due| due > now.boot_ms) {
            return;
        }
        match self.ticket.next(now.boot_ms) {
            TicketStep::Read => self.out.push(Effect::ReadTicket),
            TicketStep::Ask { contact, cluster_id, id, secret, known_as } => {
                let node = self.identity();
                let is_guess = |address: &&std::net::SocketAddr| !self.own.written.contains(address);
                let guessed = node.node.offer.addresses.iter().filter(is_guess).copied().collect();
                let request = Box::new(JoinRequest { node, ticket: id, secret, guessed, known_as });
                let to = contact.endpoint_id;
                let call = self.calls.open(UnbornCall::Join, to, now.boot_ms, ATTEMPT_MS);
                let patience_ms = ATTEMPT_MS;
                self.out.push(Effect::AskToJoin { call, contact, cluster_id, request, patience_ms });
            }
            TicketStep::Wait => {}
            TicketStep::Refused { id, refusal } => {
                self.out.push(Effect::ForgetTicket(Some(id)));
                self.out.push(Effect::Notice(Notice::NotLetIn(refusal)));
                self.set_waiting_for(vec![self.ticket_words()]);
                self.tell_peers();
            }
        }
    }

    /// A member answered, or did not.
    pub(super) fn admission_ended(&mut self, now: Moment, ended: Result<JoinResponse, JoinFailure>) {
        if self.writing.is_some() || !self.ticket.is_held() {
            return;
        }
        match self.ticket.note(now.boot_ms, ended) {
            Some(birth) => self.be_born(now, birth),
            None => {
                let words = vec![self.ticket_words()];
                if self.waiting_for != words {
                    self.set_waiting_for(words);
                }
            }
        }
    }
}
