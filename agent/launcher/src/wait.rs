//! `vm-wait`: returns once the hypervisor reports that the VM runs.

use std::path::Path;
use std::time::{Duration, Instant};

use blixard_model::{InvalidId, VmName};
use nix::unistd::Pid;

use crate::hypervisor::{LookPace, is_alive, main_pid, qmp_socket};
use crate::qemu::message::QmpCommand;
use crate::qemu::qmp::{Qmp, QmpError};

/// Longest wait. It is shorter than the unit's `TimeoutStartSec=`, so that this program can tell the reason.
const DEADLINE: Duration = Duration::from_secs(45);

/// Why the VM does not run.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The unit's instance name is not a VM name.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// The hypervisor ended; its last messages in the journal say why.
    #[error("the hypervisor ended before the VM ran")]
    Ended,
    /// The hypervisor reports another run state than `running`.
    #[error("the hypervisor says {status:?} instead of running")]
    NotRunning {
        /// QEMU's run state.
        status: String,
    },
    /// The hypervisor did not report that the VM runs before the deadline.
    #[error("the VM does not run after {} s", DEADLINE.as_secs())]
    Timeout {
        /// How the last attempt failed.
        #[source]
        last: QmpError,
    },
}

/// Waits until the VM of this unit runs. Fails at once when the main process is gone.
///
/// # Errors
/// [`WaitError`]: why the VM does not run.
pub fn vm_wait(name: &str) -> Result<(), WaitError> {
    let name: VmName = name.parse()?;
    wait_running(&qmp_socket(&name), main_pid(), DEADLINE)
}

fn wait_running(socket: &Path, main: Option<Pid>, longest: Duration) -> Result<(), WaitError> {
    let deadline = Instant::now() + longest;
    let mut pace = LookPace::new();
    loop {
        let last = match status(socket, deadline) {
            Ok(status) if status == "running" => return Ok(()),
            // These are states in which QEMU is still setting up. The other states do not pass by themselves.
            Ok(status) if status == "prelaunch" || status == "inmigrate" => QmpError::Timeout,
            Ok(status) => return Err(WaitError::NotRunning { status }),
            Err(error) => error,
        };
        // Checked after the socket: a hypervisor that ended in between did not run the VM either.
        if main.is_none_or(|pid| !is_alive(pid)) {
            return Err(WaitError::Ended);
        }
        if Instant::now() >= deadline {
            return Err(WaitError::Timeout { last });
        }
        pace.pause();
    }
}

fn status(socket: &Path, deadline: Instant) -> Result<String, QmpError> {
    let mut qmp = Qmp::connect(socket, deadline)?;
    let status = qmp.command(QmpCommand::QueryStatus, deadline)?;
    status.ok_or_else(|| QmpError::Protocol("no status in the answer".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::qmp::fake::{GREETING, OK, serve};

    const LONG: Duration = Duration::from_secs(20);

    fn this_process() -> Option<Pid> {
        Some(Pid::this())
    }

    #[test]
    fn only_the_state_running_is_a_success() {
        for (status, good) in [("running", true), ("internal-error", false)] {
            let dir = tempfile::tempdir().expect("tempdir");
            let answer = format!(r#"{{"return":{{"status":"{status}","running":{good}}}}}"#);
            let (path, _server) = serve(dir.path(), &[GREETING, OK, &answer]);
            let result = wait_running(&path, this_process(), LONG);
            assert_eq!(result.is_ok(), good, "{result:?}");
        }
    }

    #[test]
    fn a_main_process_that_is_gone_ends_the_wait_at_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut child = std::process::Command::new("true").spawn().expect("spawn");
        child.wait().expect("wait");
        let gone = Pid::from_raw(i32::try_from(child.id()).expect("pid"));
        for pid in [Some(gone), None] {
            let result = wait_running(&dir.path().join("qmp.sock"), pid, LONG);
            assert!(matches!(result, Err(WaitError::Ended)), "{result:?}");
        }
    }

    #[test]
    fn a_hypervisor_that_never_answers_times_out_with_the_last_error() {
        let dir = tempfile::tempdir().expect("tempdir");
        let result = wait_running(&dir.path().join("qmp.sock"), this_process(), Duration::from_millis(30));
        assert!(matches!(result, Err(WaitError::Timeout { last: QmpError::Connect(_) })), "{result:?}");
    }

    #[test]
    fn vm_wait_refuses_an_invalid_name() {
        assert!(matches!(vm_wait("../x"), Err(WaitError::Name(_))));
    }
}
