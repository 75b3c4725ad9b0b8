//! The shell of a simulated host: its inputs, from virtual clocks and a virtual network, and its effects. It
//! decides nothing.

use blixard_consensus::TICK_MS;
use blixard_core::reconciler::Action;
use blixard_model::wire::PeerRequest;
use blixard_model::{Ask, BootId, EndpointId, MembershipChange, WriteAsk, WriteRequest};
use blixard_node::Notice;
use blixard_node::forming::Birth;
use blixard_node::host::disk::{Write, Written};
use blixard_node::host::{
    Answer, CallError, CallId, Effect, HoldEnd, Input, Moment, PeerCallId, RaftFrame, WaiterId, Want,
};
use blixard_node::joining::JoinFailure;

use super::World;
use super::agent::End;
use super::parts::event::{Event, Fault, MachineId, Message, PeerQuestion};
use super::parts::machine::{Process, Waiter};
use crate::options::below;
use crate::planted;

/// How long a slow disk takes to bind a store to a cluster at most, in µs.
const BIND_US: u64 = 6_000_000;
/// A connection over which nothing comes is looked at again after this time, in µs.
const CONNECTION_US: u64 = 5_000_000;
/// A list of units takes this long at most, in µs.
const LIST_US: u64 = 40_000;

impl World {
    /// The clocks of a machine.
    pub(crate) fn moment(&self, id: MachineId) -> Moment {
        let (machine, now_us) = (&self.machines[id], self.queue.now_us());
        let mut boot = [0; 16];
        boot[8..].copy_from_slice(&machine.boot.to_be_bytes());
        Moment {
            boot_id: BootId::from_bytes(boot),
            boot_ms: machine.boot_ms(now_us),
            wall_ms: machine.wall_ms(now_us),
        }
    }

    /// Something happens to a host. It has its turn soon, together with what else comes until then.
    pub(crate) fn input(&mut self, id: MachineId, input: Input) {
        let now = self.moment(id);
        let Some(process) = &mut self.machines[id].process else { return };
        if let Err(end) = process.host.handle(now, input) {
            return self.host_ended(id, &end);
        }
        self.turn_soon(id);
    }

    pub(crate) fn turn_soon(&mut self, id: MachineId) {
        let wait = self.rng.below(200);
        let Some(process) = &mut self.machines[id].process else { return };
        if process.turn_due {
            return;
        }
        process.turn_due = true;
        let run = process.run;
        self.queue.after(wait, Event::Turn { machine: id, run });
    }

    pub(crate) fn handle_tick(&mut self, id: MachineId) {
        let period = self.machines[id].true_us(TICK_MS * 1_000);
        let Some(process) = &self.machines[id].process else { return };
        let run = process.run;
        self.queue.after(period, Event::Tick { machine: id, run });
        self.input(id, Input::Tick);
    }

    pub(crate) fn handle_wake(&mut self, id: MachineId) {
        if let Some(process) = &mut self.machines[id].process {
            process.wake_us = None;
            self.input(id, Input::Wake);
        }
    }

    pub(crate) fn handle_turn(&mut self, id: MachineId) {
        let Some(process) = &mut self.machines[id].process else { return };
        process.turn_due = false;
        let run = process.run;
        let mut late = Vec::new();
        loop {
            let now = self.moment(id);
            let Some(process) = &mut self.machines[id].process else { return };
            let effects = match process.host.turn(now) {
                Ok(effects) => effects,
                Err(end) => return self.host_ended(id, &end),
            };
            // Before anybody hears of what the turn came to. A state that came whole is ahead of the log in
            // the store until that is written.
            let restores =
                |effect: &Effect| matches!(effect, Effect::Write(Write::Log(write)) if write.clear_log);
            if !effects.iter().any(restores) {
                self.look_at(id);
            }
            for effect in effects {
                match planted::put_off(effect, &mut late) {
                    Some(effect) => self.carry_out(id, effect),
                    None => self.input(id, Input::Written(Box::new(Written::Log))),
                }
                if !self.runs(id, run) {
                    return;
                }
            }
            let again = self.machines[id].process.as_ref().is_some_and(|it| it.host.wants_turn());
            if !again {
                break;
            }
        }
        for write in late {
            self.write_now(id, &write);
        }
        if std::mem::take(&mut self.links_due) {
            self.links_changed();
        }
        self.plan_wake(id);
        if self.machines[id].process.as_ref().is_some_and(|it| it.host.removed().is_some()) {
            self.learned_removal(id);
        }
    }

