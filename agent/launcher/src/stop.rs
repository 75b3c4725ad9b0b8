//! `vm-stop`: asks the guest of a VM without a supervisor to shut down, and ends the hypervisor if the guest
//! does not. A supervisor does so by itself when systemd sends it SIGTERM, right after this; here the
//! watchdog is armed again that a stop takes away from a VM with a lease.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use blixard_model::lease::ENDLESS_WATCHDOG_MS;
use blixard_model::words::with_causes;
use blixard_model::{InvalidId, VmName, mutant};
use nix::unistd::Pid;

use crate::clock::now_ms;
use crate::hypervisor::{LookPace, STATUS_SOCKET, is_alive, main_pid, own_runtime_dir, qmp_socket};
use crate::lease::LeasePermission;
use crate::lease_note;
use crate::notify::Notifier;
use crate::qemu::message::QmpCommand;
use crate::qemu::qmp::{Qmp, QmpError};
use crate::supervisor::watchdog_us;

/// Time that the guest has for its shutdown. Together with [`QUIT_DEADLINE`] and [`EXIT_DEADLINE`] it is less
/// than the unit's `TimeoutStopSec=`.
const GRACE: Duration = Duration::from_secs(30);
/// Time before the keys are pressed again, because a guest that was still booting did not notice the first
/// time.
const REPEAT: Duration = Duration::from_secs(3);
/// Time that the hypervisor has to obey `quit`.
const QUIT_DEADLINE: Duration = Duration::from_secs(5);
/// Pause until systemd is told again when the VM's lease ends.
const FEED_PAUSE: Duration = Duration::from_secs(1);
/// systemd gives this program so much longer than its watchdog waits, in microseconds: the SIGTERM that
/// follows this program would take the watchdog away, which may be late by some hundred milliseconds.
const STOP_LATER_US: u64 = 10_000_000;
/// A stop whose VM's lease holds for longer than this, in milliseconds, need not be watched: systemd kills
/// what has not ended 40 s after SIGTERM.
const WATCHED_MS: u64 = 40_000;
/// How long after the end of the lease systemd's watchdog has certainly gone off, if it does, in
/// milliseconds.
const GIVE_UP_MS: u64 = 3_000;
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
    watch_the_stop(&directory, &status_socket);
    if has_supervisor(&status_socket) {
        return Ok(());
    }
    let graceful = stop_gracefully(&qmp_socket(&name), GRACE, REPEAT)?;
    if !graceful {
        // This goes into the unit's journal, among the lines of the console, for whoever looks for the
        // reason.
        eprintln!("the guest did not shut down within {} s of ctrl-alt-delete: ended it", GRACE.as_secs());
    }
    await_end(main_pid());
    Ok(())
}

/// Has systemd end a VM with a lease in time although it is being stopped: the supervisor, which does the
/// same, may stand still. The SIGTERM that follows takes the watchdog away once more, so this waits until the
/// supervisor answers; a watchdog that goes off before ends this program as well. A reload of systemd forgets
/// the watchdog of a unit that is being stopped, so systemd is told again and again. Where watchdogs are
/// switched off nothing ends this, and it gives up: the signals that follow wake a supervisor that one
/// stopped.
fn watch_the_stop(directory: &Path, status_socket: &Path) {
    let Some((need, lease_dir)) = lease_note::find(directory) else { return };
    let mut watch = StopWatch::default();
    loop {
        let permission = need.permission(lease_dir.read());
        let (watchdog_us, stop_us) = match watch.step(permission, now_ms(), ENDLESS_WATCHDOG_MS) {
            StopStep::Tell { watchdog_us, stop_us } => (watchdog_us, stop_us),
            StopStep::GoOn => return,
            StopStep::GiveUp => {
                return eprintln!("the supervisor does not answer, and the VM's lease has ended");
            }
        };
        let told = Notifier::from_environment().and_then(|systemd| systemd.feed(watchdog_us, Some(stop_us)));
        if let Err(error) = told {
            return eprintln!("systemd cannot be told when the VM's lease ends: {error}");
        }
        if answers(status_socket, FEED_PAUSE) {
            return;
        }
    }
}

