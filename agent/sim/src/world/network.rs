//! The network at work: what is lost, late or doubled; and the links that agents believe in.

use blixard_model::removal::RemovedFrom;
use blixard_node::Envelope;
use blixard_node::host::Input;

use super::World;
use super::parts::event::{Event, Fault, MachineId, Message};
use super::parts::network::{STRAGGLES_LONG_US, STRAGGLES_US};

/// A link that carries nothing is given up after this time, in µs.
const LINK_LOST_US: u64 = 3_000_000;
/// A link is found again within this time, in µs.
const LINK_FOUND_US: u64 = 300_000;
impl World {
    /// Agents came or went, or cuts did: who can be sent to is looked at again.
    pub(crate) fn links_changed(&mut self) {
        let now_us = self.queue.now_us();
        for from in 0..self.machines.len() {
            for to in 0..self.machines.len() {
                let runs = |machine: MachineId| self.machines[machine].process.is_some();
                let carries = from != to
                    && runs(from)
                    && runs(to)
                    && !self.network.is_cut(from, to)
                    && self.lets_in(from, to)
                    && self.lets_in(to, from);
                if self.network.carries[from][to] != carries {
                    self.network.carries[from][to] = carries;
                    self.network.changed_us[from][to] = now_us;
                }
            }
            let found = self.rng.below(LINK_FOUND_US);
            self.queue.after(found, Event::Link { machine: from });
            self.queue.after(LINK_LOST_US, Event::Link { machine: from });
        }
    }

    pub(crate) fn handle_link(&mut self, from: MachineId) {
        let now_us = self.queue.now_us();
        let mut view = self.machines[from].view.clone();
        for to in 0..self.machines.len() {
            let endpoint_id = self.machines[to].endpoint_id;
            if self.network.carries[from][to] {
                view.insert(endpoint_id);
            } else if now_us - self.network.changed_us[from][to] >= LINK_LOST_US || from == to {
                view.remove(&endpoint_id);
            }
        }
        if self.machines[from].process.is_none() {
            view.clear();
        }
        let gone: Vec<MachineId> = (0..self.machines.len())
            .filter(|to| {
                let endpoint_id = self.machines[*to].endpoint_id;
                self.machines[from].view.contains(&endpoint_id) && !view.contains(&endpoint_id)
            })
            .collect();
        self.machines[from].view = view;
        // A link that ends takes along what was asked over it.
        self.peers_gave_up(from, |asked| gone.contains(&asked.from));
        self.tell_links(from);
    }

    /// The host learns which links it has, and what was said on those that it was refused.
    pub(crate) fn tell_links(&mut self, id: MachineId) {
        let (up, removed) = (self.machines[id].view.clone(), self.removed_words(id));
        self.input(id, Input::Links { up, removed });
    }

    /// Whether this agent takes anything of that one: it is listed, a member, or was named with a ticket, and
    /// it was not removed.
    pub(crate) fn lets_in(&self, at: MachineId, other: MachineId) -> bool {
        let (machine, other_id) = (&self.machines[at], self.machines[other].endpoint_id);
        let Some(process) = &machine.process else { return false };
        let listed = other < machine.listed;
        (listed || process.contacts.contains(&other_id)) && !process.kept_out.contains_key(&other_id)
    }

    /// Whoever dials a member that knows of its removal is told so.
    fn removed_words(&self, id: MachineId) -> Vec<RemovedFrom> {
        let me = self.machines[id].endpoint_id;
        let others = (0..self.machines.len()).filter(|other| *other != id);
        let dialled = others.filter(|other| {
            let cut = self.network.is_cut(id, *other) || self.network.is_cut(*other, id);
            !cut && self.lets_in(id, *other)
        });
        dialled
            .filter_map(|other| self.machines[other].process.as_ref()?.kept_out.get(&me).copied())
            .collect()
    }

    pub(crate) fn send_raft(&mut self, from: MachineId, send: Envelope) {
        let known = self.machines[from].view.contains(&send.to);
        let Some(to) = self.machine_of(send.to).filter(|_| known) else {
            if send.is_snapshot {
                self.snapshot_result(from, send.member.0, false, 0);
            } else {
                self.input(from, Input::RaftNotSent { member: send.member });
            }
            return;
        };
        let message = if send.is_snapshot {
            Message::Snapshot { frame: send.frame, member: send.member.0 }
        } else {
            Message::Raft(send.frame)
        };
        self.transmit(from, to, message);
    }

