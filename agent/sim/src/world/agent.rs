//! The agent's wiring: start, formation, turns of the consensus task, what it announces, how it ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use blixard_consensus::TICK_MS;
use blixard_core::formation::phase_of;
use blixard_core::reconciler::Ongoing;
use blixard_model::formation::{Identity, Phase as IdentityPhase};
use blixard_model::wire::PeerRequest;
use blixard_model::{MembershipChange, StoreId};
use blixard_node::birth::{self, Resume, ResumeError};
use blixard_node::forming::Pace;
use blixard_node::{NodeError, Notice, Turn};
use blixard_store::{DiskFault, OpenError, Store, WriteError};

use super::event::{Event, MachineId, Message};
use super::machine::{Call, Forming, Phase, Process, Purpose, ReadTicket, Ticket};
use super::mirror::{Mirror, Watched};
use super::{DiskHealth, World, address};
use crate::disk::Tear;

/// How long an answer may take, in µs.
pub(crate) const ANSWER_US: u64 = 2_000_000;
/// How long the leader may take to admit a listed node, in ms.
const VOUCH_MS: u64 = 4_000;
/// How often the agent announces itself, in µs.
const ANNOUNCE_US: u64 = 1_000_000;

/// Why an agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The disk is full; it starts again when there is space.
    Full,
    /// The disk failed; it counts as lost.
    Failed,
    /// The disk went back in time, and says so.
    RolledBack,
    /// An operator removed the node from the cluster.
    Removed,
    /// The machine lost its power in the middle of a write.
    Power,
    /// Anything else is a fault of ours.
    Wrong(String),
}

impl World {
    pub(crate) fn handle_start(&mut self, id: MachineId) {
        self.machines[id].start_scheduled = false;
        let machine = &self.machines[id];
        if machine.process.is_some() || machine.retired || machine.removed {
            return;
        }
        self.exchange_lost_disk(id);
        self.list_late_member(id);
        let (run, store_id) = (self.new_id(), self.new_store_id());
        self.trace.line(self.queue.now_us(), || format!("n{} starts, run {run}", id + 1));
        let machine = &self.machines[id];
        // The making of a store is short: without this its boundaries would hardly ever be hit.
        if self.options.faults.power && machine.store_id.is_none() && self.rng.chance(1, 4) {
            machine.disk.crash_after(self.rng.below(240));
        }
        let machine = &self.machines[id];
        let opened = Store::open(&machine.disk, machine.endpoint_id, &self.cluster_name, store_id);
        match opened {
            Ok(store) => self.begin_run(id, run, store),
            Err(error) => {
                let end = self.why_not_opened(id, &error);
                self.end_run(id, end);
            }
        }
    }

