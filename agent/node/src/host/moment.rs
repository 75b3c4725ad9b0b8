//! When something happened, by the clocks of the machine it happened on.

/// One boot of a machine, as the kernel names it. CLOCK_BOOTTIME begins anew with each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId([u8; 16]);

impl BootId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id that the kernel writes as hexadecimal digits with dashes. Of anything else, what can be read.
    pub fn from_text(text: &str) -> Self {
        let digits = text.chars().filter_map(|digit| digit.to_digit(16));
        let mut bytes = [0; 16];
        for (at, digit) in digits.take(32).enumerate() {
            bytes[at / 2] = bytes[at / 2] << 4 | u8::try_from(digit).unwrap_or(0);
        }
        Self(bytes)
    }
}

impl std::fmt::Debug for BootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

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
