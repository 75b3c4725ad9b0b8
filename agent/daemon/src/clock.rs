//! Clocks: the one that decisions count on, which never goes back and goes on while the machine sleeps, and
//! the one that people read.

use blixard_model::BootId;
use blixard_node::host::Moment;
use nix::time::{ClockId, clock_gettime};

/// The time by this machine's clocks, in this boot.
pub(crate) fn moment(boot_id: BootId) -> Moment {
    Moment { boot_id, boot_ms: boottime_ms(), wall_ms: wall_ms() }
}

/// The kernel's name for this boot, if it can be read at this moment. A process stays in one boot, unless it
/// is carried over into another as a frozen image is.
pub(crate) fn boot_id() -> Option<BootId> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(BootId::from_text(&text))
}

/// Milliseconds of CLOCK_BOOTTIME.
pub(crate) fn boottime_ms() -> u64 {
    // The clock exists on every Linux this runs on; 0 would only mean "retry at once".
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |now| now.tv_sec() * 1_000 + now.tv_nsec() / 1_000_000);
    u64::try_from(now).unwrap_or(0)
}

/// Milliseconds since the Unix epoch, for what people and other machines have to understand. It may jump.
pub(crate) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
