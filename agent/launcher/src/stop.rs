//! `vm-stop`: asks the guest of a VM without a supervisor to shut down, and ends the hypervisor if the guest
//! does not. A supervisor does so by itself when systemd sends it SIGTERM, right after this. The supervisor
//! of a VM with a lease is sent it from here, and the stop is watched until it is over.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use blixard_model::lease::ENDLESS_WATCHDOG_MS;
use blixard_model::words::with_causes;
use blixard_model::{InvalidId, VmName};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::clock::now_ms;
use crate::hypervisor::{LookPace, STATUS_SOCKET, is_alive, main_pid, own_runtime_dir, qmp_socket};
use crate::lease_note;
use crate::notify::Notifier;
use crate::qemu::message::QmpCommand;
use crate::qemu::qmp::{Qmp, QmpError};
use crate::stop_watch::{StopStep, StopWatch};

/// Time that the guest has for its shutdown. Together with [`QUIT_DEADLINE`] and [`EXIT_DEADLINE`] it is less
/// than the unit's `TimeoutStopSec=`.
const GRACE: Duration = Duration::from_secs(30);
/// Time before the keys are pressed again, because a guest that was still booting did not notice the first
/// time.
const REPEAT: Duration = Duration::from_secs(3);
/// Time that the hypervisor has to obey `quit`.
const QUIT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest pause until systemd is told again when the VM's lease ends.
const FEED_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for the end of the process after its control socket was closed.
const EXIT_DEADLINE: Duration = Duration::from_secs(2);

/// Why the VM could not be stopped in this way; systemd goes on with signals.
#[derive(Debug, thiserror::Error)]
pub enum VmStopError {
    /// The unit's instance name is not a VM name.
    #[error(transparent)]
    Name(#[from] InvalidId),
    /// The control socket failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The hypervisor did not obey `quit` either.
    #[error("the hypervisor did not end within {} s of being told to", QUIT_DEADLINE.as_secs())]
    Deaf,
}

/// Stops the VM of this unit, unless it has a supervisor: presses ctrl-alt-delete until the guest has ended,
/// and sends `quit` when its time is over. It is a success if there is no hypervisor.
///
/// # Errors
/// [`VmStopError`]: the hypervisor still runs.
pub fn vm_stop(name: &str) -> Result<(), VmStopError> {
    let name: VmName = name.parse()?;
    let directory = own_runtime_dir(&name);
    let status_socket = directory.join(STATUS_SOCKET);
    if stop_watched(&directory, &status_socket) || has_supervisor(&status_socket) {
        return Ok(());
    }
    let graceful = stop_gracefully(&qmp_socket(&name), GRACE, REPEAT)?;
    if !graceful {
        // This goes into the unit's journal, among the lines of the console, for whoever looks for the
        // reason.
        eprintln!("the guest did not shut down within {} s of ctrl-alt-delete: ended it", GRACE.as_secs());
    }
    await_end(main_pid(), EXIT_DEADLINE);
    Ok(())
}

/// Stops a VM with a lease, and has systemd end it in time all the same: its supervisor, which does both, may
/// stand still at any moment. A SIGTERM of systemd takes the watchdog away, and so does a reload of systemd
/// in a unit that is being stopped. So this asks the supervisor by itself, once that answers, stays until it
/// has ended, and tells systemd again and again when the lease ends; the watchdog ends this program as well.
/// What this leaves is left to systemd's signals, which wake a supervisor that somebody stopped. False: the
/// VM needs no lease.
fn stop_watched(directory: &Path, status_socket: &Path) -> bool {
    let Some((need, lease_dir)) = lease_note::find(directory) else { return false };
    let main = main_pid();
    let mut watch = StopWatch::default();
    while main.is_some_and(is_alive) {
        let permission = need.permission(lease_dir.read());
        let (watchdog_us, stop_us) = match watch.step(permission, now_ms(), ENDLESS_WATCHDOG_MS) {
            StopStep::Tell { watchdog_us, stop_us } => (watchdog_us, stop_us),
            StopStep::GoOn => break,
            StopStep::GiveUp => {
                eprintln!("the VM's lease has ended, and the VM has not");
                break;
            }
        };
        let told = Notifier::from_environment().and_then(|systemd| systemd.feed(watchdog_us, Some(stop_us)));
        if let Err(error) = told {
            eprintln!("systemd cannot be told when the VM's lease ends: {error}");
            break;
        }
        match ask_how_it_is(status_socket, FEED_PAUSE) {
            HowItIs::Nobody => {
                await_end(main, EXIT_DEADLINE);
                break;
            }
            HowItIs::None => _ = watch.note_answer(false),
            HowItIs::Given => {
                if watch.note_answer(true)
                    && let Err(error) = ask_to_stop(main)
                {
                    eprintln!("the supervisor cannot be asked to stop: {error}");
                    break;
                }
                await_end(main, FEED_PAUSE);
            }
        }
    }
    true
}

/// What a supervisor says when it is asked how its VM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HowItIs {
    /// There is no supervisor.
    Nobody,
    /// Nothing in time: it stands still.
    None,
    /// How its VM is.
    Given,
}

