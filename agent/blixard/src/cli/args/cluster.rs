//! `blixard cluster`: what concerns the cluster as a whole.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AskArgs, FreshArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Writes the replicated state to a file: members, VMs and where they are placed (no disks, no keys)
    Backup(BackupArgs),
    /// Begins a new cluster with a backup's state, on this node alone, whose agent is stopped
    Restore(RestoreArgs),
    /// Begins a new cluster with what this node has, when the quorum is lost for good; its agent is stopped
    Recover(RecoverArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to make; '-' is stdout
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Replaces the file if there is one
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) fresh: FreshArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Whose store it is.
#[derive(Debug, Args)]
pub(crate) struct OfflineArgs {
    /// This node's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/blixard/config.toml")]
    pub(crate) config: PathBuf,
    /// This node's key, where the configuration does not say where it is
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Takes a backup of another cluster too: the new one has the configured name
    #[arg(long)]
    pub(crate) as_new: bool,
    #[command(flatten)]
    pub(crate) node: OfflineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Says that too few of the other voters will ever come back: without it nothing is done
    #[arg(long)]
    pub(crate) i_know_the_others_are_gone: bool,
    #[command(flatten)]
    pub(crate) node: OfflineArgs,
}
