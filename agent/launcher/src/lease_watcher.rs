//! Looks at the agent's lease for the supervisor of one VM.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::time::TimeSpec;
use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};

use crate::lease::{LeaseDir, LeaseNeed, LeasePermission};

/// The file is looked at this often whatever the kernel tells of its directory, in milliseconds: the
/// directory may not be there yet, or be made anew.
const LOOK_MS: u64 = 1_000;

/// Reads the file when it has changed, once a second, and at the end of the lease.
#[derive(Debug)]
pub(crate) struct LeaseWatcher {
    need: LeaseNeed,
    dir: LeaseDir,
    /// Tells of changes in the directory; none where the kernel gives no more of these.
    changes: Option<Inotify>,
    /// Goes off at the end of the lease, also when the machine was suspended meanwhile, which the time that
    /// `poll` waits does not count.
    timer: Option<TimerFd>,
    /// The end for which the timer is set.
    timer_ms: Option<u64>,
    look_at_ms: u64,
}

impl LeaseWatcher {
    pub(crate) fn new(need: LeaseNeed, dir: LeaseDir) -> Self {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Self {
            need,
            dir,
            changes: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok(),
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, flags).ok(),
            timer_ms: None,
            look_at_ms: 0,
        }
    }

    /// What the file allows, if it is to be looked at now. `deadline_ms` is the end of the lease, at and
    /// after which each look counts.
    pub(crate) fn look(&mut self, now_ms: u64, deadline_ms: Option<u64>) -> Option<LeasePermission> {
        let has_changed = self.take_changes();
        let is_over = deadline_ms.is_some_and(|until_ms| now_ms >= until_ms);
        if !has_changed && !is_over && now_ms < self.look_at_ms {
            return None;
        }
        if now_ms >= self.look_at_ms {
            self.look_at_ms = now_ms.saturating_add(LOOK_MS);
            // Before the file is read, so that no change is missed. The same directory is watched once.
            self.watch();
        }
        Some(self.need.permission(self.dir.read()))
    }

    /// When it is to look again, if nothing is told before.
    pub(crate) fn look_at_ms(&self) -> u64 {
        self.look_at_ms
    }

    /// Sets the timer for the end of the lease.
    pub(crate) fn set_timer(&mut self, deadline_ms: Option<u64>) {
        let Some(timer) = self.timer.as_ref().filter(|_| self.timer_ms != deadline_ms) else { return };
        let set = match deadline_ms {
            Some(until_ms) => {
                // A time of zero would switch it off, and such a lease is over anyway.
                let at = TimeSpec::from_duration(Duration::from_millis(until_ms.max(1)));
                timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
            None => timer.unset(),
        };
        self.timer_ms = deadline_ms.filter(|_| set.is_ok());
    }

    /// What to wait for.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.changes.iter().map(AsFd::as_fd).chain(self.timer.iter().map(AsFd::as_fd))
    }

    fn watch(&self) {
        let Some(changes) = &self.changes else { return };
        let flags = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        // Where it cannot be watched, it is looked at.
        let _ = changes.add_watch(self.dir.path(), flags);
    }

    fn take_changes(&self) -> bool {
        let mut found = false;
        while self.changes.as_ref().is_some_and(|changes| changes.read_events().is_ok()) {
            found = true;
        }
        found
    }
}
