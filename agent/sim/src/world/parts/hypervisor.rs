//! The hypervisor and its service manager: units that live as long as the machine, whatever its agent does.

use std::collections::BTreeMap;

use blixard_core::ports::{ObservedUnit, UnitEnd};
use blixard_model::report::ObservedState;
use blixard_model::{OrderId, VmName, VmSpec};

/// A VM unit, and the order it runs.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) state: ObservedState,
    /// The order that started it.
    pub(crate) order: OrderId,
    /// What its guest is: that is what counts, whatever the order is called.
    pub(crate) spec: Option<VmSpec>,
    pid: u32,
    ended: Option<String>,
}

impl Unit {
    /// A process of it may exist.
    pub(crate) fn lives(&self) -> bool {
        matches!(self.state, ObservedState::Starting | ObservedState::Running | ObservedState::Stopping)
    }
}

impl Unit {
    /// Whether it runs only while its machine has a lease.
    pub(crate) fn is_leased(&self) -> bool {
        self.spec.as_ref().is_some_and(VmSpec::fails_over)
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.state == ObservedState::Starting
    }

    /// Its guest may run. The hypervisor of one that needs a lease is started with a guest that stands still.
    pub(crate) fn runs(&self) -> bool {
        self.lives() && !(self.is_leased() && self.is_starting())
    }
}

/// The units of one machine.
#[derive(Debug, Default)]
pub(crate) struct SimHypervisor {
    units: BTreeMap<VmName, Unit>,
    next_pid: u32,
}

impl SimHypervisor {
    /// What the service manager lists.
    pub(crate) fn list(&self) -> Vec<ObservedUnit> {
        let observed = |(name, unit): (&VmName, &Unit)| ObservedUnit {
            name: name.clone(),
            state: unit.state,
            order: Some(unit.order),
            main_pid: unit.lives().then_some(unit.pid),
            status: None,
            ended: unit.ended.clone().map(UnitEnd::in_words),
        };
        self.units.iter().map(observed).collect()
    }

    pub(crate) fn units(&self) -> &BTreeMap<VmName, Unit> {
        &self.units
    }

    /// A start job begins. False: the unit lives already, which is no new start.
    pub(crate) fn begin_start(&mut self, name: &VmName, order: OrderId, spec: Option<&VmSpec>) -> bool {
        if self.units.get(name).is_some_and(Unit::lives) {
            return false;
        }
        self.next_pid += 1;
        let (spec, pid) = (spec.cloned(), self.next_pid);
        let unit = Unit { state: ObservedState::Starting, order, spec, pid, ended: None };
        self.units.insert(name.clone(), unit);
        true
    }

    pub(crate) fn end_start(&mut self, name: &VmName, fails: bool) {
        let Some(unit) = self.units.get_mut(name) else { return };
        if unit.state != ObservedState::Starting {
            return;
        }
        if fails {
            unit.state = ObservedState::Failed;
            unit.ended = Some("exited 1".to_owned());
        } else {
            unit.state = ObservedState::Running;
        }
    }

    pub(crate) fn begin_stop(&mut self, name: &VmName) {
        if let Some(unit) = self.units.get_mut(name).filter(|unit| unit.lives()) {
            unit.state = ObservedState::Stopping;
        }
    }

    pub(crate) fn end_stop(&mut self, name: &VmName) {
        if self.units.get(name).is_some_and(|unit| unit.state == ObservedState::Stopping) {
            self.units.remove(name);
        }
    }

    pub(crate) fn reset_failed(&mut self, name: &VmName) {
        if self.units.get(name).is_some_and(|unit| unit.state == ObservedState::Failed) {
            self.units.remove(name);
        }
    }

    /// A running guest powers off or crashes.
    pub(crate) fn end_some(&mut self, choose: usize, well: bool) -> Option<VmName> {
        let running = |unit: &Unit| unit.state == ObservedState::Running;
        let count = self.units.values().filter(|unit| running(unit)).count();
        let choose = choose.checked_rem(count)?;
        let (name, unit) = self.units.iter_mut().filter(|(_, unit)| running(unit)).nth(choose)?;
        let name = name.clone();
        if well {
            self.units.remove(&name);
        } else {
            unit.state = ObservedState::Failed;
            unit.ended = Some("killed by signal 11".to_owned());
        }
        Some(name)
    }

    /// A supervisor ends its hypervisor.
    pub(crate) fn kill(&mut self, name: &VmName, why: &str) {
        if let Some(unit) = self.units.get_mut(name).filter(|unit| unit.lives()) {
            unit.state = ObservedState::Failed;
            unit.ended = Some(why.to_owned());
        }
    }

    /// The machine lost its power.
    pub(crate) fn lose_power(&mut self) {
        self.units.clear();
    }
}
