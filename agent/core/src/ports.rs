//! What the decisions see of the world.

use blixard_model::report::ObservedState;
use blixard_model::{OrderId, UnitStatus, VmName};

/// A VM unit as the service manager lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedUnit {
    /// The VM.
    pub name: VmName,
    /// What the unit does. Only starting, running, stopping, stopped and failed occur.
    pub state: ObservedState,
    /// Which order the unit was started by. `None` where the unit does not show one: a release before orders
    /// were shown started it.
    pub order: Option<OrderId>,
    /// The unit's main process.
    pub main_pid: Option<u32>,
    /// What the VM's supervisor says of it. `None` where there is none: a release before supervisors started
    /// it.
    pub status: Option<UnitStatus>,
    /// How the last run ended, in words, when it did not end well: `exited 1`, `killed by signal 9`.
    pub ended: Option<String>,
}
