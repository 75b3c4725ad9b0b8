//! The process of a VM's supervisor, as `blixard-launcher` runs it (`run.rs`): it hands over what happens and
//! does what is decided. Between any two of its steps it may stand still.

use blixard_launcher::supervisor::{ProcessEnd, SupervisorEffect, SupervisorInput, VmEnd, watchdog_us};
use blixard_launcher::{GuestEvent, LeasePermission, NoLease, QmpCommand, QmpMessage};
use blixard_model::VmName;

use super::World;
use super::parts::event::{Event, MachineId};
use super::parts::hypervisor::Unit;
use super::parts::supervised::{ShellStep, SimGuest, UnitEvent, UnitNotice, UnitProcess};

/// The file is looked at this often whatever is told of its directory, in ms.
const LOOK_MS: u64 = 1_000;

impl World {
    pub(crate) fn process_of(&mut self, id: MachineId, vm: &VmName) -> Option<&mut UnitProcess> {
        self.machines[id].hypervisor.get_mut(vm)?.process.as_deref_mut()
    }

    /// Something happens to this unit's processes in so many µs.
    pub(crate) fn unit_after(&mut self, id: MachineId, vm: &VmName, us: u64, what: UnitEvent) {
        let at_us = self.queue.now_us() + us;
        self.unit_at(id, vm, at_us, what);
    }

    pub(crate) fn unit_at(&mut self, id: MachineId, vm: &VmName, at_us: u64, what: UnitEvent) {
        let boot = self.machines[id].boot;
        let Some(number) = self.process_of(id, vm).map(|process| process.number) else { return };
        let event = Event::Unit { machine: id, boot, vm: vm.clone(), number, what: Box::new(what) };
        self.queue.at(at_us, event);
    }

    /// The supervisor's process wakes up with what has come meanwhile.
    pub(crate) fn supervisor_wakes(&mut self, id: MachineId, vm: &VmName) {
        let now_ms = self.boot_ms(id);
        let Some(process) = self.process_of(id, vm).filter(|process| process.is_awake()) else { return };
        let supervisor = process.supervisor.as_ref();
        let deadline_ms = supervisor.and_then(|supervisor| supervisor.lease_deadline_ms());
        if deadline_ms.is_some_and(|until_ms| now_ms >= until_ms) {
            self.carry_out_decisions(id, vm);
        }
        let Some(process) = self.process_of(id, vm).filter(|process| process.is_awake()) else { return };
        // What the hypervisor has said comes before signals.
        let is_signal =
            |it: &SupervisorInput| matches!(it, SupervisorInput::Stop | SupervisorInput::Ended(_));
        process.inbox.sort_by_key(is_signal);
        for input in std::mem::take(&mut process.inbox) {
            if let Some(supervisor) = &mut process.supervisor {
                supervisor.handle(now_ms, input);
            }
        }
        self.carry_out_decisions(id, vm);
        self.plan_supervisor(id, vm);
    }

    /// Does what is decided, until nothing more is or the process stands still.
    fn carry_out_decisions(&mut self, id: MachineId, vm: &VmName) {
        loop {
            while let Some(process) = self.process_of(id, vm).filter(|process| process.is_awake()) {
                let Some(step) = process.todo.pop_front() else { break };
                if let Some(freeze) = process.step() {
                    // That word, and the next one is true.
                    process.stale_words = if matches!(step, ShellStep::Tell(_)) { 2 } else { 0 };
                    process.todo.push_front(step);
                    return self.freeze(id, vm, freeze);
                }
                self.carry_out_step(id, vm, step);
            }
            if !self.process_of(id, vm).is_some_and(|process| process.is_awake()) {
                return;
            }
            self.look_at_file(id, vm);
            let Some(process) = self.process_of(id, vm) else { return };
            let effects = process.supervisor.as_mut().map(|it| it.turn()).unwrap_or_default();
            if effects.is_empty() {
                return;
            }
            process.todo.extend(effects.into_iter().map(ShellStep::Effect));
        }
    }

    /// Hands over the time, and before that what the lease allows at the same moment.
    fn look_at_file(&mut self, id: MachineId, vm: &VmName) {
        let now_ms = self.boot_ms(id);
        let machine = &mut self.machines[id];
        let (lease, directory) = (&machine.lease.file, machine.lease.number);
        let Some(process) = machine.hypervisor.get_mut(vm).and_then(|unit| unit.process.as_deref_mut())
        else {
            return;
        };
        let Some(supervisor) = &mut process.supervisor else { return };
        if let Some(need) = &process.need {
            let is_over = supervisor.lease_deadline_ms().is_some_and(|until_ms| now_ms >= until_ms);
            if std::mem::take(&mut process.has_changed) || is_over || now_ms >= process.look_at_ms {
                if now_ms >= process.look_at_ms {
                    process.look_at_ms = now_ms + LOOK_MS;
                    process.watches = directory;
                }
                let permission = match lease {
                    Some(file) => need.allowed_by(file),
                    None => need.permission(Ok(None)),
                };
                self.counts.old_files_refused +=
                    u64::from(permission == LeasePermission::Denied(NoLease::OtherBoot));
                supervisor.handle(now_ms, SupervisorInput::Lease(permission));
            }
        }
        supervisor.handle(now_ms, SupervisorInput::Wake);
    }

