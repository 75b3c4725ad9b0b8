//! What an agent lets the supervisors of its VMs know, and what becomes of that on the machine.

use blixard_model::{LeaseFile, VmName};
use blixard_node::host::Input;

use super::World;
use super::parts::event::{Event, MachineId};
use super::parts::supervised::{Freeze, UnitEvent};
use crate::options::below;

/// Whether guests run on without a lease is looked at this often, in µs.
const AUDIT_US: u64 = 500_000;

impl World {
    /// The agent lets the supervisors know of its lease.
    pub(crate) fn write_lease(&mut self, id: MachineId, file: LeaseFile) {
        let (now_us, terms) = (self.queue.now_us(), self.options.lease_terms);
        let machine = &mut self.machines[id];
        if machine.lease.full_until_us > now_us {
            self.counts.lease_writes_refused += 1;
            let failure = Some("No space left on device".to_owned());
            return self.input(id, Input::LeaseWritten { failure });
        }
        let until_ms =
            file.until_ms.map_or_else(|| "without an end".to_owned(), |ms| format!("until {ms} ms"));
        let listed = file.vms.len();
        self.trace.line(now_us, || format!("n{} may run {listed} VMs {until_ms}", id + 1));
        machine.lease.write(file, machine.boot_ms(now_us), terms);
        self.tell_watchers(id);
        self.input(id, Input::LeaseWritten { failure: None });
    }

    /// No guest runs on for long without a lease, whoever stands still. In runs whose clocks jump there is
    /// nothing to compare with.
    pub(crate) fn handle_audit(&mut self) {
        self.queue.after(AUDIT_US, Event::Audit);
        let (now_us, terms) = (self.queue.now_us(), self.options.lease_terms);
        for machine in &self.machines {
            for name in machine.hypervisor.units().keys() {
                self.checker.guest_goes_on(machine, name, terms, now_us);
            }
        }
    }

    /// Something happens to the supervisors of a machine, or to what they read.
    pub(crate) fn handle_lease_nemesis(&mut self) {
        if self.liveness.is_on() {
            return;
        }
        let wait = 300_000 + self.supervisors.below(2_500_000);
        self.queue.after(wait, Event::LeaseNemesis);
        let id = below(&mut self.supervisors, self.machines.len());
        match self.supervisors.below(10) {
            0 => {
                let lasts = self.supervisors.below(12_000_000);
                self.machines[id].lease.full_until_us = self.queue.now_us() + lasts;
            }
            1 => {
                if self.machines[id].lease.file.is_some() {
                    self.counts.lease_files_lost += 1;
                    self.machines[id].lease.remove();
                    self.tell_watchers(id);
                }
            }
            2 => {
                if self.machines[id].lease.put_old_back() {
                    self.counts.old_files_put_back += 1;
                    self.tell_watchers(id);
                }
            }
            _ => self.freeze_some(),
        }
    }

    /// The supervisor of a VM that needs a lease stands still: now, or after a few more steps. Not where the
    /// machine slept since its watchdog was told, which does not count that time: nothing covers both at
    /// once.
    fn freeze_some(&mut self) {
        let freeze = self.new_freeze();
        let later = self.supervisors.chance(1, 2).then(|| self.supervisors.below(12));
        let mut leased: Vec<(MachineId, VmName)> = Vec::new();
        for (id, machine) in self.machines.iter().enumerate() {
            let units = machine.hypervisor.units().iter();
            let needs = units.filter(|(_, unit)| unit.process.as_ref().is_some_and(|it| it.need.is_some()));
            leased.extend(needs.map(|(name, _)| (id, name.clone())));
        }
        let chosen = below(&mut self.supervisors, leased.len());
        let Some((id, vm)) = leased.get(chosen) else { return };
        let is_asleep = self.asleep_until_us(*id).is_some();
        let Some(process) = self.process_of(*id, vm).filter(|it| !is_asleep && it.is_covered()) else {
            return;
        };
        match later {
            Some(steps) => process.freeze_in = Some((steps, freeze)),
            None => self.freeze(*id, vm, freeze),
        }
    }

    fn new_freeze(&mut self) -> Freeze {
        let long = if self.supervisors.chance(1, 2) { 40_000_000 } else { 4_000_000 };
        let lasts_us = 100_000 + self.supervisors.below(long);
        Freeze { lasts_us, is_deep: self.supervisors.chance(1, 2) }
    }

    /// A supervisor that begins to start or to stop its VM: one of so many stands still while it does.
    pub(crate) fn freeze_soon(&mut self, id: MachineId, vm: &VmName, of: u64) {
        if !self.options.supervisor_faults || self.liveness.is_on() || !self.supervisors.chance(1, of) {
            return;
        }
        let (steps, freeze) = (self.supervisors.below(8), self.new_freeze());
        if let Some(process) = self.process_of(id, vm).filter(|it| it.need.is_some() && it.is_covered()) {
            process.freeze_in = Some((steps, freeze));
        }
    }

    /// Whether the directory survives a power loss: it is to lie in memory, and somebody put it elsewhere.
    pub(crate) fn keeps_old_file(&mut self) -> bool {
        let kept = self.options.supervisor_faults && self.supervisors.chance(1, 2);
        self.counts.old_files_kept += u64::from(kept);
        kept
    }

    /// Whether a supervisor of this machine stands still, or is about to.
    pub(crate) fn has_frozen(&self, id: MachineId) -> bool {
        let mut units = self.machines[id].hypervisor.units().values();
        units
            .any(|unit| unit.process.as_ref().is_some_and(|it| it.frozen.is_some() || it.freeze_in.is_some()))
    }

    /// The machine is suspended from now on, for so long. When it wakes up, its supervisors look at the clock
    /// before anything else.
    pub(crate) fn note_sleep(&mut self, id: MachineId, wakes_us: u64) {
        let now_us = self.queue.now_us();
        let slept_us = wakes_us.saturating_sub(self.machines[id].asleep_until_us.max(now_us));
        let names: Vec<VmName> = self.machines[id].hypervisor.units().keys().cloned().collect();
        for vm in names {
            if let Some(process) = self.process_of(id, &vm) {
                process.note_slept(slept_us);
                process.planned_us = Some(wakes_us);
                self.unit_at(id, &vm, wakes_us, UnitEvent::Wake);
            }
        }
    }

    /// Whatever stood still goes on.
    pub(crate) fn thaw_all(&mut self) {
        for id in 0..self.machines.len() {
            self.machines[id].lease.full_until_us = 0;
            let names: Vec<VmName> = self.machines[id].hypervisor.units().keys().cloned().collect();
            for vm in names {
                if let Some(process) = self.process_of(id, &vm) {
                    process.freeze_in = None;
                    self.thaw(id, &vm, true);
                }
            }
        }
    }
}
