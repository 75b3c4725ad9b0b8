//! What is going to go wrong.

use std::io;

/// errno of "no space left on device"; with it the error is of kind `StorageFull`.
const ENOSPC: i32 = 28;
/// errno of an input/output error.
const EIO: i32 = 5;

/// What an operation is refused with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskRefusal {
    /// No space left (ENOSPC).
    Full,
    /// The device failed (EIO).
    Failed,
}

impl DiskRefusal {
    pub(super) fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Full => ENOSPC,
            Self::Failed => EIO,
        })
    }
}

/// Why a disk that is off answers nothing: the private kind of error by which the simulator knows its own
/// crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The scheduled crash came.
    #[error("the simulated machine crashed")]
    Crashed,
    /// The handle belongs to a process that is no more.
    #[error("the handle belongs to a process that has ended")]
    Stale,
}

impl From<Gone> for io::Error {
    fn from(gone: Gone) -> Self {
        Self::other(gone)
    }
}

/// Faults that are armed. All off by default.
#[derive(Debug, Clone, Default)]
pub(super) struct ArmedFaults {
    /// Boundaries to pass before the crash.
    pub(super) crash_after: Option<u64>,
    /// Operations to let pass before one is refused.
    pub(super) refuse_after: Option<(u64, DiskRefusal)>,
    /// The next sync of a file's data fails.
    pub(super) fail_sync: bool,
    /// What all files together may occupy, in bytes.
    pub(super) capacity_bytes: Option<usize>,
    /// How long a sync takes.
    pub(super) sync_latency_us: u64,
}

impl ArmedFaults {
    /// Whether the crash is now.
    pub(super) fn crash_is_due(&mut self) -> bool {
        due(&mut self.crash_after)
    }

    /// What this operation is refused with, if it is.
    pub(super) fn refusal(&mut self) -> Option<DiskRefusal> {
        let (left, refusal) = self.refuse_after?;
        self.refuse_after = left.checked_sub(1).map(|left| (left, refusal));
        (left == 0).then_some(refusal)
    }
}

fn due(countdown: &mut Option<u64>) -> bool {
    let Some(left) = *countdown else { return false };
    *countdown = left.checked_sub(1);
    left == 0
}
