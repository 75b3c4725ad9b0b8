//! Writes on their way to whoever leads, and the questions between agents.

use std::rc::{Rc, Weak};

use blixard_model::wire::{PeerRequest, PeerResponse, ProposeResult};
use blixard_model::{Command, Request};
use blixard_node::{Ask, Step, Submission, SubmitError};

use super::World;
use super::event::{Event, MachineId};
use super::machine::{Asked, Call, Process, Purpose, Sub, Ticket};

/// Added to the forwarded deadline, in ms.
const FORWARD_MARGIN_MS: u64 = 300;

impl World {
    /// Begins a write at an agent.
    pub(crate) fn submit(&mut self, id: MachineId, ask: impl Into<Ask>, patience_ms: u64, purpose: Purpose) {
        let deadline_ms = self.machines[id].mono_ms(self.queue.now_us()) + patience_ms;
        let (sub, seed) = (self.new_id(), self.rng.next_u64());
        let Some(process) = &mut self.machines[id].process else { return };
        let submission = Submission::new(ask, deadline_ms, seed);
        process.submissions.insert(sub, Sub { submission, purpose, asked: None });
        self.go_on(id, sub);
    }

    /// Does what a submission says next. One that waits for an attempt is left alone, unless whom it waits
    /// for was replaced.
    pub(crate) fn go_on(&mut self, id: MachineId, sub_id: u64) {
        let now_us = self.queue.now_us();
        let machine = &mut self.machines[id];
        let (now_ms, me) = (machine.mono_ms(now_us), machine.endpoint_id);
        let Some(process) = &mut machine.process else { return };
        let Some(node) = process.node() else { return };
        let summary = node.summary().clone();
        let run = process.run;
        let Some(sub) = process.submissions.get_mut(&sub_id) else { return };
        match &sub.asked {
            Some(Asked::Call(call)) if sub.submission.is_replaced(&summary) => {
                process.calls.remove(call);
                sub.asked = None;
                sub.submission.note_replaced(now_ms);
            }
            Some(_) => return,
            None => {}
        }
        let ask = sub.submission.ask().clone();
        match sub.submission.next(now_ms, me, &summary) {
            Step::Done(end) => self.submission_ends(id, sub_id, end),
            Step::Wait { until_ms } => {
                let wait = machine_wait(&self.machines[id], until_ms - now_ms);
                self.queue.after(wait, Event::Submission { machine: id, run, id: sub_id });
            }
            Step::Propose { patience_ms } => {
                let waits = Rc::new(());
                let ticket = Ticket::Submission(sub_id, Rc::downgrade(&waits));
                sub.asked = Some(Asked::Here { _waits: waits });
                let wait = machine_wait(&self.machines[id], patience_ms);
                self.queue.after(wait, Event::CallTimeout { machine: id, run, call: sub_id });
                let wall_ms = self.machines[id].wall_ms(self.queue.now_us());
                if let Some(node) = self.machines[id].process.as_mut().and_then(Process::node_mut) {
                    node.note_time(wall_ms);
                    node.ask(ask, ticket);
                }
                self.input(id);
            }
            Step::Forward { endpoint_id, patience_ms, .. } => {
                self.forward((id, sub_id), endpoint_id, &ask, patience_ms);
            }
        }
    }

    fn forward(
        &mut self,
        (id, sub_id): (MachineId, u64),
        endpoint_id: blixard_model::EndpointId,
        ask: &Ask,
        patience_ms: u64,
    ) {
        let call = self.new_id();
        let wait = machine_wait(&self.machines[id], patience_ms + FORWARD_MARGIN_MS);
        let to = self.machine_of(endpoint_id).unwrap_or(id);
        let confirms = matches!(ask, Ask::Write(Request { command: Command::ConfirmGone { .. }, .. }));
        let what = Call::Forward { submission: sub_id, confirms, waits: Rc::new(()) };
        let sent = self.ask((id, to), (call, what), ask.to_leader(patience_ms), wait);
        if !sent {
            let why = "the link is down".to_owned();
            return self.attempt_ended(id, sub_id, ProposeResult::Rejected { why });
        }
        if let Some(sub) = self.submission_mut(id, sub_id) {
            sub.asked = Some(Asked::Call(call));
        }
    }

    fn submission_mut(&mut self, id: MachineId, sub_id: u64) -> Option<&mut Sub> {
        self.machines[id].process.as_mut()?.submissions.get_mut(&sub_id)
    }

    fn attempt_ended(&mut self, id: MachineId, sub_id: u64, result: ProposeResult) {
        let now_ms = self.machines[id].mono_ms(self.queue.now_us());
        let Some(sub) = self.submission_mut(id, sub_id) else { return };
        sub.asked = None;
        sub.submission.note(now_ms, result);
        self.go_on(id, sub_id);
    }

