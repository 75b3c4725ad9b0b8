//! Whether a guest that needs a lease may run, and what systemd's watchdog is told of it.
//!
//! There are two enforcers. The supervisor kills the hypervisor at the end of the lease. Where it cannot,
//! because it hangs or stands still, systemd's watchdog kills the whole unit a second later; it is armed
//! before the guest first runs. Only until when the guest may run is told to systemd, never that the
//! supervisor is well.
//!
//! A guest whose lease has no end may get one at any moment, a long lease may be cut short, and a supervisor
//! that stands still would never learn of it. So the watchdog is never armed for longer than
//! [`ENDLESS_WATCHDOG_MS`](blixard_model::lease::ENDLESS_WATCHDOG_MS) from a look at the file, and the agent
//! waits as long before it counts on the earlier end. The time is counted from the look and not from when
//! systemd is told, between which the supervisor may stand still.

use blixard_model::mutant;

use crate::lease::{LeasePermission, NoLease};

/// systemd has this long to confirm that it watches, in milliseconds.
pub(super) const ARM_MS: u64 = 5_000;
/// systemd's watchdog ends the unit this long after the end of the lease, in milliseconds: the supervisor
/// comes first.
const WATCHDOG_LATER_MS: u64 = 1_000;
/// While the lease has no end, or a later one than systemd was told, systemd is told again at the first look
/// at the file that comes this part of the watchdog's longest time after it was told: often enough for a
/// machine that is busy.
const LONG_FEEDS: u64 = 6;
/// Stopping takes the watchdog away, and a reload of systemd the time that a stop has: both are told again
/// this often, in milliseconds.
const STOP_FEED_MS: u64 = 1_000;

/// How long systemd's watchdog waits for a lease that ends at `until_ms`, in microseconds: no longer than
/// `endless_ms`. It is never 0 and never 2^64-1, with which systemd would take it for switched off.
pub fn watchdog_us(now_ms: u64, until_ms: u64, endless_ms: u64) -> u64 {
    let later_ms = if mutant::lives("watchdog-much-later") { 30_000 } else { WATCHDOG_LATER_MS };
    let left_ms = until_ms.saturating_add(later_ms).saturating_sub(now_ms).min(endless_ms);
    left_ms.saturating_mul(1_000).max(1)
}

/// How long the guest may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeaseTerm {
    /// Not at all.
    None,
    /// Until then.
    Until(u64),
    /// Without an end.
    Endless,
}

/// What systemd's watchdog does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitWatchdog {
    /// It was not asked to watch.
    Off,
    /// It was asked, and has to confirm by then.
    Arming { until_ms: u64 },
    /// It watches.
    On,
}

/// What comes of the wish to let the guest run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseAnswer {
    /// It has to wait, for a lease or for systemd.
    Wait,
    /// systemd is to be armed first.
    Arm {
        /// Until when the guest may run, as far as systemd is told.
        until_ms: u64,
    },
    /// It may run.
    Run,
}

/// The lease of a VM that needs one. It allows nothing at first.
#[derive(Debug)]
pub(super) struct LeaseWatch {
    /// How long the guest runs on at most after a look at the file, in milliseconds.
    endless_ms: u64,
    term: LeaseTerm,
    /// Why the newest permission is none.
    denied: Option<NoLease>,
    /// When the agent's file was looked at last.
    looked_ms: u64,
    /// The guest runs, or may do so at any moment.
    is_used: bool,
    watchdog: UnitWatchdog,
    /// What systemd was told last, and when.
    fed: (LeaseTerm, u64),
    /// Until when the guest may run, as systemd was told.
    fed_until_ms: u64,
    /// It was told while the unit is being stopped.
    fed_stopping: bool,
}

impl LeaseWatch {
    pub(super) fn new(endless_ms: u64) -> Self {
        Self {
            endless_ms,
            term: LeaseTerm::None,
            denied: None,
            looked_ms: 0,
            is_used: false,
            watchdog: UnitWatchdog::Off,
            fed: (LeaseTerm::None, 0),
            fed_until_ms: 0,
            fed_stopping: false,
        }
    }

    /// Takes the newest permission, which was read at this time or later. What is not renewed holds as long
    /// as it was said to while the guest runs; a guest that does not run yet needs a permission that was read
    /// just now.
    pub(super) fn note(&mut self, now_ms: u64, permission: LeasePermission) {
        self.looked_ms = now_ms;
        match permission {
            LeasePermission::Until(until_ms) => {
                (self.term, self.denied) = (LeaseTerm::Until(until_ms), None);
            }
            LeasePermission::Endless => (self.term, self.denied) = (LeaseTerm::Endless, None),
            LeasePermission::Denied(why) => {
                if why.revokes() || !self.is_used {
                    self.term = LeaseTerm::None;
                }
                self.denied = Some(why);
            }
        }
    }

    /// Whether the guest may run now.
    pub(super) fn allows(&self, now_ms: u64) -> bool {
        match self.term {
            LeaseTerm::None => false,
            LeaseTerm::Until(until_ms) => now_ms < until_ms,
            LeaseTerm::Endless => true,
        }
    }

