//! How a stop of a VM with a lease is watched: what systemd is told of the lease meanwhile, and how long
//! `vm-stop` stays. Without a clock, a process or a file.

use blixard_model::mutant;

use crate::lease::LeasePermission;
use crate::supervisor::watchdog_us;

/// systemd gives `vm-stop` so much longer than its watchdog waits, in microseconds: the SIGTERM that follows
/// `vm-stop` would take the watchdog away, which may be late by some hundred milliseconds.
const STOP_LATER_US: u64 = 10_000_000;
/// A stop lasts no longer than this, in milliseconds, as `TimeoutStopSec=` says. One whose lease holds for
/// longer need not be watched.
const WATCHED_MS: u64 = 40_000;
/// How long after the end of the lease systemd's watchdog has certainly gone off, if it does, in
/// milliseconds.
const GIVE_UP_MS: u64 = 3_000;

/// How a stop is watched.
#[derive(Debug, Default)]
pub struct StopWatch {
    /// When the first look was.
    begun_ms: Option<u64>,
    /// When the VM is to end, as far as that was known at the last look.
    known_ms: Option<u64>,
    /// Since when that is known: systemd was told no earlier.
    since_ms: u64,
    /// The supervisor has answered since the last look.
    answers: bool,
    /// It was asked to stop.
    is_asked: bool,
}

/// What `vm-stop` does after a look at the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopStep {
    /// It leaves the stop to systemd's signals: that need not be watched, or lasts longer than it may.
    GoOn,
    /// It leaves the stop to systemd's signals because nothing ended the VM in time.
    GiveUp,
    /// It tells systemd how long the watchdog waits and how long `vm-stop` may take, in microseconds, and
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
        let begun_ms = *self.begun_ms.get_or_insert(now_ms);
        let until_ms = end_of(permission, now_ms, self.known_ms);
        // Who waits for a supervisor that stands still would wait for ever while its node's lease is renewed.
        let follows = self.answers || mutant::lives("stop-follows-renewals");
        let until_ms = match (self.known_ms, until_ms) {
            (Some(known_ms), Some(until_ms)) if !follows => Some(known_ms.min(until_ms)),
            _ => until_ms,
        };
        if std::mem::replace(&mut self.known_ms, until_ms) != until_ms {
            self.since_ms = now_ms;
        }
        let Some(until_ms) = self.known_ms.filter(|_| !mutant::lives("stop-arms-no-watchdog")) else {
            return StopStep::GoOn;
        };
        let longest_ms = if mutant::lives("stop-left-to-sigterm") { 0 } else { WATCHED_MS };
        if self.answers && now_ms >= begun_ms.saturating_add(longest_ms) {
            return StopStep::GoOn;
        }
        let give_up_ms = if mutant::lives("stop-goes-on-unwatched") { 0 } else { GIVE_UP_MS };
        // The end may have been in the past when it came to be known.
        if now_ms > until_ms.max(self.since_ms).saturating_add(give_up_ms) {
            return StopStep::GiveUp;
        }
        let watchdog_us = watchdog_us(now_ms, until_ms, endless_ms);
        StopStep::Tell { watchdog_us, stop_us: watchdog_us.saturating_add(STOP_LATER_US) }
    }

    /// Notes whether the supervisor answers. True: it is to be asked to stop now.
    pub fn note_answer(&mut self, answers: bool) -> bool {
        self.answers = answers;
        answers && !std::mem::replace(&mut self.is_asked, true)
    }
}

/// When a VM that is allowed this is to end, and was to end at `known_ms` when it was looked at before. None:
/// nobody knows of an end, and the stop itself has one, which comes before
/// [`ENDLESS_WATCHDOG_MS`](blixard_model::lease::ENDLESS_WATCHDOG_MS) are over.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::NoLease;

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
    fn a_supervisor_is_asked_once_and_watched_for_as_long_as_its_lease_is_renewed() {
        let mut watch = StopWatch::default();
        let mut renewed = |now_ms, answers| {
            let step = watch.step(LeasePermission::Until(now_ms + 10_000), now_ms, 60_000);
            (step, watch.note_answer(answers))
        };
        let told = |watchdog_us| StopStep::Tell { watchdog_us, stop_us: watchdog_us + STOP_LATER_US };
        assert_eq!(renewed(0, false), (told(11_000_000), false), "it stands still");
        assert_eq!(renewed(1_000, true), (told(10_000_000), true));
        for now_ms in [2_000, 20_000, 39_999] {
            assert_eq!(renewed(now_ms, true), (told(11_000_000), false), "{now_ms}");
        }
        // systemd's signals are to come, as without this program.
        assert_eq!(renewed(40_000, true).0, StopStep::GoOn);
    }

    #[test]
    fn a_supervisor_that_stands_still_after_it_was_asked_is_ended_with_the_lease_that_was_known() {
        let mut watch = StopWatch::default();
        let mut renewed = |now_ms, answers| {
            let step = watch.step(LeasePermission::Until(now_ms + 10_000), now_ms, 60_000);
            watch.note_answer(answers);
            step
        };
        let told = |watchdog_us| StopStep::Tell { watchdog_us, stop_us: watchdog_us + STOP_LATER_US };
        assert_eq!(renewed(0, true), told(11_000_000));
        assert_eq!(renewed(5_000, false), told(11_000_000));
        for (now_ms, watchdog_us) in [(6_000, 10_000_000), (15_500, 500_000), (18_000, 1)] {
            assert_eq!(renewed(now_ms, false), told(watchdog_us), "{now_ms}");
        }
        assert_eq!(renewed(18_001, false), StopStep::GiveUp);
    }
}
