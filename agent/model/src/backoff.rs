//! How long to wait before trying again: exponential, bounded, with jitter.

/// A schedule of pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failure, in milliseconds.
    pub first_ms: u64,
    /// The longest pause, in milliseconds.
    pub longest_ms: u64,
}

/// Starting a VM again: a failure is seldom over within a moment, and each start costs.
pub const VM_START: Backoff = Backoff { first_ms: 1_000, longest_ms: 60_000 };
/// Bringing a request to whoever leads: an election takes a second or two.
pub const SUBMIT: Backoff = Backoff { first_ms: 50, longest_ms: 1_000 };
/// Registration and reports: what a node tells the cluster about itself.
pub const ANNOUNCE: Backoff = Backoff { first_ms: 200, longest_ms: 10_000 };
/// No pause, but how long the answer to a request that was forwarded is waited for
/// ([`Backoff::patience_ms`]): one that was lost never comes, and one that is slow gets more time at the next
/// attempt.
pub const ANSWER: Backoff = Backoff { first_ms: 5_000, longest_ms: 28_000 };

impl Backoff {
    /// The pause before try number `failures + 1`, without jitter: doubles from the first up to the longest.
    pub fn pause_ms(&self, failures: u32) -> u64 {
        match failures {
            0 => 0,
            n => self.first_ms.saturating_mul(1 << (n - 1).min(16)).min(self.longest_ms),
        }
    }

    /// How long an answer is waited for after `unanswered` attempts that had none.
    pub fn patience_ms(&self, unanswered: u32) -> u64 {
        self.pause_ms(unanswered.saturating_add(1))
    }

    /// The pause with jitter: at least half of [`Backoff::pause_ms`], at most all of it. `seed` differs from
    /// one who tries to another, so that those who failed together do not come back together.
    pub fn jittered_ms(&self, failures: u32, seed: u64) -> u64 {
        let pause = self.pause_ms(failures);
        let spread = pause / 2 + 1;
        pause - mix(seed ^ u64::from(failures).rotate_left(40)) % spread
    }
}

/// One operation that is tried again and again on a schedule. Time is the caller's, in milliseconds.
#[derive(Debug, Clone)]
pub struct Retry {
    backoff: Backoff,
    seed: u64,
    failures: u32,
    at_ms: u64,
}

impl Retry {
    /// Due at once. The seed differs from one who tries to another.
    pub fn new(backoff: Backoff, seed: u64) -> Self {
        Self { backoff, seed, failures: 0, at_ms: 0 }
    }

    /// It failed: the next try is due after the schedule's pause.
    pub fn failed(&mut self, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        self.at_ms = now_ms.saturating_add(self.backoff.jittered_ms(self.failures, self.seed));
    }

    /// It went well, and if it has to be done once more, not before the schedule's first pause.
    pub fn succeeded(&mut self, now_ms: u64) {
        self.failures = 0;
        self.at_ms = now_ms.saturating_add(self.backoff.jittered_ms(1, self.seed));
    }

    /// Due at once, with nothing failed.
    pub fn reset(&mut self) {
        (self.failures, self.at_ms) = (0, 0);
    }

    /// Whether it may be tried.
    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.at_ms
    }

    /// When it may be tried.
    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// splitmix64's finaliser: every input bit moves every output bit.
fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_is_bounded() {
        let pauses: Vec<u64> = (0..9).map(|failures| VM_START.pause_ms(failures)).collect();
        assert_eq!(pauses, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(VM_START.pause_ms(u32::MAX), 60_000);
        let patience: Vec<u64> = (0..5).map(|unanswered| ANSWER.patience_ms(unanswered)).collect();
        assert_eq!(patience, [5_000, 10_000, 20_000, 28_000, 28_000]);
        assert_eq!(ANSWER.patience_ms(u32::MAX), 28_000);
    }

    #[test]
    fn a_retry_waits_after_a_failure_and_a_reset_makes_it_due() {
        let mut retry = Retry::new(ANNOUNCE, 3);
        assert!(retry.is_due(0));
        retry.failed(1_000);
        retry.failed(1_200);
        assert_eq!(retry.failures(), 2);
        assert!(!retry.is_due(1_399) && retry.is_due(1_600), "{retry:?}");
        retry.succeeded(2_000);
        assert!(retry.failures() == 0 && !retry.is_due(2_000) && retry.is_due(2_200), "{retry:?}");
        retry.reset();
        assert!(retry.is_due(2_000));
    }

    #[test]
    fn jitter_takes_away_at_most_half_and_differs() {
        let pauses: std::collections::BTreeSet<u64> = (0..100)
            .map(|seed| {
                let pause = SUBMIT.jittered_ms(4, seed);
                assert!((200..=400).contains(&pause), "{pause}");
                pause
            })
            .collect();
        assert!(pauses.len() > 30, "{pauses:?}");
        assert_eq!(SUBMIT.jittered_ms(0, 7), 0);
    }
}
