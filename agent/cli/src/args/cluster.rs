//! `blixard cluster`: what concerns the cluster as a whole.

use std::path::PathBuf;
use std::time::Duration;

use blixard_model::id::{NodeName, TicketId};
use clap::{Args, Subcommand};

use super::{AskArgs, FreshArgs, ListArgs, WaitArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Tickets, by which nodes that are on no list become members
    #[command(subcommand, alias = "token")]
    Ticket(TicketCommand),
    /// Lets this node join a cluster with a ticket, and waits until it is a member
    Join(JoinArgs),
    /// Takes this node out of its cluster for good
    Leave(LeaveArgs),
    /// Writes the replicated state to a file: members, VMs and where they are placed (no disks, no keys)
    Backup(BackupArgs),
    /// Begins a new cluster with a backup's state, on this node alone, whose agent is stopped
    Restore(RestoreArgs),
    /// Begins a new cluster with what this node has, when the quorum is lost for good; its agent is stopped
    Recover(RecoverArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Makes a ticket for one node and prints it; it is shown this once
    Create(TicketCreateArgs),
    /// Lists the tickets, without their secrets
    List(ListArgs),
    /// Takes a ticket back
    Revoke(TicketRevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TicketCreateArgs {
    /// How long it admits a node, for example 30m or 2h; 10s to 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_ttl)]
    pub(crate) ttl: Duration,
    /// The only name that the node may have
    #[arg(long, value_name = "NODE")]
    pub(crate) name: Option<NodeName>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct TicketRevokeArgs {
    /// The ticket, as `ticket list` shows it
    #[arg(value_name = "ID")]
    pub(crate) id: TicketId,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Where the ticket is; '-' is stdin. Never an argument: those can be seen by everybody on the machine
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) ticket_file: PathBuf,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,
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
pub struct OfflineArgs {
    /// This node's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/blixard/config.toml")]
    pub config: PathBuf,
    /// This node's key, where the configuration does not say where it is
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// Arguments of `blixard cluster restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Takes a backup of another cluster too: the new one has the configured name
    #[arg(long)]
    pub as_new: bool,
    /// Its node
    #[command(flatten)]
    pub node: OfflineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Says that too few of the other voters will ever come back: without it nothing is done
    #[arg(long)]
    pub(crate) i_know_the_others_are_gone: bool,
    #[command(flatten)]
    pub(crate) node: OfflineArgs,
}