    fn carry_out_step(&mut self, id: MachineId, vm: &VmName, step: ShellStep) {
        let now_ms = self.boot_ms(id);
        let effect = match step {
            ShellStep::Tell(notice) => {
                let arrives_us = self.queue.now_us() + self.supervisors.below(3_000);
                let Some(process) = self.process_of(id, vm) else { return };
                process.stale_words = process.stale_words.saturating_sub(1);
                process.told_us = arrives_us.max(process.told_us + 1);
                let at_us = process.told_us;
                return self.unit_at(id, vm, at_us, UnitEvent::Told(notice));
            }
            ShellStep::Effect(effect) => effect,
        };
        match effect {
            SupervisorEffect::Spawn => self.spawn_hypervisor(id, vm),
            SupervisorEffect::Send { command, id: number } => self.tell_hypervisor(id, vm, command, number),
            SupervisorEffect::Terminate => self.ask_hypervisor_to_end(id, vm),
            SupervisorEffect::Kill => self.kill_hypervisor(id, vm),
            SupervisorEffect::Notify { ready, status } => {
                if let Some(unit) = self.machines[id].hypervisor.get_mut(vm) {
                    unit.status = Some(status);
                }
                if ready {
                    self.tell_later(id, vm, UnitNotice::Ready);
                }
            }
            SupervisorEffect::Arm { until_ms } => {
                let us = watchdog_us(now_ms, until_ms, self.endless_ms());
                self.tell_later(id, vm, UnitNotice::Arm { us });
            }
            SupervisorEffect::Feed { until_ms, stopping } => {
                let us = watchdog_us(now_ms, until_ms, self.endless_ms());
                self.tell_later(id, vm, UnitNotice::Feed { us, stop_us: stopping.then_some(us) });
            }
            SupervisorEffect::Say(text) => {
                self.trace.line(self.queue.now_us(), || format!("n{} {vm}: {text}", id + 1));
            }
            SupervisorEffect::End(end) => self.supervisor_ends(id, vm, &end),
        }
    }

    /// The time that it is told was looked at now; it may stand still before it is told.
    fn tell_later(&mut self, id: MachineId, vm: &VmName, notice: UnitNotice) {
        if let Some(process) = self.process_of(id, vm) {
            process.todo.push_front(ShellStep::Tell(notice));
        }
    }

    fn supervisor_ends(&mut self, id: MachineId, vm: &VmName, end: &VmEnd) {
        self.trace.line(self.queue.now_us(), || format!("n{} {vm}: {end}", id + 1));
        self.counts.lease_ends += u64::from(matches!(end, VmEnd::LeaseEnded(_)));
        self.counts.starts_without_lease += u64::from(matches!(end, VmEnd::NoLease(_)));
        if let Some(process) = self.process_of(id, vm) {
            process.has_exited = true;
        }
        let wait = self.supervisors.below(2_000);
        self.unit_after(id, vm, wait, UnitEvent::Exited(end.exit_status(), end.to_string()));
    }

    fn plan_supervisor(&mut self, id: MachineId, vm: &VmName) {
        let (now_us, now_ms) = (self.queue.now_us(), self.boot_ms(id));
        let Some(process) = self.process_of(id, vm).filter(|process| process.is_awake()) else { return };
        let Some(supervisor) = &process.supervisor else { return };
        let look_at_ms = if process.need.is_some() { process.look_at_ms } else { u64::MAX };
        let wait_ms = supervisor.wake_at_ms().min(look_at_ms).saturating_sub(now_ms);
        // Nothing is this far away.
        let wait_ms = wait_ms.min(600_000);
        let at_us = now_us + self.machines[id].true_us(wait_ms * 1_000) + 1_000;
        let Some(process) = self.process_of(id, vm) else { return };
        if process.planned_us.is_none_or(|planned| planned > at_us) {
            process.planned_us = Some(at_us);
            self.unit_at(id, vm, at_us, UnitEvent::Wake);
        }
    }

    /// The file has changed; those who watch its directory hear of it soon.
    pub(crate) fn tell_watchers(&mut self, id: MachineId) {
        let machine = &mut self.machines[id];
        let directory = machine.lease.number;
        let watches = |unit: &Unit| unit.process.as_ref().is_some_and(|it| it.watches == directory);
        let units = machine.hypervisor.units().iter().filter(|(_, unit)| watches(unit));
        let names: Vec<VmName> = units.map(|(name, _)| name.clone()).collect();
        for vm in names {
            if let Some(process) = self.process_of(id, &vm).filter(|process| process.need.is_some()) {
                process.has_changed = true;
                let now_us = self.queue.now_us();
                self.wake_supervisor_by(id, &vm, now_us + 500);
            }
        }
    }

