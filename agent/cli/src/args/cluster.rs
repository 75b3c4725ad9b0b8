//! `blixard cluster`: what concerns the cluster as a whole.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::shared::{AskArgs, FreshArgs, WaitArgs};
use super::ticket::TicketCommand;

const OFFLINE_EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused: nothing was changed
  2  the command line is wrong
  3  the disk refused: the old store is in its place
  4  the disk failed at the last step: the old or the new store is in its place, whole";

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Makes, lists and revokes tickets, with which nodes that are not in the `members` list join
    #[command(subcommand, alias = "token")]
    Ticket(TicketCommand),
    /// Joins this node to a cluster with a ticket, and waits until it is a member
    Join(JoinArgs),
    /// Takes this node out of its cluster for good
    Leave(LeaveArgs),
    /// For planned work on the network: for some time no VM is started elsewhere because its node cannot be
    /// reached, and VMs run on without it
    Disarm(DisarmArgs),
    /// Ends `disarm` before its time
    Arm(ArmArgs),
    /// Shows the terms of the leases under which VMs run that may be failed over, or changes them
    Lease(LeaseArgs),
    /// Writes the replicated state to a file: members, VMs and placements, but no disks and no keys
    Backup(BackupArgs),
    /// Begins a new cluster from a backup, with this node alone; its agent must be stopped
    #[command(after_help = OFFLINE_EXIT_CODES)]
    Restore(RestoreArgs),
    /// Begins a new cluster from this node's own state after the quorum is lost for good; its agent must be
    /// stopped
    #[command(after_help = OFFLINE_EXIT_CODES)]
    Recover(RecoverArgs),
}

/// Arguments of `blixard cluster join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Reads the ticket from this file; '-' is stdin. It is not taken as an argument, because every user of
    /// the machine can see those
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) ticket_file: PathBuf,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Arguments of `blixard cluster leave`.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Arguments of `blixard cluster disarm`.
#[derive(Debug, Args)]
pub(crate) struct DisarmArgs {
    /// For how long, at most a day, such as '30m'
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = parse_time)]
    pub(crate) length: Duration,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Arguments of `blixard cluster arm`.
#[derive(Debug, Args)]
pub(crate) struct ArmArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Arguments of `blixard cluster lease`.
#[derive(Debug, Args)]
pub(crate) struct LeaseArgs {
    /// How long a lease holds, 3 s to 5 min: a shorter one lets a lost VM start elsewhere sooner
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) lease: Option<Duration>,
    /// How long it takes at most until a VM is gone whose lease has ended, 3 s to 1 min
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) stop_time: Option<Duration>,
    /// What is added to be sure, 0.5 s to 1 min
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) margin: Option<Duration>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Arguments of `blixard cluster backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write; '-' is stdout
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Replaces the file if it exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) fresh: FreshArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Whose store it is.
#[derive(Debug, Args)]
pub struct OfflineArgs {
    /// This node's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/blixard/config.toml")]
    pub config: PathBuf,
    /// This node's key, if the configuration does not say where it is
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// Arguments of `blixard cluster restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Accepts a backup of another cluster: the new cluster gets the configured name
    #[arg(long)]
    pub as_new: bool,
    /// Confirms that no VM of the cluster runs on its other machines: those that this node had when the
    /// backup was made may have moved since, and it starts them at once
    #[arg(long)]
    pub i_know_the_others_are_stopped: bool,
    /// Its node
    #[command(flatten)]
    pub node: OfflineArgs,
}

/// Arguments of `blixard cluster recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Confirms that too few of the other voters will ever come back; without it the command only explains
    /// what it would do
    #[arg(long)]
    pub(crate) i_know_the_others_are_gone: bool,
    #[command(flatten)]
    pub(crate) node: OfflineArgs,
}
