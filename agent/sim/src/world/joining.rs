//! The join protocol's wiring: a node with a ticket asks, a member brings it to the leader and answers. No
//! link is needed: whoever has no place in the cluster has none.

use blixard_model::Outcome;
use blixard_model::wire::{JoinRequest, JoinResponse};
use blixard_node::SubmitError;
use blixard_node::joining::{self, JoinStep, Joining};

use super::World;
use super::event::{Event, MachineId, Message};
use super::machine::{Call, Forming, HeldTicket, Process, Purpose};

/// How long the answer may take, in µs: the member brings it to the leader meanwhile.
const ANSWER_US: u64 = 10_000_000;
/// How long the member tries, in ms.
const DECIDE_MS: u64 = 8_000;

impl World {
    pub(crate) fn new_joining(&self, id: MachineId, seed: u64) -> Option<Joining> {
        let held = self.machines[id].ticket.as_ref()?;
        Some(Joining::new(held.cluster_id, held.contacts.clone(), seed))
    }

    pub(crate) fn handle_join(&mut self, id: MachineId) {
        let now_ms = self.machines[id].mono_ms(self.queue.now_us());
        let me = self.identity_of(id, None);
        let Some(held) = self.machines[id].ticket.clone() else { return };
        let Some(process) = &mut self.machines[id].process else { return };
        let asks = process.calls.values().any(|call| matches!(call, Call::Join));
        let run = process.run;
        let Some(Forming { joining: Some(joining), birth: None, .. }) = process.forming_mut() else { return };
        if asks {
            return;
        }
        match joining.next(now_ms) {
            JoinStep::Ask(contact) => {
                let known_as = joining.known_as();
                let Some(to) = self.machine_of(contact.endpoint_id) else { return };
                let call = self.new_id();
                if let Some(process) = &mut self.machines[id].process {
                    process.calls.insert(call, Call::Join);
                }
                self.queue.after(ANSWER_US, Event::CallTimeout { machine: id, run, call });
                self.trace.line(self.queue.now_us(), || format!("n{} asks n{} to be let in", id + 1, to + 1));
                let HeldTicket { id: ticket, secret, .. } = held;
                let request = JoinRequest { node: me, ticket, secret, guessed: Vec::new(), known_as };
                self.transmit(id, to, Message::Join { call, request: Box::new(request) });
            }
            JoinStep::Wait { until_ms } => {
                let wait = self.machines[id].true_us((until_ms - now_ms) * 1_000) + 1_000;
                self.queue.after(wait, Event::Join { machine: id, run });
            }
            JoinStep::Refused(refusal) => {
                self.trace.line(self.queue.now_us(), || format!("n{} is not let in: {refusal}", id + 1));
                self.counts.tickets_refused += 1;
                self.machines[id].ticket = None;
            }
        }
    }

    /// A stranger is at the door. Its endpoint is proved by its handshake, as everybody's.
    pub(crate) fn handle_join_request(
        &mut self,
        id: MachineId,
        from: MachineId,
        call: u64,
        request: JoinRequest,
    ) {
        let serving = self.machines[id].node().filter(|node| node.summary().joinable);
        let proved = request.node.endpoint_id == self.machines[from].endpoint_id;
        let later = || JoinResponse::Later { why: "no ticket is open here".to_owned(), known_as: None };
        let asked = match serving.filter(|_| proved) {
            Some(node) => joining::ask(node.state(), request),
            None => Err(Box::new(later())),
        };
        let ask = match asked {
            Ok(ask) => ask,
            Err(response) => return self.transmit(id, from, Message::Joined { call, response }),
        };
        self.submit(id, ask, DECIDE_MS, Purpose::Join { to: from, call });
    }

    pub(crate) fn join_decided(
        &mut self,
        (id, to): (MachineId, MachineId),
        call: u64,
        end: Result<Outcome, SubmitError>,
    ) {
        let Some(node) = self.machines[id].node() else { return };
        let response = joining::answer(node.state(), self.machines[to].endpoint_id, end);
        self.transmit(id, to, Message::Joined { call, response: Box::new(response) });
    }

    pub(crate) fn handle_joined(&mut self, id: MachineId, call: u64, response: JoinResponse) {
        let Some(process) = &mut self.machines[id].process else { return };
        if matches!(process.calls.remove(&call), Some(Call::Join)) {
            self.join_ended(id, Ok(response));
        }
    }

    pub(crate) fn join_ended(&mut self, id: MachineId, ended: Result<JoinResponse, String>) {
        let now_ms = self.machines[id].mono_ms(self.queue.now_us());
        self.trace.line(self.queue.now_us(), || format!("n{} was answered {}", id + 1, told(&ended)));
        let process = self.machines[id].process.as_mut();
        let run = process.as_ref().map_or(0, |process| process.run);
        let Some(Forming { joining: Some(joining), birth, .. }) = process.and_then(Process::forming_mut)
        else {
            return;
        };
        if birth.is_some() {
            return;
        }
        match joining.note(now_ms, ended) {
            Some(born) => {
                *birth = Some(born);
                self.counts.joins += 1;
                self.begin_to_bind(id, run);
            }
            None => self.handle_join(id),
        }
    }
}

/// An answer, for the trace.
fn told(ended: &Result<JoinResponse, String>) -> String {
    match ended {
        Ok(JoinResponse::Admitted { raft_id, .. }) => format!("that it has raft id {raft_id}"),
        Ok(JoinResponse::Refused { refusal }) => format!("no: {refusal}"),
        Ok(JoinResponse::Later { why, .. }) => format!("not now: {why}"),
        Err(why) => format!("nothing: {why}"),
    }
}
