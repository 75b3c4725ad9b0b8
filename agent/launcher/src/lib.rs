//! What runs inside a VM's unit `blixard-vm@NAME.service`. Its main process is [`vm_run`], which supervises
//! the hypervisor as long as that runs ([`supervisor`]) and starts it by way of [`vm_child`].
//!
//! The agent writes a launch order ([`OrderDir`]), systemd hands it to the unit as a credential, and
//! [`vm_run`] reads it. The agent gives a unit nothing but that file, and hears of it by systemd: the
//! launcher never speaks D-Bus, and works while the agent is away.
//!
//! These programs run in the unit's own sandbox. They check again whatever the agent wrote, start no shell,
//! and speak to nobody but the hypervisor and systemd. There is no async runtime and no network.
//! `blixard-core` decides when to start or stop a VM.
//!
//! A VM that may be failed over runs only as long as the agent's lease allows it ([`lease`]). Its supervisor
//! ends it in time, whatever else happens on the machine, and has systemd do so where it cannot itself.
//!
//! [`vm_exec`], [`vm_wait`] and [`vm_stop`] become the hypervisor, wait for it and end it in units that an
//! older release started, or whose template is an older one: those have no supervisor.
//!
//! [`vm_forget`] runs in a unit of its own, `blixard-vm-forget@NAME.service`, after a VM was deleted.
//!
//! A new release also stops what an older one started, because a `daemon-reload` gives running units the new
//! template's `ExecStop=`. So the path of the control socket and the names of the subcommands are fixed, and
//! the orders of every release can be read. `tests/older_release.rs` checks this.

mod child;
mod clock;
mod exec;
mod files;
mod forget;
mod hypervisor;
mod image;
pub mod last_resort;
mod last_resort_unit;
pub mod lease;
mod lease_note;
mod lease_watcher;
mod memory_limit;
mod notify;
pub mod order;
mod qemu;
mod run;
mod say;
mod stop;
mod stop_watch;
pub mod supervisor;
mod wait;

pub use child::{ChildError, vm_child};
pub use exec::{LaunchError, vm_exec};
pub use forget::{VmForgetError, vm_forget};
pub use hypervisor::qmp_socket;
pub use last_resort_unit::{LastResortError, last_resort};
pub use lease::{LeaseDir, LeaseError, LeaseNeed, LeasePermission, NoLease};
pub use order::{OrderDir, OrderError};
pub use qemu::argv::{CheckedDisk, DiskKind, MachineFacts, argv};
pub use qemu::message::{GuestDiskError, GuestEvent, QmpCommand, QmpMessage};
pub use qemu::qmp::QmpError;
pub use run::{VmRunError, vm_run};
pub use stop::{VmStopError, vm_stop};
pub use stop_watch::{StopStep, StopWatch};
pub use wait::{WaitError, vm_wait};
