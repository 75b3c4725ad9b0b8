//! How the guest is, by what the hypervisor says.

use blixard_model::UnitStatus;

use crate::qemu::message::GuestDiskError;

/// A guest that goes on after a full disk has to run this long, in milliseconds, before it is said to run:
/// where there is still no space it stops at the next write.
const SETTLE_MS: u64 = 1_000;
/// A guest that ran this long, in milliseconds, has recovered: the pauses before it is let go on begin anew.
const RECOVERED_MS: u64 = 30_000;
/// The pauses before a guest that stands still for a disk is let go on, in milliseconds: the first, and the
/// longest.
const RETRY_MS: (u64, u64) = (1_000, 10_000);

/// How a guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Guest {
    Runs,
    /// Somebody paused it.
    Paused,
    /// A disk could not be written; what is known of it.
    DiskError(Option<GuestDiskError>),
    /// In a state that does not pass by itself; in words.
    Stuck(String),
}

/// A guest that has run, and what is remembered of its disks' errors.
#[derive(Debug)]
pub(super) struct GuestWatch {
    guest: Guest,
    /// The paths of its disks, in their order.
    disks: Vec<String>,
    since_ms: u64,
    /// What it stood still for before it went on.
    before: Option<Option<GuestDiskError>>,
    tries: u32,
    retry_at_ms: u64,
}

impl GuestWatch {
    pub(super) fn new(disks: Vec<String>) -> Self {
        Self { guest: Guest::Runs, disks, since_ms: 0, before: None, tries: 0, retry_at_ms: 0 }
    }

    /// It runs, or goes on.
    pub(super) fn note_runs(&mut self, now_ms: u64) {
        let before = std::mem::replace(&mut self.guest, Guest::Runs);
        if before != Guest::Runs {
            self.since_ms = now_ms;
            self.before = if let Guest::DiskError(error) = before { Some(error) } else { None };
        }
    }

    /// QEMU's run state.
    pub(super) fn note_status(&mut self, now_ms: u64, status: &str) {
        match status {
            "running" => self.note_runs(now_ms),
            "io-error" => self.note_disk_error(now_ms, None),
            "paused" => self.guest = Guest::Paused,
            "internal-error" => self.guest = Guest::Stuck("internal error of the hypervisor".to_owned()),
            "guest-panicked" => self.guest = Guest::Stuck("the guest panicked".to_owned()),
            other => self.guest = Guest::Stuck(format!("the hypervisor says {other:?}")),
        }
    }

    /// It stands still for a disk.
    pub(super) fn note_disk_error(&mut self, now_ms: u64, error: Option<GuestDiskError>) {
        if let Guest::DiskError(known) = &mut self.guest {
            *known = error.or_else(|| known.take());
            return;
        }
        if self.guest == Guest::Runs && now_ms.saturating_sub(self.since_ms) >= RECOVERED_MS {
            self.tries = 0;
        }
        let before = self.before.take().flatten();
        self.guest = Guest::DiskError(error.or(before));
        self.tries = self.tries.saturating_add(1);
        let pause_ms = RETRY_MS.0.saturating_mul(1 << (self.tries - 1).min(10)).min(RETRY_MS.1);
        self.retry_at_ms = now_ms.saturating_add(pause_ms);
    }

    /// Whether it stands still because somebody paused it.
    pub(super) fn is_paused(&self) -> bool {
        self.guest == Guest::Paused
    }

    /// Whether it can still be asked to shut down.
    pub(super) fn may_listen(&self) -> bool {
        !matches!(self.guest, Guest::Stuck(_))
    }

    /// When it is to be let go on, if it stands still for a disk.
    pub(super) fn retry_at_ms(&self) -> Option<u64> {
        matches!(self.guest, Guest::DiskError(_)).then_some(self.retry_at_ms)
    }

    /// It was let go on; if that does not help, it is tried again after another pause.
    pub(super) fn note_retried(&mut self, now_ms: u64) {
        self.retry_at_ms = now_ms.saturating_add(RETRY_MS.1);
    }

    /// How it is, and until when that stays so by itself.
    pub(super) fn status(&self, now_ms: u64) -> (UnitStatus, Option<u64>) {
        match (&self.guest, &self.before) {
            (Guest::Runs, Some(error)) if now_ms.saturating_sub(self.since_ms) < SETTLE_MS => {
                (UnitStatus::Paused(self.words(error.as_ref())), Some(self.since_ms + SETTLE_MS))
            }
            (Guest::Runs, _) => (UnitStatus::Running, None),
            (Guest::Paused, _) => {
                (UnitStatus::Paused("somebody paused it through its control socket".to_owned()), None)
            }
            (Guest::DiskError(error), _) => (UnitStatus::Paused(self.words(error.as_ref())), None),
            (Guest::Stuck(why), _) => (UnitStatus::Paused(why.clone()), None),
        }
    }

    /// The disk with its path, and what is wrong with it.
    fn words(&self, error: Option<&GuestDiskError>) -> String {
        let Some(GuestDiskError { node, why, .. }) = error else {
            return "a disk could not be written".to_owned();
        };
        let index: Option<usize> = node.strip_prefix("disk").and_then(|index| index.parse().ok());
        match index.and_then(|index| self.disks.get(index)) {
            Some(path) => format!("{node} {path}: {why}"),
            None => format!("a disk: {why}"),
        }
    }
}
