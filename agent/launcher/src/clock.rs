//! The clock of leases, which also counts while the machine is suspended.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of CLOCK_BOOTTIME.
pub(crate) fn now_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
        let (seconds, nanos) = (now.tv_sec(), now.tv_nsec());
        let ms = u64::try_from(nanos).unwrap_or(0) / 1_000_000;
        u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000).saturating_add(ms)
    })
}