    fn runs(&self, id: MachineId, run: u64) -> bool {
        self.machines[id].process.as_ref().is_some_and(|process| process.run == run)
    }

    /// The invariants look at the node after a step of its turn.
    fn look_at(&mut self, id: MachineId) {
        let now_us = self.queue.now_us();
        let Some(process) = &mut self.machines[id].process else { return };
        if process.host.member().is_none() {
            return;
        }
        self.counts.turns += 1;
        let (run, mut mirror) = (process.run, std::mem::take(&mut process.mirror));
        if let Some(node) = self.machines[id].node() {
            let what = self.checker.turn(&self.machines, (id, run, node, &mut mirror), now_us);
            self.trace.add(now_us, 1, id, what);
        }
        if let Some(process) = &mut self.machines[id].process {
            process.mirror = mirror;
        }
    }

    /// The host is woken when it says. Ticks look at its deadlines as well, so that a clock that jumps ahead
    /// makes it late by no more than one.
    fn plan_wake(&mut self, id: MachineId) {
        let (machine, now_us) = (&self.machines[id], self.queue.now_us());
        let Some(process) = &machine.process else { return };
        let Some(at_ms) = process.host.wake_at_ms() else { return };
        let wait_ms = at_ms.saturating_sub(machine.boot_ms(now_us));
        // The next tick comes first.
        if wait_ms >= TICK_MS {
            return;
        }
        let at_us = now_us + machine.true_us(wait_ms * 1_000) + 1_000;
        if process.wake_us.is_some_and(|planned| planned <= at_us) {
            return;
        }
        let run = process.run;
        if let Some(process) = &mut self.machines[id].process {
            process.wake_us = Some(at_us);
        }
        self.queue.at(at_us, Event::Wake { machine: id, run });
    }

    fn carry_out(&mut self, id: MachineId, effect: Effect) {
        match effect {
            Effect::Raft(envelope) => self.send_raft(id, envelope),
            Effect::AskPeer { call, to, request, .. } => self.ask_peer(id, call, to, request),
            Effect::AskToJoin { call, contact, request, .. } => {
                let Some(to) = self.machine_of(contact.endpoint_id) else { return };
                let Some(run) = self.run_of(id) else { return };
                self.trace.line(self.queue.now_us(), || format!("n{} asks n{} to be let in", id + 1, to + 1));
                self.transmit(id, to, Message::Join { run, call, request });
                self.queue.after(CONNECTION_US, Event::Connection { machine: id, run, call, to });
            }
            Effect::ForgetCall { call } => self.forget_call(id, call),
            Effect::AnswerPeer { call, response } => {
                if let Some(asked) = self.take_asked(id, call)
                    && !self.answer_copy(asked, &response)
                {
                    let PeerQuestion { from, run, call } = asked;
                    self.transmit(id, from, Message::Response { run, call, response });
                }
            }
            Effect::AnswerJoin { call, response } => {
                if let Some(PeerQuestion { from, run, call }) = self.take_asked(id, call) {
                    self.transmit(id, from, Message::Joined { run, call, response });
                }
            }
            Effect::Answer { waiter, answer } => self.answered(id, waiter, answer),
            Effect::Peers { contacts, removed, .. } => {
                if let Some(process) = &mut self.machines[id].process {
                    process.contacts = contacts.iter().map(|contact| contact.endpoint_id).collect();
                    process.kept_out = removed;
                    self.links_due = true;
                }
            }
            Effect::ServeJoins(_) | Effect::StandAside(_) => {}
            Effect::ListUnits { look } => {
                let Some(run) = self.run_of(id) else { return };
                // The service manager looks at once and answers late, or looks late.
                let seen = self.rng.chance(1, 2).then(|| self.machines[id].hypervisor.list());
                let wait = self.rng.below(LIST_US);
                self.queue.after(wait, Event::ListUnits { machine: id, run, look, seen });
            }
            Effect::Act { action, vm, lease } => self.begin_action(id, action, vm.as_deref(), lease),
            Effect::ForgetOrder { vm } => self.begin_action(id, Action::ConfirmGone(vm), None, None),
            Effect::WriteLease(file) => self.write_lease(id, *file),
            Effect::FetchConsole { vm, .. } => {
                let Some(run) = self.run_of(id) else { return };
                let wait = self.rng.below(LIST_US);
                self.queue.after(wait, Event::Console { machine: id, run, vm });
            }
            Effect::Write(write) => self.write_or_wait(id, write),
            Effect::KeepTicket { waiter, .. } => self.keep_ticket(id, waiter),
            Effect::ReadTicket => {
                let ticket = self.machines[id].ticket.clone().map(Ok);
                self.input(id, Input::TicketRead(Box::new(ticket)));
            }
            Effect::ForgetTicket(of) => {
                let machine = &mut self.machines[id];
                machine.ticket.take_if(|held| of.is_none_or(|of| held.id == of));
            }
            Effect::KeepStop { waiter, notes } => {
                self.machines[id].stopped.extend(notes.clone());
                self.input(id, Input::StopKept { waiter, notes, failure: None });
            }
            Effect::ForgetStops(notes) => self.machines[id].stopped.retain(|note| !notes.contains(note)),
            Effect::Notice(notice) => self.note(id, &notice),
        }
    }

