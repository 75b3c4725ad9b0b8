//! What the supervisors of this node's VMs know of its lease: a file on a tmpfs, so that writing it takes
//! microseconds.

use blixard_core::lease::LeaseFound;
use blixard_launcher::LeaseDir;
use blixard_model::LeaseFile;
use blixard_model::words::with_causes;

use super::unit_dirs;

/// What an agent that starts finds.
pub(crate) fn found() -> LeaseFound {
    LeaseFound { file: read(), units_run: !unit_dirs::names().is_empty() }
}

/// What an earlier agent left, if it can be read. What cannot be is written anew with the next grant.
pub(crate) fn read() -> Option<LeaseFile> {
    LeaseDir::default().read().unwrap_or_else(|error| {
        tracing::warn!("what an earlier agent left of this node's lease: {}", with_causes(&error));
        None
    })
}

/// Writes it. What comes back is why it is not written.
pub(crate) fn write(file: &LeaseFile) -> Option<String> {
    LeaseDir::default().write(file).err().map(|error| with_causes(&error))
}

/// Why the supervisors would learn of no lease, if they would not; with the way out.
pub(crate) fn problem() -> Option<String> {
    let why = LeaseDir::default().problem()?;
    Some(format!("{why}: `systemctl restart blixard.service` makes it anew"))
}