/// How a stop is watched while its supervisor does not answer.
#[derive(Debug, Default)]
pub struct StopWatch {
    /// When the VM is to end, as far as that was known at the last look.
    known_ms: Option<u64>,
    /// Since when that is known: systemd was told no earlier.
    since_ms: u64,
}

/// What `vm-stop` does after a look at the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopStep {
    /// It goes on with the stop, which need not be watched.
    GoOn,
    /// It goes on because nothing ended the VM in time.
    GiveUp,
    /// It tells systemd how long the watchdog waits and how long this program may take, in microseconds, and
    /// waits a second for the supervisor.
    Tell {
        /// `WATCHDOG_USEC=`.
        watchdog_us: u64,
        /// `EXTEND_TIMEOUT_USEC=`.
        stop_us: u64,
    },
}

impl StopWatch {
    /// Decides on what the lease allows the VM now. The watchdog is told `endless_ms` at most.
    pub fn step(&mut self, permission: LeasePermission, now_ms: u64, endless_ms: u64) -> StopStep {
        let until_ms = end_of(permission, now_ms, self.known_ms);
        // Who waits for a supervisor that stands still would wait for ever while its node's lease is renewed.
        let until_ms = match (self.known_ms, until_ms) {
            (Some(known_ms), Some(until_ms)) if !mutant::lives("stop-follows-renewals") => {
                Some(known_ms.min(until_ms))
            }
            _ => until_ms,
        };
        if std::mem::replace(&mut self.known_ms, until_ms) != until_ms {
            self.since_ms = now_ms;
        }
        let Some(until_ms) = self.known_ms.filter(|_| !mutant::lives("stop-arms-no-watchdog")) else {
            return StopStep::GoOn;
        };
        let give_up_ms = if mutant::lives("stop-goes-on-unwatched") { 0 } else { GIVE_UP_MS };
        // The end may have been in the past when it came to be known.
        if now_ms > until_ms.max(self.since_ms).saturating_add(give_up_ms) {
            return StopStep::GiveUp;
        }
        let watchdog_us = watchdog_us(now_ms, until_ms, endless_ms);
        StopStep::Tell { watchdog_us, stop_us: watchdog_us.saturating_add(STOP_LATER_US) }
    }
}

/// Whether a supervisor says within this time how its VM is. One that is not there need not be waited for.
fn answers(status_socket: &Path, longest: Duration) -> bool {
    let Ok(mut stream) = UnixStream::connect(status_socket) else { return true };
    stream.set_read_timeout(Some(longest)).is_ok() && stream.read(&mut [0; 1]).is_ok()
}