    pub(crate) fn run_of(&self, id: MachineId) -> Option<u64> {
        self.machines[id].process.as_ref().map(|process| process.run)
    }

    /// A birth on a slow disk takes long: what the others do meanwhile, one of them with a new disk, is what
    /// promises are for.
    fn write_or_wait(&mut self, id: MachineId, write: Write) {
        let Some(run) = self.run_of(id) else { return };
        let is_birth = matches!(write, Write::Bind(_));
        if !is_birth {
            return self.make_durable(id, &write);
        }
        let slow = self.options.hard_birth && self.rng.chance(1, 2);
        let wait = if slow { self.rng.below(BIND_US) } else { 0 };
        if let Some(process) = &mut self.machines[id].process {
            process.binding = Some(write);
        }
        self.queue.after(wait, Event::Bind { machine: id, run });
        if slow && self.rng.chance(1, 2) {
            let other = below(&mut self.rng, self.machines.len());
            let soon = self.rng.below(100_000);
            self.queue.after(soon, Event::Fault(Fault::WipeUnborn(other)));
        }
    }

    pub(crate) fn handle_bind(&mut self, id: MachineId) {
        let write = self.machines[id].process.as_mut().and_then(|process| process.binding.take());
        if let Some(write) = write {
            self.make_durable(id, &write);
        }
    }

    fn make_durable(&mut self, id: MachineId, write: &Write) {
        if let Some(written) = self.write_now(id, write) {
            self.input(id, Input::Written(Box::new(written)));
        }
    }

    /// Returns what is durable now, unless the agent ended.
    fn write_now(&mut self, id: MachineId, write: &Write) -> Option<Written> {
        let machine = &mut self.machines[id];
        let process = machine.process.as_mut()?;
        let me = (machine.endpoint_id, &machine.name);
        let written = match planted::carry_out(&mut process.store, me, write) {
            Ok(written) => written,
            Err(error) => {
                self.write_failed(id, &error);
                return None;
            }
        };
        match (write, &written) {
            (Write::Log(write), _) => process.mirror.apply(write),
            // Whatever a host survives, it does not survive that its machine is off.
            (_, Written::Removed { failure: Some(_) }) if machine.disk.is_crashed() => {
                self.end_run(id, End::Power);
                return None;
            }
            (_, Written::Bound(kept)) => {
                process.mirror.load(&kept.durable);
                self.checker.birth(&kept.marker.genesis, self.queue.now_us());
                self.links_due = true;
            }
            _ => {}
        }
        self.pay_for_syncs(id);
        Some(written)
    }

