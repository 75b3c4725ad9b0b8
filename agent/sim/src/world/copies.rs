//! A machine that is a copy of another one: it renews the lease of the same node, from another boot. Both may
//! never run a VM under a lease at the same time.

use std::collections::BTreeMap;

use blixard_core::lease::{Holder, LeaseStep, permits};
use blixard_model::wire::{PeerRequest, PeerResponse};
use blixard_model::{BootId, Desired, RenewalAnswer, VmName, WriteAsk, WriteRequest};
use blixard_node::host::{CallId, Input};

use super::World;
use super::parts::event::{Event, MachineId, PeerQuestion};
use super::parts::names::text_id;
use super::parts::node_copy::NodeCopy;
use crate::options::below;

/// The copy looks at its lease this often, in µs.
const STEP_US: u64 = 50_000;
/// What it says, and what it is answered, takes this long at most, in µs.
const DELAY_US: u64 = 60_000;
/// How long a leader may take to tell the log what the copy says, in ms.
const ENFORCE_MS: u64 = 5_000;

impl World {
    /// One of the machines is copied, and the copy switched on.
    pub(crate) fn handle_copy_begins(&mut self) {
        if self.liveness.is_on() {
            return;
        }
        let of = below(&mut self.supervisors, self.machines.len());
        let (now_us, run) = (self.queue.now_us(), self.new_id());
        let lasts_us = 5_000_000 + self.supervisors.below(25_000_000);
        let mut boot = [0xcc; 16];
        boot[8..].copy_from_slice(&run.to_be_bytes());
        self.copy = Some(NodeCopy {
            of,
            run,
            boot_id: BootId::from_bytes(boot),
            began_us: now_us,
            ends_us: self.until_mended_us(now_us + lasts_us),
            holder: None,
            last_call: 0,
            sent: BTreeMap::new(),
            guests: BTreeMap::new(),
        });
        self.counts.node_copies += 1;
        self.trace.line(now_us, || format!("a copy of n{} is switched on", of + 1));
        self.queue.after(STEP_US, Event::CopyStep);
    }

    pub(crate) fn handle_copy_step(&mut self) {
        let now_us = self.queue.now_us();
        let Some(mut copy) = self.copy.take() else { return };
        if now_us >= copy.ends_us {
            self.trace.line(now_us, || format!("the copy of n{} is switched off", copy.of + 1));
            return;
        }
        self.step_copy(&mut copy);
        self.copy = Some(copy);
        self.queue.after(STEP_US, Event::CopyStep);
    }

    fn step_copy(&mut self, copy: &mut NodeCopy) {
        let now_us = self.queue.now_us();
        let now_ms = self.copy_ms(copy);
        let machine = &self.machines[copy.of];
        let Some(state) = self.checker.state() else { return };
        let Some(member) = state.member_by_endpoint(machine.endpoint_id) else { return };
        let raft_id = member.raft_id;
        // Before that the original gives itself what nobody else knows of, and nothing tells it from a copy.
        if state.leases.holder(&machine.name).is_none() {
            return copy.guests.clear();
        }
        let identity = (copy.boot_id, state.cluster_id());
        let new =
            || Holder::new(machine.name.clone(), identity, self.options.lease_terms, None.into(), now_ms);
        let holder = copy.holder.get_or_insert_with(new);
        let applied = self.checker.applied();
        let wall_ms = machine.wall_ms(now_us);
        let step = LeaseStep { now_ms, state, applied, raft_id, up_to_date: true, wall_ms };
        if holder.look(step).is_some() {
            holder.note_written(now_ms, true);
        }
        let (enforces, renewal) = (holder.enforces(step), holder.renewal(step));
        // What is not a leader's to grant nobody tells from what the original has.
        let is_granted = state.leases.is_on
            && holder.file().is_some_and(|file| file.until_ms.is_some() && file.grant.is_some());
        // A guest that runs ends at the last moment.
        let late_ms = now_ms.saturating_sub(self.options.lease_terms.stop_ms * 9 / 10);
        let movable = state.taken_from(&machine.name);
        let placed = state.placed_on(&machine.name).filter(|vm| {
            let (name, generation) = (&vm.spec.name, vm.placement.generation);
            let by_ms = if copy.guests.get(name) == Some(&generation) { late_ms } else { now_ms };
            vm.desired == Desired::Running
                && is_granted
                && movable.contains(name)
                && permits(holder.file(), by_ms, name, generation)
        });
        let guests: BTreeMap<VmName, u64> =
            placed.map(|vm| (vm.spec.name.clone(), vm.placement.generation)).collect();
        for vm in guests.keys().filter(|vm| !copy.guests.contains_key(*vm)) {
            self.counts.guests_of_copies += 1;
            self.trace.line(now_us, || format!("{vm} runs on the copy of n{}", copy.of + 1));
            self.checker.guest_runs(&self.machines, (usize::MAX, vm.clone()), now_us);
        }
        copy.guests = guests;
        if let Some(epoch) = enforces {
            let id = text_id(&format!("copy-{}-{}", copy.run, copy.last_call));
            let ask = WriteAsk::EnforceLease { raft_id, boot_id: copy.boot_id, epoch };
            let request = WriteRequest { id, ask };
            self.copy_asks(copy, PeerRequest::Propose { request, timeout_ms: ENFORCE_MS });
        }
        if let Some(renewal) = renewal {
            let call = self.copy_asks(copy, PeerRequest::RenewLease(renewal));
            copy.sent.insert(call, now_ms);
        }
    }

