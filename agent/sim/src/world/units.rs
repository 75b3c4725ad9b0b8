//! A machine's units, and the jobs of its service manager: they outlive the agent.

use blixard_core::VmRecord;
use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::Action;
use blixard_launcher::LeaseNeed;
use blixard_model::{Capacity, ClusterId, VmName};
use blixard_node::host::Input;

use super::World;
use super::parts::event::{Event, MachineId};
use super::parts::supervised::UnitEvent;
use super::service_manager::UnitLaunch;

impl World {
    /// The service manager answers with what it saw, or with what there is now.
    pub(crate) fn handle_list_units(&mut self, id: MachineId, look: u64, seen: Option<Vec<ObservedUnit>>) {
        let listed = Ok(seen.unwrap_or_else(|| self.machines[id].hypervisor.list()));
        let stopped = self.machines[id].stopped.clone();
        self.input(id, Input::Units { look, listed, stopped });
    }

    pub(crate) fn handle_console(&mut self, id: MachineId, vm: VmName) {
        let lines = vec![format!("the last words of {vm}")];
        self.input(id, Input::Console { vm, lines });
    }

    /// The agent begins an action. Its job goes on whatever becomes of the agent.
    pub(crate) fn begin_action(
        &mut self,
        id: MachineId,
        action: Action,
        record: Option<&VmRecord>,
        lease: Option<ClusterId>,
    ) {
        let now_us = self.queue.now_us();
        self.trace.line(now_us, || format!("n{} {action:?}", id + 1));
        let boot = self.machines[id].boot;
        let Some(run) = self.run_of(id) else { return };
        let mut wait = 1_000 + self.rng.below(400_000);
        let mut fails = false;
        match (&action, record) {
            (Action::Start(name), Some(vm)) => {
                fails = self.rng.chance(self.options.start_failures, 1_000);
                let order = vm.order_id();
                if self.machines[id].hypervisor.begin_start(name, order, Some(&vm.spec)) {
                    self.counts.vm_starts += 1;
                    let offered = self.may_be_taken(id);
                    let started = (id, name.clone(), order.generation);
                    self.checker.unit_starts(&self.machines, started, offered, now_us);
                    if !vm.spec.fails_over() {
                        self.checker.guest_runs(&self.machines, (id, name.clone()), now_us);
                    }
                    let (boot_id, generation) = (self.moment(id).boot_id, order.generation);
                    let name = name.clone();
                    let need = |cluster_id| LeaseNeed { boot_id, cluster_id, name: name.clone(), generation };
                    let launch = UnitLaunch { need: lease.map(need), fails, run, wait_us: wait };
                    return self.launch(id, &name, launch);
                }
            }
            (Action::Stop(name), _) => {
                wait += self.rng.below(3_000_000);
                if self.stop_supervised(id, name, run) {
                    return;
                }
                self.machines[id].hypervisor.begin_stop(name);
            }
            (Action::ResetFailed(name), _) => self.machines[id].hypervisor.reset_failed(name),
            (Action::Start(_) | Action::ConfirmGone(_) | Action::ConfirmSpec(_), _)
            | (Action::ConfirmStop(..), _) => {}
        }
        self.queue.after(wait, Event::JobDone { machine: id, boot, run, action, fails });
    }

    /// What the units of a machine may take: what it offers, by itself or as the log says, or what has been
    /// reserved there since it offered more.
    fn may_be_taken(&self, id: MachineId) -> Capacity {
        let machine = &self.machines[id];
        let mut most = machine.capacity;
        if let Some(state) = self.checker.state() {
            let member = state.member_by_endpoint(machine.endpoint_id);
            let offered = member.and_then(|member| member.node.offer.capacity).unwrap_or_default();
            for other in [offered, state.reserved(&machine.name).0] {
                most.cpus = most.cpus.max(other.cpus);
                most.memory_mib = most.memory_mib.max(other.memory_mib);
            }
        }
        most
    }

    pub(crate) fn handle_job_done(
        &mut self,
        (id, boot, run): (MachineId, u64, u64),
        action: Action,
        fails: bool,
    ) {
        if let Some(wakes_us) = self.asleep_until_us(id) {
            let job = Event::JobDone { machine: id, boot, run, action, fails };
            return self.queue.at(wakes_us, job);
        }
        if self.machines[id].boot == boot {
            match &action {
                Action::Stop(name) => self.end_unsupervised(id, name),
                Action::Start(_)
                | Action::ResetFailed(_)
                | Action::ConfirmGone(_)
                | Action::ConfirmSpec(_)
                | Action::ConfirmStop(..) => {}
            }
        }
        let machine = &self.machines[id];
        if machine.process.as_ref().is_some_and(|process| process.run == run) {
            let failure = fails.then(|| "exited 1".to_owned());
            self.input(id, Input::ActionDone { action, failure });
        }
    }

    pub(crate) fn handle_guest_ends(&mut self, id: MachineId) {
        if self.asleep_until_us(id).is_some() {
            return;
        }
        let (choose, well) = (crate::options::below(&mut self.rng, 64), self.rng.chance(1, 2));
        self.counts.guest_ends += u64::from(self.guest_ends(id, choose, well));
    }

    /// A unit that has no supervisor has stopped.
    fn end_unsupervised(&mut self, id: MachineId, name: &VmName) {
        let hypervisor = &mut self.machines[id].hypervisor;
        if hypervisor.units().get(name).is_some_and(|unit| unit.process.is_none()) {
            hypervisor.end_stop(name);
        }
    }

    /// Something happens to a unit's processes, if they are still there.
    pub(crate) fn handle_unit_event(
        &mut self,
        (id, boot): (MachineId, u64),
        (vm, number): (&VmName, u64),
        what: Box<UnitEvent>,
    ) {
        let is_same = self.process_of(id, vm).is_some_and(|process| process.number == number);
        if self.machines[id].boot != boot || !is_same {
            return;
        }
        if let Some(wakes_us) = self.asleep_until_us(id) {
            let event = Event::Unit { machine: id, boot, vm: vm.clone(), number, what };
            return self.queue.at(wakes_us, event);
        }
        self.handle_unit(id, vm, *what);
    }
}