    fn note(&mut self, id: MachineId, notice: &Notice) {
        self.trace.line(self.queue.now_us(), || format!("n{} {notice:?}", id + 1));
        match notice {
            Notice::Leader { here: true, .. } => self.counts.elections += 1,
            Notice::VersionRaised(_) => self.counts.versions_raised += 1,
            Notice::Restored(_) => {
                self.counts.snapshots += 1;
                self.links_due = true;
            }
            Notice::MembershipChanged(change) => {
                self.counts.membership_changes += 1;
                self.links_due = true;
                if matches!(change, MembershipChange::Promote { .. }) {
                    self.doubt_new_voter();
                }
            }
            Notice::NotLetIn(_) => self.counts.tickets_refused += 1,
            Notice::Born { birth, .. } => {
                let with_ticket = self.machines[id].ticket.is_some();
                self.counts.joins += u64::from(with_ticket && matches!(**birth, Birth::Joined { .. }));
            }
            // All members are honest here, and whole unless a disk went back in time: nothing they say is
            // refused.
            Notice::BadMessage { .. } | Notice::FalseSender { .. }
                if self.queue.now_us() >= self.all_honest_from_us =>
            {
                self.fail("honest_words_pass", format!("n{} refused {notice:?}", id + 1));
            }
            _ => {}
        }
    }

    fn ask_peer(&mut self, id: MachineId, call: CallId, to: EndpointId, request: Box<PeerRequest>) {
        let Some(run) = self.run_of(id) else { return };
        let linked = self.machines[id].view.contains(&to);
        let Some(to) = self.machine_of(to).filter(|_| linked) else {
            let answer = Err(CallError::NotSent("the link is down".to_owned()));
            return self.input(id, Input::PeerAnswered { call, answer });
        };
        let confirms = matches!(
            &*request,
            PeerRequest::Propose { request: WriteRequest { ask: WriteAsk::ConfirmGone { .. }, .. }, .. }
        );
        let message = Message::Request { run, call, request };
        let all_whole = self.machines.iter().all(|machine| !machine.rolled_back);
        if confirms && all_whole && self.options.faults.kill && self.rng.chance(1, 8) {
            self.send_as_last_word(id, to, message);
        } else {
            self.transmit(id, to, message);
        }
    }

    /// The stream of the question is closed; the peer notices when it hears of it.
    fn forget_call(&mut self, id: MachineId, call: CallId) {
        let Some(run) = self.run_of(id) else { return };
        for to in (0..self.machines.len()).filter(|to| *to != id) {
            let asked = PeerQuestion { from: id, run, call };
            let knows = self.machines[to].process.as_ref().is_some_and(|it| it.waits_here(&asked));
            if knows {
                self.transmit(id, to, Message::GaveUp { run, call });
            }
        }
    }

    /// The connection of a node that asks to be admitted: it ends when nobody answers on the other side.
    pub(crate) fn handle_connection(&mut self, id: MachineId, call: CallId, to: MachineId) {
        let Some(run) = self.run_of(id) else { return };
        let asked = PeerQuestion { from: id, run, call };
        let cut = self.network.is_cut(id, to) || self.network.is_cut(to, id);
        let waits = self.machines[to].process.as_ref().is_some_and(|it| it.waits_here(&asked));
        if waits && !cut {
            return self.queue.after(CONNECTION_US, Event::Connection { machine: id, run, call, to });
        }
        self.peers_gave_up(to, |waits| *waits == asked);
        let answer = Err(JoinFailure::Other("the connection ended".to_owned()));
        self.input(id, Input::JoinAnswered { call, answer });
    }

    fn take_asked(&mut self, id: MachineId, call: PeerCallId) -> Option<PeerQuestion> {
        self.machines[id].process.as_mut()?.asked.remove(&call)
    }

    pub(crate) fn note_asked(&mut self, id: MachineId, asked: PeerQuestion) -> Option<PeerCallId> {
        let process = self.machines[id].process.as_mut()?;
        let call = PeerCallId(process.new_number());
        process.asked.insert(call, asked);
        Some(call)
    }

    pub(crate) fn deliver(&mut self, to: MachineId, from: MachineId, message: Message) {
        let endpoint = self.machines[from].endpoint_id;
        match message {
            Message::Raft(frame) => {
                self.input(to, Input::Raft { from: endpoint, frame: RaftFrame::Message(frame) });
            }
            Message::Snapshot { frame, member } => {
                let taken = self.machines[to].node().is_some();
                self.input(to, Input::Raft { from: endpoint, frame: RaftFrame::Snapshot(frame) });
                let delivered = taken && self.machines[to].process.is_some();
                self.snapshot_result(from, member, delivered, 1_000);
            }
            Message::Request { run, call, request } => {
                if let Some(call) = self.note_asked(to, PeerQuestion { from, run, call }) {
                    self.input(to, Input::PeerAsked { call, from: endpoint, request });
                }
            }
            Message::Join { run, call, request } => {
                if let Some(call) = self.note_asked(to, PeerQuestion { from, run, call }) {
                    self.input(to, Input::JoinAsked { call, from: endpoint, source: None, request });
                }
            }
            Message::GaveUp { run, call } => {
                self.peers_gave_up(to, |asked| asked.from == from && asked.run == run && asked.call == call)
            }
            // The connection ended with the run that asked.
            Message::Response { run, call, response } => {
                if self.runs(to, run) {
                    self.input(to, Input::PeerAnswered { call, answer: Ok(response) });
                }
            }
            Message::Joined { run, call, response } => {
                if self.runs(to, run) {
                    self.input(to, Input::JoinAnswered { call, answer: Ok(response) });
                }
            }
        }
    }