    /// The supervisor is woken then, if not before.
    pub(crate) fn wake_supervisor_by(&mut self, id: MachineId, vm: &VmName, at_us: u64) {
        let Some(process) = self.process_of(id, vm) else { return };
        if process.planned_us.is_none_or(|planned| planned > at_us) {
            process.planned_us = Some(at_us);
            self.unit_at(id, vm, at_us, UnitEvent::Wake);
        }
    }

    fn boot_ms(&self, id: MachineId) -> u64 {
        self.machines[id].boot_ms(self.queue.now_us())
    }
}

impl World {
    fn spawn_hypervisor(&mut self, id: MachineId, vm: &VmName) {
        let wait = 2_000 + self.supervisors.below(60_000);
        let Some(process) = self.process_of(id, vm) else { return };
        process.guest = SimGuest::Prelaunch;
        if process.temper.fails {
            let end = ProcessEnd { status: Some(1), signal: None, out_of_memory: None };
            return self.unit_after(id, vm, wait, UnitEvent::HypervisorEnds(end));
        }
        for input in [SupervisorInput::Connected, SupervisorInput::Said(QmpMessage::Greeting)] {
            self.unit_after(id, vm, wait, UnitEvent::Reaches(input));
        }
    }

    /// What the hypervisor is told reaches it at once, what it says a moment later.
    fn tell_hypervisor(&mut self, id: MachineId, vm: &VmName, command: QmpCommand, number: u64) {
        let Some(process) = self.process_of(id, vm) else { return };
        let mut status = None;
        match (command, process.guest) {
            // It is gone, and nobody answers.
            (_, SimGuest::None) => return,
            (QmpCommand::QueryStatus, SimGuest::Prelaunch) => status = Some("prelaunch".to_owned()),
            (QmpCommand::QueryStatus, SimGuest::Runs) => status = Some("running".to_owned()),
            (QmpCommand::Cont, SimGuest::Prelaunch) => self.guest_begins(id, vm),
            (QmpCommand::CtrlAltDelete, _) if !process.temper.hears_no_keys => {
                let end = ProcessEnd { status: Some(0), signal: None, out_of_memory: None };
                let wait = 50_000 + self.supervisors.below(2_000_000);
                self.unit_after(id, vm, wait, UnitEvent::HypervisorEnds(end));
            }
            (QmpCommand::Quit, _) => self.ask_hypervisor_to_end(id, vm),
            (QmpCommand::Capabilities | QmpCommand::Cont | QmpCommand::CtrlAltDelete, _) => {}
        }
        let wait = 100 + self.supervisors.below(2_000);
        let answer = SupervisorInput::Said(QmpMessage::Done { id: Some(number), status });
        self.unit_after(id, vm, wait, UnitEvent::Reaches(answer));
    }

    fn guest_begins(&mut self, id: MachineId, vm: &VmName) {
        let now_us = self.queue.now_us();
        if let Some(process) = self.process_of(id, vm) {
            process.guest = SimGuest::Runs;
        }
        self.trace.line(now_us, || format!("n{} {vm}: the guest runs", id + 1));
        self.trace.add(now_us, 4, id, crate::trace::hash_bytes(vm.as_str().as_bytes()));
        self.checker.guest_runs(&self.machines, (id, vm.clone()), now_us);
        self.check_copies(id, vm);
        let event = SupervisorInput::Said(QmpMessage::Event(GuestEvent::Resume));
        self.unit_after(id, vm, 50, UnitEvent::Reaches(event));
    }

    fn ask_hypervisor_to_end(&mut self, id: MachineId, vm: &VmName) {
        let wait = self.supervisors.below(100_000);
        let Some(process) = self.process_of(id, vm) else { return };
        if process.guest != SimGuest::None && !process.temper.hears_no_quit {
            let end = ProcessEnd { status: Some(0), signal: None, out_of_memory: None };
            self.unit_after(id, vm, wait, UnitEvent::HypervisorEnds(end));
        }
    }

    /// SIGKILL: it is gone 3 to 110 ms later.
    pub(crate) fn kill_hypervisor(&mut self, id: MachineId, vm: &VmName) {
        let wait = 3_000 + self.supervisors.below(107_000);
        let end = ProcessEnd { status: None, signal: Some(9), out_of_memory: None };
        if self.process_of(id, vm).is_some_and(|process| process.guest != SimGuest::None) {
            self.unit_after(id, vm, wait, UnitEvent::Gone(end));
        }
    }

    /// The hypervisor's process is gone, and with it its guest.
    pub(crate) fn hypervisor_gone(&mut self, id: MachineId, vm: &VmName, end: ProcessEnd) {
        let now_us = self.queue.now_us();
        if self.options.failover {
            self.checker.guest_goes_on(&self.machines[id], vm, self.options.lease_terms, now_us);
        }
        let Some(process) = self.process_of(id, vm) else { return };
        if std::mem::replace(&mut process.guest, SimGuest::None) == SimGuest::None {
            return;
        }
        self.trace.line(now_us, || format!("n{} {vm}: the hypervisor is gone ({end})", id + 1));
        self.trace.add(now_us, 5, id, crate::trace::hash_bytes(vm.as_str().as_bytes()));
        self.reaches_supervisor(id, vm, SupervisorInput::Ended(end));
    }
}
