//! Work on files whose format this crate does not know: backups, and the store of a stopped agent.

use blixard_model::backup::BackupHeader;

use crate::args::{OfflineArgs, RestoreArgs};
use crate::failure::Failure;

/// The state in a backup or in a store is read by crates that the command line does not link: the binary
/// hands in an implementation.
pub trait ClusterFiles {
    /// Reads a whole backup and checks that it can be restored.
    ///
    /// # Errors
    /// Why it cannot be restored.
    fn check_backup(&self, bytes: &[u8]) -> Result<CheckedBackup, String>;

    /// Begins a new cluster with a backup's state, on a node whose agent is stopped. Returns what was done
    /// and what to do next.
    ///
    /// # Errors
    /// Nothing was changed, or it is said that this is not known.
    fn restore(&self, args: &RestoreArgs) -> Result<String, Failure>;

    /// Begins a new cluster with the store of a node whose agent is stopped. Returns what was done and what
    /// to do next.
    ///
    /// # Errors
    /// Nothing was changed, or it is said that this is not known.
    fn recover(&self, node: &OfflineArgs) -> Result<String, Failure>;
}

/// A backup that can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBackup {
    /// What it says of itself.
    pub header: BackupHeader,
    /// How many VMs its state holds.
    pub vms: usize,
}
