//! `vm-wait`: returns when the hypervisor says that the VM runs.

use std::path::Path;
use std::time::{Duration, Instant};

use blixard_model::{InvalidId, VmName};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::qemu::qmp::{Qmp, QmpError};
use crate::{LookPace, is_alive, main_pid, qmp_socket};

/// Longest wait, in seconds: less than the unit's `TimeoutStartSec=`, so that the reason is told here.
const DEADLINE: Duration = Duration::from_secs(45);

/// The VM does not run.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The unit's instance is no VM name.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// The hypervisor ended; its own last words say why.
    #[error("the hypervisor ended before the VM ran")]
    Ended,
    /// It is there and says something else than running.
    #[error("the hypervisor says {status:?} instead of running")]
    NotRunning {
        /// QEMU's run state.
        status: String,
    },
    /// It never answered.
    #[error("the VM does not run after {} s", DEADLINE.as_secs())]
    Timeout {
        /// What the last try brought.
        #[source]
        last: QmpError,
    },
}

/// Waits until the VM of this unit runs; fails at once when the main process is gone.
///
/// # Errors
/// It does not run, and why.
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
            // Still setting up; the others are ways of not running that do not pass by themselves.
            Ok(status) if status == "prelaunch" || status == "inmigrate" => QmpError::Timeout,
            Ok(status) => return Err(WaitError::NotRunning { status }),
            Err(error) => error,
        };
        // Asked after the socket: one that ended in between has not run either.
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
    let answer = qmp.command("query-status", &json!({}), deadline)?;
    let status = answer.get("status").and_then(Value::as_str);
    status.map(str::to_owned).ok_or_else(|| QmpError::Protocol("no status in the answer".into()))
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
    fn running_is_success_and_other_states_are_told() {
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
    fn one_that_never_answers_times_out_with_what_was_seen_last() {
        let dir = tempfile::tempdir().expect("tempdir");
        let result = wait_running(&dir.path().join("qmp.sock"), this_process(), Duration::from_millis(30));
        assert!(matches!(result, Err(WaitError::Timeout { last: QmpError::Connect(_) })), "{result:?}");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        assert!(matches!(vm_wait("../x"), Err(WaitError::Name(_))));
    }
}
