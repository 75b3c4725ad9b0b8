//! The hypervisor and its service manager: units that live as long as the machine, whatever its agent does.

use std::collections::BTreeMap;

use blixard_core::ports::{ObservedUnit, UnitEnd};
use blixard_model::report::ObservedState;
use blixard_model::{LeaseFile, OrderId, UnitStatus, VmName, VmSpec};

use super::supervised::{SimGuest, UnitProcess};

/// A VM unit, and the order it runs.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) state: ObservedState,
    /// The order that started it.
    pub(crate) order: OrderId,
    /// What its guest is: that is what counts, whatever the order is called.
    pub(crate) spec: Option<VmSpec>,
    /// Its supervisor and hypervisor. None of one that somebody started by hand, and of one that has ended.
    pub(crate) process: Option<Box<UnitProcess>>,
    /// What its supervisor says of it.
    pub(crate) status: Option<UnitStatus>,
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

    /// Its guest may run. The hypervisor of one that needs a lease is started with a guest that stands still;
    /// of one that needs none nothing is to live.
    pub(crate) fn runs(&self) -> bool {
        self.lives() && (!self.is_leased() || self.guest_runs())
    }

    /// It has a hypervisor, or may come to have one by what its supervisor can read.
    pub(crate) fn takes_room(&self, name: &VmName, lease: Option<&LeaseFile>) -> bool {
        let Some(process) = &self.process else { return self.lives() };
        let is_listed = lease.is_some_and(|file| file.vms.get(name) == Some(&self.order.generation));
        let may_begin = self.is_starting() && (process.need.is_none() || is_listed);
        self.lives() && (process.guest != SimGuest::None || may_begin)
    }

    /// Its guest runs.
    pub(crate) fn guest_runs(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.guest == SimGuest::Runs)
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
            status: unit.status.clone().filter(|_| unit.lives()),
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
        let state = ObservedState::Starting;
        let unit = Unit { state, order, spec, process: None, status: None, pid, ended: None };
        self.units.insert(name.clone(), unit);
        true
    }

    pub(crate) fn get_mut(&mut self, name: &VmName) -> Option<&mut Unit> {
        self.units.get_mut(name)
    }

    /// A start job ends well.
    pub(crate) fn end_start(&mut self, name: &VmName) {
        if let Some(unit) = self.units.get_mut(name).filter(|unit| unit.is_starting()) {
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

    /// Whether a process of any unit may exist.
    pub(crate) fn any_lives(&self) -> bool {
        self.units.values().any(Unit::lives)
    }

    /// The names of units that run a VM.
    pub(crate) fn running(&self) -> Vec<VmName> {
        let running = self.units.iter().filter(|(_, unit)| unit.state == ObservedState::Running);
        running.map(|(name, _)| name.clone()).collect()
    }

    /// A unit has ended: well, or for this reason.
    pub(crate) fn end(&mut self, name: &VmName, failure: Option<String>) {
        match (self.units.get_mut(name), failure) {
            (Some(unit), Some(why)) => {
                unit.state = ObservedState::Failed;
                unit.ended = Some(why);
                unit.process = None;
            }
            (Some(_), None) => {
                self.units.remove(name);
            }
            (None, _) => {}
        }
    }

    /// The machine lost its power.
    pub(crate) fn lose_power(&mut self) {
        self.units.clear();
    }
}
