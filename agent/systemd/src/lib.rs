//! VMs as units of systemd: the agent's side.
//!
//! [`UnitManager`] writes a launch order, sets the limits, starts and stops `blixard-vm@NAME.service` over
//! D-Bus, and lists the units. [`SystemdVms`] implements [`VmRuntime`] with it, which is what the agent's
//! reconciler uses. This is the only crate that names `zbus`. What runs inside the unit is
//! `blixard-launcher`.
//!
//! This crate decides nothing: `blixard-core` decides when to start or stop a VM.

pub mod journal;
pub mod manager;
pub mod unit;

mod bus;
#[cfg(test)]
mod fake;
mod job;
mod link;
mod look;
mod proxy;
mod shutdown;
mod vms;
mod watchdogs;

pub use bus::BusError;
pub use journal::{Follow, JournalError};
pub use manager::{ForgetError, ListError, ManagerOptions, ResetError, StartError, StopError, UnitManager};
pub use unit::{ActiveState, UnitExit, VmUnit};
pub use vms::{RuntimeError, SystemdVms, VmRuntime};
pub use watchdogs::LAST_RESORT_UNIT;
