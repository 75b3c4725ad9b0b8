//! The clock that decisions count on: it never goes back and goes on while the machine sleeps.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of CLOCK_BOOTTIME.
pub(crate) fn boottime_ms() -> u64 {
    // The clock exists on every Linux this runs on; 0 would only mean "retry at once".
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec() * 1_000 + now.tv_nsec() / 1_000_000);
    u64::try_from(now).unwrap_or(0)
}
