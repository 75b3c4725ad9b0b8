//! The supervisors of a machine's VMs, as far as leases go: they read what the agent left, and outlive it.
//!
//! One ends its guest some time after the lease has ended, at most the time that leases allow for it. What it
//! stands for is a supervisor that is late, or frozen and ended by the service manager.

use blixard_core::lease::permits;
use blixard_model::{LeaseFile, VmName};
use blixard_node::host::Input;

use super::World;
use super::parts::event::{Event, MachineId};
use super::parts::hypervisor::Unit;

/// A supervisor notices a change of the file within this time, in µs.
const NOTICED_US: u64 = 1_000_000;

impl World {
    /// The agent lets the supervisors know of its lease.
    pub(crate) fn write_lease(&mut self, id: MachineId, file: LeaseFile) {
        let (now_us, boot) = (self.queue.now_us(), self.machines[id].boot);
        let machine = &self.machines[id];
        let stop_us = machine.true_us(self.options.lease_terms.stop_ms * 990);
        if let Some(until_ms) = file.until_ms {
            let left_ms = until_ms.saturating_sub(machine.boot_ms(now_us));
            let ends_us = now_us + machine.true_us(left_ms * 1_000) + 1_000;
            // The last moment, and sometimes an earlier one.
            self.queue.at(ends_us + self.rng.below(stop_us), Event::LeaseLook { machine: id, boot });
        }
        self.queue.after(self.rng.below(NOTICED_US), Event::LeaseLook { machine: id, boot });
        self.machines[id].lease = Some(file);
        self.input(id, Input::LeaseWritten { failure: None });
    }

    /// The supervisors look whether their guests may go on.
    pub(crate) fn handle_lease_look(&mut self, id: MachineId, boot: u64) {
        if self.machines[id].boot != boot {
            return;
        }
        if let Some(wakes_us) = self.asleep_until_us(id) {
            return self.queue.at(wakes_us, Event::LeaseLook { machine: id, boot });
        }
        let ended: Vec<VmName> = {
            let machine = &self.machines[id];
            let units = machine.hypervisor.units().iter();
            let over = |name: &VmName, unit: &Unit| unit.runs() && !self.may_run(id, name, unit);
            units.filter(|(name, unit)| over(name, unit)).map(|(name, _)| name.clone()).collect()
        };
        for name in ended {
            self.trace.line(self.queue.now_us(), || format!("n{}: the lease of {name} is over", id + 1));
            self.counts.lease_ends += 1;
            self.machines[id].hypervisor.kill(&name, "its lease has ended");
            self.input(id, Input::UnitsChanged);
        }
    }

    /// Whether a supervisor lets its guest run by what it reads now.
    pub(crate) fn may_run(&self, id: MachineId, name: &VmName, unit: &Unit) -> bool {
        let machine = &self.machines[id];
        let now_ms = machine.boot_ms(self.queue.now_us());
        !unit.is_leased() || permits(machine.lease.as_ref(), now_ms, name, unit.order.generation)
    }

    /// A unit's job has come to where its guest is let run.
    pub(crate) fn let_run(&mut self, id: MachineId, name: &VmName, fails: bool) {
        let Some(unit) = self.machines[id].hypervisor.units().get(name) else { return };
        let (permitted, leased) = (self.may_run(id, name, unit), unit.is_leased());
        let begins = unit.is_starting() && permitted && !fails;
        self.machines[id].hypervisor.end_start(name, fails || !permitted);
        if leased && begins {
            let now_us = self.queue.now_us();
            self.checker.guest_runs(&self.machines, (id, name.clone()), now_us);
        }
    }
}
