//! What the decisions see of the world.

use blixard_model::report::ObservedState;
use blixard_model::{EndCause, OrderId, UnitStatus, VmName};

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
    /// How the last run ended, when it did not end well.
    pub ended: Option<UnitEnd>,
}

/// How the last run of a unit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitEnd {
    /// In words: `exited 1`, `killed by signal 9`.
    pub why: String,
    /// How the run of the guest ended; none where the guest never ran, or where the cluster itself ended it.
    pub cause: Option<EndCause>,
    /// When, in milliseconds since the Unix epoch by the clock of the machine, where the service manager
    /// tells.
    pub at_unix_ms: Option<u64>,
}

impl UnitEnd {
    /// One of which nothing is known but these words.
    pub fn in_words(why: impl Into<String>) -> Self {
        Self { why: why.into(), cause: None, at_unix_ms: None }
    }
}
