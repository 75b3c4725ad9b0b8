//! When something happened, by the clocks of the machine it happened on.

use blixard_model::BootId;

/// The time of an [`Input`](super::Input), read by the shell before it hands the input over. What is counted
/// from a send therefore starts at the input that caused it, which is never later than the send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The boot that `boot_ms` counts from.
    pub boot_id: BootId,
    /// Milliseconds of CLOCK_BOOTTIME: it never goes back and counts while the machine sleeps. All deadlines
    /// and pauses of a host are on this clock.
    pub boot_ms: u64,
    /// Milliseconds since the Unix epoch. It may jump; nothing but the life of tickets rests on it.
    pub wall_ms: u64,
}
