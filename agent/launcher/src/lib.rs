//! What runs inside a VM's unit `blixard-vm@NAME.service`: [`vm_exec`] becomes the hypervisor, [`vm_wait`]
//! returns once the VM runs, [`vm_stop`] stops the VM gracefully.
//!
//! The agent writes a launch order ([`OrderDir`]), systemd hands it to the unit as a credential, and
//! [`vm_exec`] reads it. The agent and a unit share nothing but that file: the launcher never speaks D-Bus,
//! and works while the agent is away.
//!
//! These are three short, blocking programs in the unit's own sandbox. They check again whatever the agent
//! wrote, start no shell, and speak to nobody but the hypervisor's control socket. There is no async runtime
//! and no network. `blixard-core` decides when to start or stop a VM.
//!
//! [`vm_forget`] runs in a unit of its own, `blixard-vm-forget@NAME.service`, after a VM was deleted.
//!
//! A new release also stops what an older one started, because a `daemon-reload` gives running units the new
//! template's `ExecStop=`. So the path of the control socket and the names of the subcommands are fixed, and
//! the orders of every release can be read. `tests/older_release.rs` checks this.

mod child;
mod exec;
mod forget;
mod hypervisor;
mod image;
mod memory_limit;
mod notify;
pub mod order;
mod qemu;
mod run;
mod say;
mod stop;
pub mod supervisor;
mod wait;

pub use child::{ChildError, vm_child};
pub use exec::{LaunchError, vm_exec};
pub use forget::{VmForgetError, vm_forget};
pub use hypervisor::qmp_socket;
pub use order::{OrderDir, OrderError};
pub use qemu::argv::{CheckedDisk, DiskKind, MachineFacts, argv};
pub use qemu::message::{GuestDiskError, GuestEvent, QmpCommand, QmpMessage};
pub use qemu::qmp::QmpError;
pub use run::{VmRunError, vm_run};
pub use stop::{VmStopError, vm_stop};
pub use wait::{WaitError, vm_wait};
