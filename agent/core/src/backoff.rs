//! How long to wait before trying again.

/// First pause, in milliseconds.
pub const FIRST_MS: u64 = 1_000;
/// Longest pause, in milliseconds.
pub const LONGEST_MS: u64 = 60_000;

/// The pause before try number `failures + 1`: doubles from [`FIRST_MS`] up to [`LONGEST_MS`].
pub fn pause_ms(failures: u32) -> u64 {
    match failures {
        0 => 0,
        n => FIRST_MS.saturating_mul(1 << (n - 1).min(16)).min(LONGEST_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_is_bounded() {
        let pauses: Vec<u64> = (0..9).map(pause_ms).collect();
        assert_eq!(pauses, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(pause_ms(u32::MAX), LONGEST_MS);
    }
}