    fn copy_ms(&self, copy: &NodeCopy) -> u64 {
        (self.queue.now_us() - copy.began_us) / 1_000
    }

    fn copy_asks(&mut self, copy: &mut NodeCopy, request: PeerRequest) -> u64 {
        copy.last_call += 1;
        let leads = |id: &MachineId| {
            *id != copy.of && self.machines[*id].node().is_some_and(|node| node.summary().leads)
        };
        let leader = (0..self.machines.len()).find(leads);
        if let Some(to) = leader
            && let Some(to_run) = self.run_of(to)
        {
            let wait = self.supervisors.below(DELAY_US);
            let (of, run, call) = (copy.of, copy.run, CallId(copy.last_call));
            let asked = PeerQuestion { from: of, run, call };
            self.queue.after(wait, Event::CopyAsks { to, to_run, asked, request: Box::new(request) });
        }
        copy.last_call
    }

    pub(crate) fn handle_copy_asks(&mut self, to: MachineId, asked: PeerQuestion, request: Box<PeerRequest>) {
        let from = self.machines[asked.from].endpoint_id;
        if let Some(call) = self.note_asked(to, asked) {
            self.input(to, Input::PeerAsked { call, from, request });
        }
    }

    /// An answer to the copy. False: it is one to a machine.
    pub(crate) fn answer_copy(&mut self, asked: PeerQuestion, response: &PeerResponse) -> bool {
        if self.copy.as_ref().is_none_or(|copy| copy.run != asked.run) {
            return false;
        }
        let wait = self.supervisors.below(DELAY_US);
        if let PeerResponse::Lease(answer) = response {
            let (run, call, answer) = (asked.run, asked.call, Box::new(answer.clone()));
            self.queue.after(wait, Event::CopyAnswered { run, call, answer });
        }
        true
    }

    pub(crate) fn handle_copy_answered(&mut self, run: u64, call: CallId, answer: RenewalAnswer) {
        let Some(mut copy) = self.copy.take_if(|copy| copy.run == run) else { return };
        let now_ms = self.copy_ms(&copy);
        let sent_ms = copy.sent.remove(&call.0);
        if let (Some(holder), Some(sent_ms)) = (&mut copy.holder, sent_ms) {
            match answer {
                RenewalAnswer::Granted(granted) => holder.note_granted(sent_ms, granted),
                RenewalAnswer::Denied { .. } => holder.retry(now_ms, None),
            }
        }
        self.copy = Some(copy);
    }

    /// A guest begins to run on a machine: it does not run on a copy of one as well.
    pub(crate) fn check_copies(&mut self, id: MachineId, vm: &VmName) {
        let Some(copy) = &self.copy else { return };
        let Some(generation) = copy.guests.get(vm).copied() else { return };
        // One that was deleted since is not what is looked for: the agent of the original said so.
        if !self.checker.is_deleted(vm, generation) {
            let what =
                format!("VM {vm} begins to run on n{}, and runs on the copy of n{}", id + 1, copy.of + 1);
            self.fail("single_unit", what);
        }
    }
}
