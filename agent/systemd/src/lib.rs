//! VMs as units of systemd, and the launcher that such a unit runs.
//!
//! Two halves that share only the order file:
//!
//! - the agent's half ([`SystemdRuntime`]) writes an order, sets the limits, starts and stops
//!   `blixard-vm@NAME.service` over D-Bus and lists what there is. It is the only code that names `zbus`.
//! - the unit's half ([`launcher`]) reads the order as a credential, checks it again, builds an argument list
//!   and becomes the hypervisor; it also waits until the hypervisor runs, and stops it gracefully. It never
//!   speaks D-Bus, and works while the agent is away.
//!
//! Decides nothing: when to start or stop a VM is decided in `blixard-core`.

pub mod journal;
pub mod launcher;
pub mod order;
pub mod runtime;
pub mod unit;

mod job;
mod link;
mod proxy;

pub use journal::{Follow, JournalError};
pub use order::{OrderDir, OrderError};
pub use runtime::{BusError, ListError, Options, ResetError, StartError, StopError, SystemdRuntime};
pub use unit::{ActiveState, UnitExit, VmUnit};
