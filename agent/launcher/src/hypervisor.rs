//! The hypervisor of a unit as its other programs find it: by its control socket and its process.

use std::path::PathBuf;
use std::time::Duration;

use blixard_model::VmName;
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;

/// Directory that holds the runtime directories of the VMs' units.
const RUN_DIR: &str = "/run/blixard-vm";

/// The path of the hypervisor's control socket, in the unit's runtime directory.
pub fn qmp_socket(name: &VmName) -> PathBuf {
    [RUN_DIR, name.as_str(), "qmp.sock"].iter().collect()
}

/// The runtime directory of the unit that this program runs in, as systemd names it; the one that a VM's unit
/// has, if it names none.
pub(crate) fn own_runtime_dir(name: &VmName) -> PathBuf {
    let named = std::env::var_os("RUNTIME_DIRECTORY");
    named.map_or_else(|| [RUN_DIR, name.as_str()].iter().collect(), PathBuf::from)
}

/// The name of the socket on which the supervisor awaits the hypervisor's other control connection, its own.
pub(crate) const MONITOR_SOCKET: &str = "monitor.sock";

/// The name of the socket on which the supervisor says how the VM is. Only a VM with a supervisor has one.
pub(crate) const STATUS_SOCKET: &str = "status.sock";

/// The unit's main process, which systemd names to ExecStartPost and ExecStop; `None` when it has already
/// ended.
pub(crate) fn main_pid() -> Option<Pid> {
    let pid = std::env::var("MAINPID").ok()?.parse().ok()?;
    (pid > 0).then(|| Pid::from_raw(pid))
}

/// Whether a process of this user still exists.
pub(crate) fn is_alive(pid: Pid) -> bool {
    signal::kill(pid, None) != Err(Errno::ESRCH)
}

/// Pauses between two looks: 10 ms at first, doubling up to 40 ms.
#[derive(Debug)]
pub(crate) struct LookPace(Duration);

impl LookPace {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(10))
    }

    pub(crate) fn pause(&mut self) {
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(Duration::from_millis(40));
    }
}