    /// The guest is to run for the first time.
    pub(super) fn ask_to_run(&mut self, now_ms: u64) -> LeaseAnswer {
        let Some(until_ms) = self.watched_until_ms().filter(|_| self.allows(now_ms)) else {
            return LeaseAnswer::Wait;
        };
        match self.watchdog {
            UnitWatchdog::Off if mutant::lives("guest-runs-unwatched") => {
                self.is_used = true;
                LeaseAnswer::Run
            }
            UnitWatchdog::Off => {
                self.is_used = true;
                self.watchdog = UnitWatchdog::Arming { until_ms: now_ms.saturating_add(ARM_MS) };
                self.fed = (self.term, now_ms);
                self.fed_until_ms = until_ms;
                LeaseAnswer::Arm { until_ms }
            }
            UnitWatchdog::Arming { .. } => LeaseAnswer::Wait,
            UnitWatchdog::On => LeaseAnswer::Run,
        }
    }

    /// systemd watches.
    pub(super) fn note_armed(&mut self) {
        if let UnitWatchdog::Arming { .. } = self.watchdog {
            self.watchdog = UnitWatchdog::On;
        }
    }

    /// Until when systemd has to confirm that it watches, if it was asked to.
    pub(super) fn armed_by_ms(&self) -> Option<u64> {
        match self.watchdog {
            UnitWatchdog::Arming { until_ms } => Some(until_ms),
            UnitWatchdog::Off | UnitWatchdog::On => None,
        }
    }

    /// When the guest has to end, if it runs or may do so.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self.term {
            LeaseTerm::Until(until_ms) => Some(until_ms),
            // It ends now.
            LeaseTerm::None => Some(0),
            LeaseTerm::Endless => None,
        }
        .filter(|_| self.is_used)
    }

    /// Why the guest may not run.
    pub(super) fn why_not(&self) -> String {
        match (&self.denied, self.term) {
            (Some(why), _) if self.term == LeaseTerm::None => why.to_string(),
            (Some(why), _) => format!("it was not renewed: {why}"),
            (None, LeaseTerm::None) => "the agent's lease was not looked at yet".to_owned(),
            (None, _) => "the agent did not renew it in time".to_owned(),
        }
    }

    /// Until when the guest may run as far as systemd is told, if it may.
    fn watched_until_ms(&self) -> Option<u64> {
        let longest_ms = self.looked_ms.saturating_add(self.endless_ms.saturating_sub(WATCHDOG_LATER_MS));
        match self.term {
            LeaseTerm::None => None,
            LeaseTerm::Until(until_ms) => Some(until_ms.min(longest_ms)),
            LeaseTerm::Endless => Some(longest_ms),
        }
    }

    /// When systemd is to be told of the lease, if nothing else changes. What has passed is due.
    pub(super) fn feed_at_ms(&self, stopping: bool) -> Option<u64> {
        let (fed, fed_ms) = self.fed;
        match self.term {
            _ if !self.is_used || mutant::lives("guest-runs-unwatched") => None,
            LeaseTerm::None => None,
            _ if stopping && mutant::lives("stop-not-watched-on") => None,
            _ if fed != self.term => Some(0),
            // The beginning of a stop takes the watchdog away, and the stop is over sooner than that.
            LeaseTerm::Endless if stopping => None,
            LeaseTerm::Until(_) if stopping != self.fed_stopping => Some(0),
            LeaseTerm::Until(_) if stopping => Some(fed_ms.saturating_add(STOP_FEED_MS)),
            LeaseTerm::Until(until_ms) if until_ms <= self.fed_until_ms => None,
            // The next look makes it due.
            _ if self.looked_ms.saturating_sub(fed_ms) < self.endless_ms / LONG_FEEDS => None,
            LeaseTerm::Endless | LeaseTerm::Until(_) => Some(self.looked_ms),
        }
    }

    /// What systemd is to be told of the lease now: until when the guest may run.
    pub(super) fn feed(&mut self, now_ms: u64, stopping: bool) -> Option<u64> {
        self.feed_at_ms(stopping).filter(|at_ms| now_ms >= *at_ms)?;
        self.fed = (self.term, now_ms);
        self.fed_stopping = stopping;
        let until_ms = self.watched_until_ms()?;
        self.fed_until_ms = until_ms;
        Some(until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_waits_a_second_longer_and_is_never_switched_off_by_its_time() {
        for (now_ms, until_ms, us) in [
            (1_000, 6_000, 6_000_000),
            (6_000, 6_000, 1_000_000),
            (6_999, 6_000, 1_000),
            (7_000, 6_000, 1),
            (u64::MAX, 0, 1),
            (0, u64::MAX, 60_000_000),
            (u64::MAX, u64::MAX, 1),
        ] {
            assert_eq!(watchdog_us(now_ms, until_ms, 60_000), us, "{now_ms} {until_ms}");
        }
    }
}