    /// Sends over the network as it is: each message for itself, lost, doubled or late.
    pub(crate) fn transmit(&mut self, from: MachineId, to: MachineId, message: Message) {
        self.counts.messages += 1;
        if self.rng.chance(self.options.loss, 1_000) || self.network.is_cut(from, to) {
            self.counts.lost += 1;
            if let Message::Snapshot { member, .. } = message {
                self.snapshot_result(from, member, false, 2_000_000);
            }
            return;
        }
        // A snapshot has a stream of its own, and its end is reported once.
        let doubled =
            !matches!(message, Message::Snapshot { .. }) && self.rng.chance(self.options.duplication, 1_000);
        if doubled {
            self.counts.duplicated += 1;
            let wait = self.delay_us(from);
            self.arrives_after(wait, (from, to), message.clone());
        }
        let wait = self.delay_us(from);
        self.arrives_after(wait, (from, to), message);
    }

    pub(crate) fn arrives_after(
        &mut self,
        wait_us: u64,
        (from, to): (MachineId, MachineId),
        message: Message,
    ) {
        let to_run = self.run_of(to);
        self.queue.after(wait_us, Event::Arrival { to, to_run, from, message });
    }

    fn delay_us(&mut self, from: MachineId) -> u64 {
        // What rests on a write leaves when the write has ended.
        let held = self.machines[from].held_until_us.saturating_sub(self.queue.now_us());
        let mut delay = self.options.delay_min_us + self.rng.below(self.options.delay_spread_us + 1);
        if self.rng.chance(self.options.stragglers, 1_000) {
            let longest = if self.rng.chance(1, 4) { STRAGGLES_LONG_US } else { STRAGGLES_US };
            delay += self.rng.below(longest);
        }
        held + delay
    }

    pub(crate) fn handle_arrival(
        &mut self,
        (to, to_run): (MachineId, Option<u64>),
        from: MachineId,
        message: Message,
    ) {
        // A question and its copies travel on one connection, which does not outlive the process it is with:
        // a later run that answered a copy would contradict what an earlier one did with the first.
        let asks = matches!(message, Message::Request { .. } | Message::Join { .. });
        let another_run = asks && to_run != self.run_of(to);
        if self.network.is_cut(from, to) || another_run {
            self.counts.lost += 1;
            if let Message::Snapshot { member, .. } = message {
                self.snapshot_result(from, member, false, 2_000_000);
            }
            return;
        }
        let what = match &message {
            Message::Raft(frame) | Message::Snapshot { frame, .. } => crate::trace::hash_bytes(frame),
            Message::Request { run, call, .. }
            | Message::Response { run, call, .. }
            | Message::Join { run, call, .. }
            | Message::Joined { run, call, .. }
            | Message::GaveUp { run, call } => run.rotate_left(32) ^ call.0,
        };
        // The connection was closed when the other side was removed; what was on its way is not read.
        let stranger =
            !matches!(message, Message::Join { .. } | Message::Joined { .. }) && !self.lets_in(to, from);
        if stranger {
            self.counts.lost += 1;
            return self.arrives_nowhere(Event::Arrival { to, to_run, from, message });
        }
        self.trace.add(self.queue.now_us(), 2, to, what);
        self.deliver(to, from, message);
    }

    /// Nobody is there. The sender of a snapshot hears of it when the link ends.
    pub(crate) fn arrives_nowhere(&mut self, event: Event) {
        if let Event::Arrival { from, message: Message::Snapshot { member, .. }, .. } = event {
            self.snapshot_result(from, member, false, 2_000_000);
        }
    }

    pub(crate) fn snapshot_result(&mut self, from: MachineId, member: u64, delivered: bool, wait_us: u64) {
        let Some(process) = &self.machines[from].process else { return };
        let run = process.run;
        self.queue.after(wait_us, Event::SnapshotEnd { machine: from, run, member, delivered });
    }

    /// The agent is killed with this on its way, which arrives when its next run has long said it again.
    pub(crate) fn send_as_last_word(&mut self, from: MachineId, to: MachineId, message: Message) {
        let late = STRAGGLES_LONG_US / 10 + self.rng.below(STRAGGLES_LONG_US / 2);
        self.arrives_after(late, (from, to), message);
        let soon = self.rng.below(100_000);
        self.queue.after(soon, Event::Fault(Fault::Kill(from)));
    }
}
