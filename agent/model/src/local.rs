//! The VMs of one machine as it knows them itself, with or without a cluster: what `blixard local` shows.

use serde::{Deserialize, Serialize};

use crate::id::VmName;
use crate::report::ObservedState;
use crate::vm::Desired;

/// Who looked at the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalSource {
    /// This node's agent, which knows what the log wants as well.
    Agent,
    /// The command itself, in systemd: the agent did not answer.
    Systemd,
}

/// The VMs of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalListing {
    /// The VMs, by name.
    pub items: Vec<LocalVmView>,
    /// Who looked.
    pub source: LocalSource,
    /// How old the look at the units is, in milliseconds.
    pub age_ms: u64,
    /// Why the units cannot be looked at now; the items are then those of the last look.
    pub problem: Option<String>,
}

/// One VM of this machine: placed here by the log, a unit here, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalVmView {
    /// Its name.
    pub name: VmName,
    /// What its unit does.
    pub state: ObservedState,
    /// What this node's log wants of it; null when the log places it elsewhere or does not know it, or the
    /// agent did not answer. The log of a node that is cut off may be old.
    pub wanted: Option<Desired>,
    /// The generation of the placement that its unit obeys; null when there is no unit that shows one.
    pub generation: Option<u64>,
    /// The unit's main process.
    pub main_pid: Option<u32>,
    /// It was stopped by hand, and the log does not know that yet.
    pub stopped_by_hand: bool,
    /// Why the state is what it is, when there is something to say.
    pub reason: Option<String>,
}

/// A VM that is being stopped by hand: that is kept on this node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalStop {
    /// The VM.
    pub name: VmName,
    /// Who stops it.
    pub source: LocalSource,
    /// The cluster did not know of it and may start it on another node, where this one is lost: it may be
    /// failed over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_start_elsewhere: bool,
}