/// Asks the supervisor to stop its VM, in the way in which systemd does.
fn ask_to_stop(main: Option<Pid>) -> nix::Result<()> {
    // Its process id cannot be that of another unit's process: this user has none.
    match main.map(|pid| signal::kill(pid, Signal::SIGTERM)) {
        // It has ended by now.
        None | Some(Err(nix::Error::ESRCH)) => Ok(()),
        Some(asked) => asked,
    }
}

/// Asks the supervisor how its VM is, and waits no longer than this for the answer.
fn ask_how_it_is(status_socket: &Path, longest: Duration) -> HowItIs {
    let Ok(mut stream) = UnixStream::connect(status_socket) else { return HowItIs::Nobody };
    let given = stream.set_read_timeout(Some(longest)).is_ok() && stream.read(&mut [0; 1]).is_ok();
    if given { HowItIs::Given } else { HowItIs::None }
}

/// Whether a supervisor listens on its status socket. The path is gone with the unit that made it.
fn has_supervisor(status_socket: &Path) -> bool {
    UnixStream::connect(status_socket).is_ok()
}

/// Returns `true` when the guest ended by itself.
fn stop_gracefully(socket: &Path, grace: Duration, repeat: Duration) -> Result<bool, VmStopError> {
    let deadline = Instant::now() + grace;
    match press_until_ended(socket, deadline, repeat) {
        Ok(true) => return Ok(true),
        Ok(false) => {}
        Err(error) if error.is_absent() => return Ok(true),
        // The guest may have no keyboard, or the socket be in a wrong state: what is left is to end the
        // hypervisor.
        Err(error) => eprintln!("the guest could not be asked to shut down: {}", with_causes(&error)),
    }
    let deadline = Instant::now() + QUIT_DEADLINE;
    let quit = Qmp::connect(socket, deadline).and_then(|mut qmp| {
        qmp.command(QmpCommand::Quit, deadline)?;
        qmp.wait_closed(deadline)
    });
    match quit {
        Ok(true) => Ok(false),
        Ok(false) => Err(VmStopError::Deaf),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn press_until_ended(socket: &Path, deadline: Instant, repeat: Duration) -> Result<bool, QmpError> {
    let mut qmp = Qmp::connect(socket, deadline)?;
    while Instant::now() < deadline {
        qmp.command(QmpCommand::CtrlAltDelete, deadline)?;
        if qmp.wait_closed(deadline.min(Instant::now() + repeat))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until the process has ended, no longer than this. Its control socket closes a moment earlier, and
/// meanwhile systemd would send the process a signal.
fn await_end(main: Option<Pid>, longest: Duration) {
    let deadline = Instant::now() + longest;
    let mut pace = LookPace::new();
    while main.is_some_and(is_alive) && Instant::now() < deadline {
        pace.pause();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::qemu::qmp::fake::{GREETING, OK, serve};

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_guest_that_reacts_ends_gracefully() {
        let dir = tempfile::tempdir().expect("tempdir");
        let shutdown = format!("{OK}\n{}", r#"{"event":"SHUTDOWN","data":{"guest":true}}"#);
        let (path, server) = serve(dir.path(), &[GREETING, OK, &shutdown]);
        assert!(stop_gracefully(&path, LONG, LONG).expect("stopped"));
        let sent = server.join().expect("server");
        assert!(sent[1].contains("send-key") && sent[1].contains("delete"), "{sent:?}");
    }

    #[test]
    fn ctrl_alt_delete_is_repeated_for_a_guest_that_was_still_booting() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (path, server) = serve(dir.path(), &[GREETING, OK, OK, OK]);
        assert!(stop_gracefully(&path, LONG, Duration::from_millis(20)).expect("stopped"));
        let sent = server.join().expect("server");
        assert_eq!(sent.iter().filter(|line| line.contains("send-key")).count(), 2);
    }

    #[test]
    fn a_vm_with_a_supervisor_is_left_to_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("status.sock");
        assert!(!has_supervisor(&path));
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        assert!(has_supervisor(&path));
        drop(listener);
        assert!(!has_supervisor(&path), "it has ended");
    }

    #[test]
    fn a_supervisor_that_stands_still_is_told_from_one_that_answers() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("status.sock");
        assert_eq!(ask_how_it_is(&path, LONG), HowItIs::Nobody);
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        assert_eq!(ask_how_it_is(&path, Duration::from_millis(30)), HowItIs::None);
        let answering = std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                // The first one has given up.
                let _ = stream.expect("accepted").write_all(b"running\n");
            }
        });
        assert_eq!(ask_how_it_is(&path, LONG), HowItIs::Given);
        answering.join().expect("ends");
    }

    #[test]
    fn without_a_hypervisor_there_is_nothing_to_do() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(stop_gracefully(&dir.path().join("qmp.sock"), LONG, LONG).expect("nothing"));
        assert!(matches!(vm_stop("a/b"), Err(VmStopError::Name(_))));
    }
}