    /// A proposal of this agent ended.
    pub(crate) fn answered(&mut self, id: MachineId, ticket: Ticket, result: ProposeResult) {
        match ticket {
            Ticket::Submission(sub_id, waits) => {
                if waits.strong_count() > 0 {
                    self.attempt_ended(id, sub_id, result);
                }
            }
            Ticket::Peer { to, call, .. } => self.reply(id, to, call, PeerResponse::Proposed { result }),
        }
    }

    fn submission_ends(
        &mut self,
        id: MachineId,
        sub_id: u64,
        end: Result<blixard_model::Outcome, SubmitError>,
    ) {
        let Some(process) = &mut self.machines[id].process else { return };
        let Some(sub) = process.submissions.remove(&sub_id) else { return };
        match sub.purpose {
            Purpose::Client { client, op } => self.client_answered(client, op, end),
            Purpose::Declare => self.registration_ended(id, end),
            Purpose::Confirm(action) => self.action_done(id, &action, None),
            Purpose::Vouch => {}
            Purpose::Operator(op) => self.operator_answered(op, end),
            Purpose::Join { to, call } => self.join_decided((id, to), call, end),
        }
    }

    /// The summary of the node changed: who waits for that looks again.
    pub(crate) fn wake_submissions(&mut self, id: MachineId) {
        let Some(process) = &self.machines[id].process else { return };
        let waiting: Vec<u64> = process.submissions.keys().copied().collect();
        waiting.into_iter().for_each(|sub| self.go_on(id, sub));
    }

    pub(crate) fn handle_call_timeout(&mut self, id: MachineId, call: u64) {
        let unknown = || ProposeResult::Unknown { why: "not committed in time".to_owned() };
        let Some(process) = &mut self.machines[id].process else { return };
        // The timer of a proposal made here has the submission's number.
        if process.submissions.get(&call).is_some_and(|sub| matches!(sub.asked, Some(Asked::Here { .. }))) {
            return self.attempt_ended(id, call, unknown());
        }
        match process.calls.remove(&call) {
            Some(Call::Forward { submission, .. }) => self.attempt_ended(id, submission, unknown()),
            Some(Call::Identify { .. }) => self.handle_forming_look(id),
            Some(Call::Join) => self.join_ended(id, Err("no answer".to_owned())),
            None => {}
        }
    }

    pub(crate) fn handle_request(&mut self, id: MachineId, from: MachineId, call: u64, request: PeerRequest) {
        match request {
            PeerRequest::Identify { me } => {
                // As in the agent: one without a cluster learns only that somebody is there.
                if self.machines[id].node().is_some() {
                    self.offer_identity(id, me.clone(), None);
                } else {
                    self.heard_while_forming(id, &me);
                }
                if self.machines[id].process.is_some() {
                    let me = self.identity_of(id, Some(&me));
                    self.reply(id, from, call, PeerResponse::Identity { me: Box::new(me) });
                }
            }
            PeerRequest::Propose { request, .. } => self.asked(id, (from, call), request.into()),
            PeerRequest::ChangeMembers { change, .. } => self.asked(id, (from, call), change.into()),
            PeerRequest::Report { .. }
            | PeerRequest::Reports
            | PeerRequest::Progress
            | PeerRequest::Logs { .. } => {}
        }
    }

    /// Another agent brings this to the one that leads.
    fn asked(&mut self, id: MachineId, (from, call): (MachineId, u64), ask: Ask) {
        let asker = self.machines[from].process.as_ref();
        let waits = asker.map_or_else(Weak::new, |asker| asker.waits_for(call));
        let wall_ms = self.machines[id].wall_ms(self.queue.now_us());
        let Some(node) = self.machines[id].process.as_mut().and_then(Process::node_mut) else {
            let why = "this node is in no cluster".to_owned();
            return self.reply(id, from, call, PeerResponse::Declined { why });
        };
        node.note_time(wall_ms);
        node.ask(ask, Ticket::Peer { to: from, call, waits });
        self.input(id);
    }

    pub(crate) fn handle_response(&mut self, id: MachineId, call: u64, response: PeerResponse) {
        let Some(process) = &mut self.machines[id].process else { return };
        match (process.calls.remove(&call), response) {
            (Some(Call::Forward { submission, .. }), response) => {
                let result = match response {
                    PeerResponse::Proposed { result } => result,
                    PeerResponse::Declined { why } => ProposeResult::Rejected { why },
                    other => ProposeResult::Unknown { why: format!("answered {other:?}") },
                };
                self.attempt_ended(id, submission, result);
            }
            (Some(Call::Identify { of, version }), PeerResponse::Identity { me }) => {
                if me.endpoint_id == self.machines[of].endpoint_id {
                    self.offer_identity(id, *me, version);
                }
                self.handle_forming_look(id);
            }
            (Some(Call::Identify { .. } | Call::Join) | None, _) => {}
        }
    }
}

fn machine_wait(machine: &super::Machine, local_ms: u64) -> u64 {
    machine.true_us(local_ms.saturating_mul(1_000)).saturating_add(1_000)
}
