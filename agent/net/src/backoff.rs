//! Waits between attempts: doubled with each failure up to a cap, and half of each random, so that nodes that
//! fell together do not come back together.

use std::time::Duration;

/// The first wait and the longest one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// After the first failure; half of it before any.
    pub(crate) first: Duration,
    /// However often it failed.
    pub(crate) max: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row. Without a random source the full wait does.
    pub(crate) fn after(self, failures: u32) -> Duration {
        self.jittered(failures, getrandom::u32().unwrap_or(u32::MAX))
    }

    fn jittered(self, failures: u32, random: u32) -> Duration {
        let full = match failures {
            0 => self.first / 2,
            n => self.first.saturating_mul(1 << (n - 1).min(16)).min(self.max),
        };
        full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(2) };

    #[test]
    fn waits_grow_to_a_cap_and_differ() {
        let longest: Vec<u128> = (0..8).map(|n| BACKOFF.jittered(n, u32::MAX).as_millis()).collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        for failures in [0, 3, 40, u32::MAX] {
            let (least, most) = (BACKOFF.jittered(failures, 0), BACKOFF.jittered(failures, u32::MAX));
            assert_eq!(least, most / 2);
            assert!(most <= BACKOFF.max);
        }
    }
}