    /// The connections of these peers are gone, and what they asked with them.
    pub(crate) fn peers_gave_up(&mut self, id: MachineId, is: impl Fn(&PeerQuestion) -> bool) {
        let Some(process) = &mut self.machines[id].process else { return };
        let gone: Vec<PeerCallId> =
            process.asked.iter().filter(|(_, asked)| is(asked)).map(|(call, _)| *call).collect();
        for call in gone {
            let Some(process) = &mut self.machines[id].process else { return };
            process.asked.remove(&call);
            self.input(id, Input::PeerGaveUp { call });
        }
    }

    /// Somebody on the machine wants something of its agent.
    pub(crate) fn want(&mut self, id: MachineId, waiter: Waiter, want: Want, patience_ms: u64) {
        let Some(process) = &mut self.machines[id].process else { return };
        let number = WaiterId(process.new_number());
        process.waiters.insert(number, waiter);
        self.input(id, Input::Wanted { waiter: number, want, patience_ms });
    }

    /// Brings a change to an agent.
    pub(crate) fn change(&mut self, id: MachineId, ask: impl Into<Ask>, patience_ms: u64, waiter: Waiter) {
        self.want(id, waiter, Want::Change(Box::new(ask.into())), patience_ms);
    }

    /// These do not wait any more.
    pub(crate) fn waiters_gave_up(&mut self, id: MachineId, is: impl Fn(&Waiter) -> bool) {
        let Some(process) = &mut self.machines[id].process else { return };
        let gone: Vec<WaiterId> =
            process.waiters.iter().filter(|(_, waiter)| is(waiter)).map(|(number, _)| *number).collect();
        for waiter in gone {
            let Some(process) = &mut self.machines[id].process else { return };
            process.waiters.remove(&waiter);
            self.input(id, Input::WaiterGaveUp { waiter });
        }
    }

    fn keep_ticket(&mut self, id: MachineId, waiter: WaiterId) {
        let process = self.machines[id].process.as_ref();
        let Some(Waiter::Ticket(held)) = process.and_then(|process| process.waiters.get(&waiter)) else {
            return;
        };
        self.machines[id].ticket = Some(held.clone());
        self.input(id, Input::TicketKept { waiter, kept: Ok(()) });
    }

    fn answered(&mut self, id: MachineId, waiter: WaiterId, answer: Answer) {
        let Some(process) = &mut self.machines[id].process else { return };
        let Some(waiter) = process.waiters.remove(&waiter) else { return };
        match (waiter, answer) {
            (Waiter::Client { client, op }, Answer::Changed(end)) => self.client_answered(client, op, end),
            (Waiter::Operator(op), Answer::Changed(end)) => self.operator_answered(op, end),
            (Waiter::LeaseOperator(ask), Answer::Changed(end)) => self.lease_operator_answered(&ask, end),
            (Waiter::Reader { client, op }, Answer::Readable(end)) => {
                self.client_read(id, (client, op), end.is_ok());
            }
            (Waiter::Hold, Answer::Held(end)) => self.counts.holds += u64::from(end == HoldEnd::Taken),
            (Waiter::Ticket(_) | Waiter::HandOver, _) => {}
            (waiter, answer) => {
                self.fail("answers_fit", format!("n{}: {waiter:?} was answered {answer:?}", id + 1));
            }
        }
    }
}

impl Process {
    pub(crate) fn new_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Whether this question waits for an answer here.
    pub(crate) fn waits_here(&self, asked: &PeerQuestion) -> bool {
        self.asked.values().any(|waits| waits == asked)
    }
}
