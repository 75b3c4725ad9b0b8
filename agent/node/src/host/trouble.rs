//! What failed and is tried again, for people who look.

use blixard_model::EndpointId;
use blixard_model::api::RetryKind;
use blixard_model::backoff::{Backoff, Retry};
use blixard_model::report::cut_reason;

/// Something that failed and is tried again. Times are on the clock of [`Moment::boot_ms`](super::Moment).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is tried.
    pub what: RetryKind,
    /// With which peer, if it is one's.
    pub peer: Option<EndpointId>,
    /// Failures in a row.
    pub failures: u32,
    /// When it is tried again; none while a try is under way or none is planned.
    pub next_try_ms: Option<u64>,
    /// Why the last try failed.
    pub why: String,
    /// When the first of these failures was.
    pub since_ms: u64,
}

/// A [`Retry`] that remembers why it failed, and since when.
#[derive(Debug, Clone)]
pub(crate) struct Tries {
    retry: Retry,
    failed: Option<(u64, String)>,
}

impl Tries {
    /// Due at once. The seed differs from one who tries to another.
    pub(crate) fn new(backoff: Backoff, seed: u64) -> Self {
        Self { retry: Retry::new(backoff, seed), failed: None }
    }

    /// It failed: the next try is due after a pause.
    pub(crate) fn failed(&mut self, now_ms: u64, mut why: String) {
        cut_reason(&mut why);
        let since = self.failed.take().map_or(now_ms, |(since, _)| since);
        self.failed = Some((since, why));
        self.retry.failed(now_ms);
    }

    /// Due at once, with nothing failed.
    pub(crate) fn reset(&mut self) {
        self.retry.reset();
        self.failed = None;
    }

    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.retry.is_due(now_ms)
    }

    pub(crate) fn at_ms(&self) -> u64 {
        self.retry.at_ms()
    }

    /// As it is shown, if anything failed.
    pub(crate) fn trouble(&self, what: RetryKind, peer: Option<EndpointId>, now_ms: u64) -> Option<Trouble> {
        let (since_ms, why) = self.failed.clone()?;
        let next_try_ms = Some(self.retry.at_ms()).filter(|at| *at > now_ms);
        Some(Trouble { what, peer, failures: self.retry.failures(), next_try_ms, why, since_ms })
    }
}
