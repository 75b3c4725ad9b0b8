//! The reconciler's wiring, and the jobs of the service manager that outlive it.

use blixard_core::VmRecord;
use blixard_core::reconciler::{Action, NodeView};
use blixard_model::{Command, Request};

use super::World;
use super::event::{Event, MachineId};
use super::machine::{Purpose, ReadTicket};
use super::text_id;

/// The list of units is taken at least this often, in µs.
const PERIOD_US: u64 = 2_000_000;
/// How long telling the cluster that a unit is gone may take, in ms.
const CONFIRM_MS: u64 = 10_000;

impl World {
    /// Lets the reconciler look, soon.
    pub(crate) fn wake_reconciler(&mut self, id: MachineId, wait_us: u64) {
        let Some(process) = &mut self.machines[id].process else { return };
        if std::mem::replace(&mut process.reconcile_due, true) {
            return;
        }
        let run = process.run;
        self.queue.after(wait_us, Event::Reconcile { machine: id, run });
    }

    pub(crate) fn handle_reconcile(&mut self, id: MachineId) {
        let now_us = self.queue.now_us();
        let machine = &mut self.machines[id];
        let now_ms = machine.boot_ms(now_us);
        let Some(process) = &mut machine.process else { return };
        process.reconcile_due = false;
        let run = process.run;
        let Some(node) = process.node() else { return };
        let state = node.state();
        let ours = state.member_by_endpoint(machine.endpoint_id).is_some_and(|m| m.name == machine.name);
        let placed: Vec<VmRecord> = state.placed_on(&machine.name).cloned().collect();
        let placed: Vec<&VmRecord> = placed.iter().collect();
        let units = machine.hypervisor.list();
        let up_to_date = process.up_to_date && ours;
        let view = NodeView { placed: &placed, units: &units, up_to_date, now_ms };
        for (name, ended) in process.ongoing.unexpected_ends(&view) {
            let how = ended.unwrap_or_else(|| "ended by itself".to_owned());
            process.ongoing.note_end(&name, &how, now_ms);
        }
        let actions = process.ongoing.begin(&view);
        for action in actions {
            let record = placed.iter().find(|vm| vm.spec.name == *action.vm()).copied();
            self.begin_action((id, run), action, record);
        }
        self.queue.after(PERIOD_US, Event::Reconcile { machine: id, run });
    }

    fn begin_action(&mut self, (id, run): (MachineId, u64), action: Action, record: Option<&VmRecord>) {
        let now_us = self.queue.now_us();
        self.trace.line(now_us, || format!("n{} {action:?}", id + 1));
        let boot = self.machines[id].boot;
        let mut wait = 1_000 + self.rng.below(400_000);
        let mut fails = false;
        match (&action, record) {
            (Action::Start(name), Some(vm)) => {
                fails = self.rng.chance(self.options.start_failures, 1_000);
                let generation = vm.placement.generation;
                if self.machines[id].hypervisor.begin_start(name, generation) {
                    self.counts.vm_starts += 1;
                    let started = (id, name.clone(), generation);
                    self.checker.unit_starts(&self.machines, started, now_us);
                }
            }
            (Action::Stop(name), _) => {
                self.machines[id].hypervisor.begin_stop(name);
                wait += self.rng.below(3_000_000);
            }
            (Action::ResetFailed(name), _) => self.machines[id].hypervisor.reset_failed(name),
            (Action::ConfirmGone(name), Some(vm)) => {
                let request_id = self.new_id();
                let command = Command::ConfirmGone {
                    name: name.clone(),
                    node: vm.placement.node.clone(),
                    generation: vm.placement.generation,
                };
                let request = Request { id: text_id(&format!("agent-{request_id}")), command };
                return self.submit(id, request, CONFIRM_MS, Purpose::Confirm(action));
            }
            (Action::Start(_) | Action::ConfirmGone(_), None) => {}
        }
        self.queue.after(wait, Event::JobDone { machine: id, boot, run, action, fails });
    }

    pub(crate) fn handle_job_done(
        &mut self,
        (id, boot, run): (MachineId, u64, u64),
        action: &Action,
        fails: bool,
    ) {
        let machine = &mut self.machines[id];
        if machine.boot == boot {
            match action {
                Action::Start(name) => machine.hypervisor.end_start(name, fails),
                Action::Stop(name) => machine.hypervisor.end_stop(name),
                Action::ResetFailed(_) | Action::ConfirmGone(_) => {}
            }
        }
        if machine.process.as_ref().is_some_and(|process| process.run == run) {
            self.action_done(id, action, fails.then_some("exited 1"));
        }
    }

    /// The agent learns that an action of its own run ended.
    pub(crate) fn action_done(&mut self, id: MachineId, action: &Action, failure: Option<&str>) {
        let now_ms = self.machines[id].boot_ms(self.queue.now_us());
        if let Some(process) = &mut self.machines[id].process {
            process.ongoing.note_done(action, failure, now_ms);
        }
        self.wake_reconciler(id, 50_000);
    }

    pub(crate) fn handle_guest_ends(&mut self, id: MachineId) {
        let (choose, well) = (crate::options::below(&mut self.rng, 64), self.rng.chance(1, 2));
        if self.machines[id].hypervisor.end_some(choose, well).is_some() {
            self.counts.guest_ends += 1;
            self.wake_reconciler(id, 50_000);
        }
    }

    /// A read that the log now answers.
    pub(crate) fn read_served(&mut self, id: MachineId, ticket: ReadTicket) {
        match ticket {
            ReadTicket::Barrier => {
                if let Some(process) = &mut self.machines[id].process {
                    process.up_to_date = true;
                }
                self.wake_reconciler(id, 50_000);
            }
            ReadTicket::Client { client, op, .. } => self.client_read(id, client, op),
        }
    }
}