    fn new_store_id(&mut self) -> StoreId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.new_id().to_be_bytes());
        StoreId::from_bytes(bytes)
    }

    fn why_not_opened(&self, id: MachineId, error: &OpenError) -> End {
        match error.disk_fault() {
            _ if self.machines[id].disk.is_crashed() => End::Power,
            Some(DiskFault::Full) => End::Full,
            Some(DiskFault::Failed) => End::Failed,
            None => End::Wrong(format!("the store can not be opened: {error}")),
        }
    }

    fn begin_run(&mut self, id: MachineId, run: u64, store: Store) {
        let mirror = Rc::new(RefCell::new(Mirror::default()));
        let promise = store.promise().cloned();
        let (bound, store_id) = (store.cluster().is_some(), store.store_id());
        self.machines[id].store_id = Some(store_id);
        let forming = Forming {
            store,
            answers: BTreeMap::new(),
            promise,
            waiting_for: Vec::new(),
            pace: Pace::new(run),
            birth: None,
            joining: self.new_joining(id, run),
            told: Vec::new(),
        };
        let phase = Phase::Forming(Box::new(forming));
        let registration = self.new_registration(id);
        self.machines[id].process = Some(Process {
            run,
            store_id,
            phase,
            mirror,
            genesis: None,
            registration,
            ongoing: Ongoing::default(),
            up_to_date: false,
            submissions: BTreeMap::new(),
            calls: BTreeMap::new(),
            turn_due: false,
            reconcile_due: false,
        });
        self.links_changed();
        if bound {
            self.resume(id);
        } else {
            self.queue.after(1_000, Event::FormingRound { machine: id, run });
            self.queue.after(2_000, Event::Join { machine: id, run });
            self.doubt_new_disk(id);
        }
        self.pay_for_syncs(id);
    }

    /// From a bound store to a node that takes part.
    pub(crate) fn resume(&mut self, id: MachineId) {
        let who = Resume {
            name: self.machines[id].name.clone(),
            declared: self.declared(id),
            incarnation: self.new_id(),
            limits: self.options.limits,
            voter_lost_ticks: self.options.voter_lost_ticks,
        };
        let Some(mut process) = self.machines[id].process.take() else { return };
        let Phase::Forming(forming) = process.phase else { return };
        let store = forming.store;
        let genesis = store.cluster().map(|marker| marker.genesis.clone());
        let mirror = Rc::clone(&process.mirror);
        let resumed = birth::resume(store, who, |store| Watched::new(store, mirror));
        let mut node: super::Node = match resumed {
            Ok(node) => node,
            Err(error) => {
                let end = match &error {
                    _ if self.machines[id].disk.is_crashed() => End::Power,
                    ResumeError::Open(error) => self.why_not_opened(id, error),
                    other => End::Wrong(format!("the node can not resume: {other}")),
                };
                return self.end_run(id, end);
            }
        };
        node.note_links(self.machines[id].view.clone());
        node.read(ReadTicket::Barrier);
        let run = process.run;
        process.phase = Phase::Running(Box::new(node));
        process.genesis = genesis;
        if let Some(genesis) = &process.genesis {
            self.checker.birth(genesis, self.queue.now_us());
        }
        self.machines[id].process = Some(process);
        // It lets in others than before.
        self.links_changed();
        let first = self.rng.below(TICK_MS * 1_000);
        self.queue.after(first, Event::Tick { machine: id, run });
        let first = self.rng.below(ANNOUNCE_US);
        self.queue.after(first, Event::Announce { machine: id, run });
        self.queue.after(1_000, Event::Register { machine: id, run });
        self.queue.after(1_000, Event::Reconcile { machine: id, run });
        self.input(id);
    }

    pub(crate) fn why_not_written(&self, id: MachineId, error: &WriteError) -> End {
        match error.disk_fault() {
            _ if self.machines[id].disk.is_crashed() => End::Power,
            Some(DiskFault::Full) => End::Full,
            Some(DiskFault::Failed) => End::Failed,
            None => End::Wrong(format!("a write failed: {error}")),
        }
    }

    /// What the agent says of itself to the one that asks.
    pub(crate) fn identity_of(&self, id: MachineId, asker: Option<&Identity>) -> Identity {
        let machine = &self.machines[id];
        let store_id = machine.process.as_ref().map_or(StoreId::from_bytes([0; 16]), |p| p.store_id);
        let phase = match machine.process.as_ref().map(|process| &process.phase) {
            Some(Phase::Forming(forming)) => IdentityPhase::Empty { promise: forming.promise.clone() },
            Some(Phase::Running(node)) => {
                phase_of(node.state(), (node.summary().raft_id, node.summary().applied), asker)
            }
            None => IdentityPhase::Empty { promise: None },
        };
        Identity {
            name: machine.name.clone(),
            endpoint_id: machine.endpoint_id,
            store_id,
            addresses: vec![address(id)],
            relay_url: None,
            capacity: Some(machine.capacity),
            witness: machine.witness,
            phase,
        }
    }

    pub(crate) fn handle_tick(&mut self, id: MachineId) {
        let period = self.machines[id].true_us(TICK_MS * 1_000);
        let wall_ms = self.machines[id].wall_ms(self.queue.now_us());
        let Some(process) = &mut self.machines[id].process else { return };
        let run = process.run;
        if let Some(node) = process.node_mut() {
            node.note_time(wall_ms);
            node.tick();
        }
        self.queue.after(period, Event::Tick { machine: id, run });
        self.input(id);
    }

    /// Something went into the node: it has its turn soon, together with what else comes until then.
    pub(crate) fn input(&mut self, id: MachineId) {
        let wait = self.rng.below(200);
        let Some(process) = &mut self.machines[id].process else { return };
        if process.turn_due {
            return;
        }
        process.turn_due = true;
        let run = process.run;
        self.queue.after(wait, Event::Turn { machine: id, run });
    }

    pub(crate) fn handle_turn(&mut self, id: MachineId) {
        let now_us = self.queue.now_us();
        let Some(process) = &mut self.machines[id].process else { return };
        process.turn_due = false;
        let Some(node) = process.node_mut() else { return };
        let before = node.summary().clone();
        let turn = match node.turn() {
            Ok(turn) => turn,
            Err(error) => return self.node_failed(id, &error),
        };
        let changed = *node.summary() != before;
        self.counts.turns += 1;
        let machine = &self.machines[id];
        if let Some(process) = &machine.process
            && let Some(node) = process.node()
        {
            let seen = (id, process.run, node, &mut *process.mirror.borrow_mut());
            let what = self.checker.turn(&self.machines, seen, now_us);
            self.trace.add(now_us, 1, id, what);
        }
        self.pay_for_syncs(id);
        self.carry_out(id, turn);
        if changed {
            self.summary_changed(id);
        }
    }

    fn carry_out(&mut self, id: MachineId, turn: Turn<Ticket, ReadTicket>) {
        for notice in &turn.notices {
            self.trace.line(self.queue.now_us(), || format!("n{} {notice:?}", id + 1));
        }
        self.count_notices(&turn.notices);
        if std::mem::take(&mut self.links_due)
            || turn.notices.iter().any(|it| matches!(it, Notice::Restored(_)))
        {
            self.links_changed();
        }
        self.check_honesty(id, &turn.notices);
        turn.sends.into_iter().for_each(|send| self.send_raft(id, send));
        for (ticket, result) in turn.answers {
            self.answered(id, ticket, result);
        }
        for ticket in turn.reads {
            self.read_served(id, ticket);
        }
    }

    /// All members are honest here, and whole unless a disk went back in time: nothing they say is refused.
    fn check_honesty(&mut self, id: MachineId, notices: &[Notice]) {
        let bad = notices
            .iter()
            .find(|notice| matches!(notice, Notice::BadMessage { .. } | Notice::FalseSender { .. }));
        if let Some(notice) = bad.filter(|_| self.queue.now_us() >= self.all_honest_from_us) {
            self.fail("honest_words_pass", format!("n{} refused {notice:?}", id + 1));
        }
    }

    fn count_notices(&mut self, notices: &[Notice]) {
        for notice in notices {
            match notice {
                Notice::Leader { here: true, .. } => self.counts.elections += 1,
                Notice::Restored(_) => self.counts.snapshots += 1,
                Notice::MembershipChanged(change) => {
                    self.counts.membership_changes += 1;
                    self.links_due = true;
                    if matches!(change, MembershipChange::Promote { .. }) {
                        self.doubt_new_voter();
                    }
                }
                _ => {}
            }
        }
    }

    fn summary_changed(&mut self, id: MachineId) {
        self.wake_submissions(id);
        self.register(id);
        self.wake_reconciler(id, 50_000);
    }

    pub(crate) fn node_failed(&mut self, id: MachineId, error: &NodeError<WriteError>) {
        let end = match error {
            NodeError::Store(error) => self.why_not_written(id, error),
            NodeError::RolledBack { .. } | NodeError::Left { .. } if self.machines[id].rolled_back => {
                End::RolledBack
            }
            NodeError::Removed { .. } if self.has_removed(id) => End::Removed,
            other => End::Wrong(other.to_string()),
        };
        self.end_run(id, end);
    }

    /// The disk made the agent wait.
    pub(crate) fn pay_for_syncs(&mut self, id: MachineId) {
        let now_us = self.queue.now_us();
        let machine = &mut self.machines[id];
        let latency = machine.disk.take_latency_us();
        if latency > 0 {
            machine.held_until_us = machine.held_until_us.max(now_us + latency);
        }
    }

    /// The agent ends by itself.
    pub(crate) fn end_run(&mut self, id: MachineId, end: End) {
        let now_us = self.queue.now_us();
        self.trace.line(now_us, || format!("n{} ends: {end:?}", id + 1));
        match end {
            End::Power => return self.lose_power(id),
            End::Wrong(what) => return self.fail("unexpected_end", format!("n{}: {what}", id + 1)),
            End::Removed => {
                self.counts.learned_removed += 1;
                self.machines[id].removed = true;
                return self.drop_process(id, false);
            }
            End::Full => {
                self.counts.full_disk_ends += 1;
                self.drop_process(id, true);
            }
            End::Failed | End::RolledBack => {
                self.counts.lost_disks += 1;
                self.drop_process(id, true);
                self.machines[id].disk_health = DiskHealth::Lost;
            }
        }
        self.schedule_start(id, 1_000_000, 4_000_000);
    }

    /// The process is gone at once, with everything in its memory.
    pub(crate) fn drop_process(&mut self, id: MachineId, killed: bool) {
        let machine = &mut self.machines[id];
        if killed {
            machine.disk.crash_process();
        }
        machine.held_until_us = 0;
        if let Some(process) = machine.process.take() {
            drop(process);
            self.checker.process_ended(id);
            self.client_connections_end(id);
            self.links_changed();
        }
    }

    /// The machine is off: what was not synced may be lost, the guests are gone.
    pub(crate) fn lose_power(&mut self, id: MachineId) {
        let tear = if self.rng.chance(1, 2) { Tear::Sectors } else { Tear::Bytes };
        self.counts.crashes += 1;
        self.counts.crashes_in_writes += u64::from(self.machines[id].disk.is_crashed());
        let machine = &mut self.machines[id];
        machine.disk.crash_power(tear);
        machine.boot += 1;
        machine.hypervisor.lose_power();
        self.drop_process(id, false);
        self.schedule_start(id, 200_000, 4_000_000);
    }

    pub(crate) fn schedule_start(&mut self, id: MachineId, least_us: u64, spread_us: u64) {
        if std::mem::replace(&mut self.machines[id].start_scheduled, true) {
            return;
        }
        let wait = least_us + self.rng.below(spread_us);
        self.queue.after(wait, Event::Start { machine: id });
    }

    /// As leader, or without one, it asks the others who they are.
    pub(crate) fn handle_announce(&mut self, id: MachineId) {
        let Some(process) = &self.machines[id].process else { return };
        let (run, Some(node)) = (process.run, process.node()) else { return };
        let asks = node.summary().leads || node.summary().leader.is_none();
        self.queue.after(ANNOUNCE_US, Event::Announce { machine: id, run });
        if !process.vouches() {
            for ask in node.vouches() {
                self.submit(id, ask, VOUCH_MS, Purpose::Vouch);
            }
        }
        let Some(node) = self.machines[id].node() else { return };
        if asks {
            let version = node.summary().membership_version;
            let me = self.identity_of(id, None);
            for peer in (0..self.machines.len()).filter(|peer| *peer != id) {
                let call = self.new_id();
                let what = (call, Call::Identify { of: peer, version: Some(version) });
                self.ask((id, peer), what, PeerRequest::Identify { me: me.clone() }, ANSWER_US);
            }
        }
    }

    pub(crate) fn handle_snapshot_end(&mut self, id: MachineId, member: u64, delivered: bool) {
        if let Some(node) = self.machines[id].process.as_mut().and_then(Process::node_mut) {
            node.report_snapshot(blixard_model::RaftId(member), delivered);
        }
        self.input(id);
    }

    /// A Raft message or snapshot that arrived.
    pub(crate) fn step(&mut self, to: MachineId, from: MachineId, frame: &[u8], is_snapshot: bool) -> bool {
        let endpoint = self.machines[from].endpoint_id;
        let Some(node) = self.machines[to].process.as_mut().and_then(Process::node_mut) else { return false };
        if let Err(error) = node.handle_raft(endpoint, frame, is_snapshot) {
            self.node_failed(to, &error);
            return false;
        }
        self.input(to);
        true
    }

    pub(crate) fn offer_identity(&mut self, id: MachineId, identity: Identity, asked: Option<u64>) {
        let Some(process) = &mut self.machines[id].process else { return };
        match &mut process.phase {
            Phase::Forming(forming) => {
                forming.answers.insert(identity.endpoint_id, identity);
            }
            Phase::Running(node) => {
                let lost = node.summary().leader.is_none();
                let before = if lost { node.peers() } else { Vec::new() };
                if let Err(error) = node.note_identity(identity, asked) {
                    return self.node_failed(id, &error);
                }
                // Without a leader it may have learned whom to let in.
                if lost && node.peers() != before {
                    self.links_changed();
                }
            }
        }
    }

    pub(crate) fn deliver(&mut self, to: MachineId, from: MachineId, message: Message) {
        match message {
            Message::Raft(frame) => {
                self.step(to, from, &frame, false);
            }
            Message::Snapshot { frame, member } => {
                let delivered = self.step(to, from, &frame, true);
                self.snapshot_result(from, member, delivered, 1_000);
            }
            Message::Request { call, request } => self.handle_request(to, from, call, *request),
            Message::Response { call, response } => self.handle_response(to, call, *response),
            Message::Join { call, request } => self.handle_join_request(to, from, call, *request),
            Message::Joined { call, response } => self.handle_joined(to, call, *response),
        }
    }
}
