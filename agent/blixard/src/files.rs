//! What the command line does with backups and stores, done by the agent's crate.

use blixard_cli::{CheckedBackup, ClusterFiles, Failure, OfflineArgs, RestoreArgs};
use blixard_daemon::{OfflineError, StoppedNode};

/// The files of this machine.
#[derive(Debug)]
pub(crate) struct LocalFiles;

impl ClusterFiles for LocalFiles {
    fn check_backup(&self, bytes: &[u8]) -> Result<CheckedBackup, String> {
        let backup = blixard_daemon::decode_backup(bytes).map_err(|error| error.to_string())?;
        Ok(CheckedBackup { vms: backup.state.vms.len(), header: backup.header })
    }

    fn restore(&self, args: &RestoreArgs) -> Result<String, Failure> {
        let words = (args.as_new, args.i_know_the_others_are_stopped);
        blixard_daemon::restore(stopped(&args.node), &args.file, words).map_err(failure)
    }

    fn recover(&self, node: &OfflineArgs) -> Result<String, Failure> {
        blixard_daemon::recover(stopped(node)).map_err(failure)
    }
}

fn stopped(node: &OfflineArgs) -> StoppedNode<'_> {
    StoppedNode { config: &node.config, key_file: node.key_file.as_deref() }
}

pub(crate) fn failure(error: OfflineError) -> Failure {
    Failure::new(error.kind, error.cause, error.way_out)
}