/// When a VM that is allowed this is to end, and was to end at `known_ms` when it was looked at before. None:
/// nobody knows of an end, and the stop itself has one, which comes before
/// [`ENDLESS_WATCHDOG_MS`] are over.
fn end_of(permission: LeasePermission, now_ms: u64, known_ms: Option<u64>) -> Option<u64> {
    match permission {
        LeasePermission::Until(until_ms) => {
            Some(until_ms).filter(|_| until_ms <= now_ms.saturating_add(WATCHED_MS))
        }
        LeasePermission::Denied(why) if why.revokes() => Some(known_ms.unwrap_or(now_ms).min(now_ms)),
        LeasePermission::Denied(_) => known_ms,
        LeasePermission::Endless => None,
    }
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

/// Waits until the process has ended. Its control socket closes a moment earlier, and meanwhile systemd would
/// send the process a signal.
fn await_end(main: Option<Pid>) {
    let deadline = Instant::now() + EXIT_DEADLINE;
    let mut pace = LookPace::new();
    while main.is_some_and(is_alive) && Instant::now() < deadline {
        pace.pause();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::lease::NoLease;
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
        assert!(answers(&path, LONG), "there is none");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        assert!(!answers(&path, Duration::from_millis(30)));
        let answering = std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                // The first one has given up.
                let _ = stream.expect("accepted").write_all(b"running\n");
            }
        });
        assert!(answers(&path, LONG));
        answering.join().expect("ends");
    }

    #[test]
    fn a_stop_lasts_no_longer_than_the_lease_as_far_as_that_is_known() {
        for (permission, end, end_when_known) in [
            (LeasePermission::Until(9), Some(9), Some(9)),
            (LeasePermission::Until(7 + WATCHED_MS), Some(7 + WATCHED_MS), Some(7 + WATCHED_MS)),
            (LeasePermission::Until(8 + WATCHED_MS), None, None),
            (LeasePermission::Denied(NoLease::NotListed), Some(7), Some(5)),
            (LeasePermission::Denied(NoLease::OtherGeneration(1)), Some(7), Some(5)),
            (LeasePermission::Denied(NoLease::OtherCluster), Some(7), Some(5)),
            (LeasePermission::Denied(NoLease::NoFile), None, Some(5)),
            (LeasePermission::Endless, None, None),
        ] {
            assert_eq!(end_of(permission.clone(), 7, None), end);
            assert_eq!(end_of(permission, 7, Some(5)), end_when_known);
        }
        let revoked = LeasePermission::Denied(NoLease::NotListed);
        assert_eq!(end_of(revoked, 7, Some(9)), Some(7), "before the end that was known");
    }

    #[test]
    fn the_watchdog_of_a_stop_goes_off_before_the_supervisor_is_waited_for_no_longer() {
        let mut watch = StopWatch::default();
        let mut step = |now_ms| watch.step(LeasePermission::Until(7_000), now_ms, 60_000);
        for (now_ms, watchdog_us) in [(5_000, 3_000_000), (7_000, 1_000_000), (8_500, 1), (10_000, 1)] {
            let stop_us = watchdog_us + STOP_LATER_US;
            assert_eq!(step(now_ms), StopStep::Tell { watchdog_us, stop_us });
        }
        // systemd's watchdog is up to 250 ms late, and SIGTERM would take it away.
        assert_eq!(step(10_001), StopStep::GiveUp);
        assert_eq!(watch.step(LeasePermission::Endless, 10_001, 60_000), StopStep::GoOn);
    }

    #[test]
    fn a_stop_does_not_wait_for_as_long_as_the_lease_is_renewed() {
        let mut watch = StopWatch::default();
        let mut renewed = |now_ms, until_ms| watch.step(LeasePermission::Until(until_ms), now_ms, 60_000);
        for (now_ms, watchdog_us) in [(0, 11_000_000), (4_000, 7_000_000), (10_500, 500_000), (11_500, 1)] {
            let stop_us = watchdog_us + STOP_LATER_US;
            let told = StopStep::Tell { watchdog_us, stop_us };
            assert_eq!(renewed(now_ms, now_ms + 10_000), told, "{now_ms}");
        }
        assert_eq!(renewed(13_001, 23_001), StopStep::GiveUp);
    }

    #[test]
    fn a_lease_that_is_taken_back_while_a_stop_waits_has_the_watchdog_go_off_at_once() {
        let mut watch = StopWatch::default();
        let mut until = |now_ms, until_ms| watch.step(LeasePermission::Until(until_ms), now_ms, 60_000);
        let told = |watchdog_us| StopStep::Tell { watchdog_us, stop_us: watchdog_us + STOP_LATER_US };
        assert_eq!(until(50_000, 70_000), told(21_000_000));
        assert_eq!(until(51_000, 20_000), told(1), "SIGTERM would take the watchdog away");
        assert_eq!(until(54_000, 20_000), told(1));
        assert_eq!(until(54_001, 20_000), StopStep::GiveUp);
    }

    #[test]
    fn without_a_hypervisor_there_is_nothing_to_do() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert!(stop_gracefully(&dir.path().join("qmp.sock"), LONG, LONG).expect("nothing"));
        assert!(matches!(vm_stop("a/b"), Err(VmStopError::Name(_))));
    }
}
