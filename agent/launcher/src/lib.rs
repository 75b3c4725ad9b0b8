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

mod exec;
mod forget;
mod image;
pub mod order;
mod qemu;
mod stop;
mod wait;

use std::path::PathBuf;
use std::time::Duration;

use blixard_model::VmName;
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;

pub use exec::{LaunchError, vm_exec};
pub use forget::{VmForgetError, vm_forget};
pub use order::{OrderDir, OrderError};
pub use qemu::argv::{CheckedDisk, DiskKind, MachineFacts, argv};
pub use qemu::qmp::QmpError;
pub use stop::{VmStopError, vm_stop};
pub use wait::{WaitError, vm_wait};

/// Directory that holds the runtime directories of the VMs' units.
const RUN_DIR: &str = "/run/blixard-vm";

/// The path of the hypervisor's control socket, in the unit's runtime directory.
pub fn qmp_socket(name: &VmName) -> PathBuf {
    [RUN_DIR, name.as_str(), "qmp.sock"].iter().collect()
}

/// The unit's main process, which systemd names to ExecStartPost and ExecStop; `None` when it has already
/// ended.
fn main_pid() -> Option<Pid> {
    let pid = std::env::var("MAINPID").ok()?.parse().ok()?;
    (pid > 0).then(|| Pid::from_raw(pid))
}

/// Whether a process of this user still exists.
fn is_alive(pid: Pid) -> bool {
    signal::kill(pid, None) != Err(Errno::ESRCH)
}

/// Pauses between two looks: 10 ms at first, doubling up to 40 ms.
#[derive(Debug)]
struct LookPace(Duration);

impl LookPace {
    fn new() -> Self {
        Self(Duration::from_millis(10))
    }

    fn pause(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(Duration::from_millis(40));
    }
}
