//! What a VM's unit runs: `vm-exec` becomes the hypervisor, `vm-wait` says when it runs, `vm-stop` ends it
//! gracefully.
//!
//! Blocking and small: three short programs in the unit's own sandbox. They trust nothing that the agent
//! wrote without checking it again, start no shell, and speak to nobody but the hypervisor's control socket.

mod exec;
mod qemu;
mod qmp;
mod stop;
mod wait;

use std::path::PathBuf;
use std::time::Duration;

use blixard_model::VmName;
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;

pub use exec::{LaunchError, vm_exec};
pub use qemu::{CheckedDisk, DiskKind, Host, argv};
pub use qmp::QmpError;
pub use stop::{StopError, vm_stop};
pub use wait::{WaitError, vm_wait};

/// Where the runtime directories of the VMs' units are.
const RUN_DIR: &str = "/run/blixard-vm";

/// The hypervisor's control socket, in the unit's runtime directory.
fn qmp_socket(name: &VmName) -> PathBuf {
    [RUN_DIR, name.as_str(), "qmp.sock"].iter().collect()
}

/// The unit's main process, as systemd tells ExecStartPost and ExecStop; `None` when it has already ended.
fn main_pid() -> Option<Pid> {
    let pid = std::env::var("MAINPID").ok()?.parse().ok()?;
    (pid > 0).then(|| Pid::from_raw(pid))
}

/// Whether a process of this user still exists.
fn is_alive(pid: Pid) -> bool {
    signal::kill(pid, None) != Err(Errno::ESRCH)
}

/// Pause between two looks: 10 ms, doubling to 40 ms.
#[derive(Debug)]
struct Pace(Duration);

impl Pace {
    fn new() -> Self {
        Self(Duration::from_millis(10))
    }

    fn pause(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(Duration::from_millis(40));
    }
}
