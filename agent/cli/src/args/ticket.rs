//! `blixard cluster ticket`.

use std::time::Duration;

use blixard_model::id::{NodeName, TicketId};
use clap::{Args, Subcommand};

use super::shared::{AskArgs, ListArgs};
use crate::completion::ticket_ids;

#[derive(Debug, Subcommand)]
pub(crate) enum TicketCommand {
    /// Makes a ticket that admits one node, and prints it; it cannot be shown again
    Create(TicketCreateArgs),
    /// Lists the tickets, without their secrets
    List(ListArgs),
    /// Revokes a ticket: it admits no node any more
    Revoke(TicketRevokeArgs),
}

/// Arguments of `blixard cluster ticket create`.
#[derive(Debug, Args)]
pub(crate) struct TicketCreateArgs {
    /// How long the ticket is valid, for example 30m or 2h; from 10s to 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_ttl)]
    pub(crate) ttl: Duration,
    /// Admits only a node of this name
    #[arg(long, value_name = "NODE")]
    pub(crate) name: Option<NodeName>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Arguments of `blixard cluster ticket revoke`.
#[derive(Debug, Args)]
pub(crate) struct TicketRevokeArgs {
    /// The ticket's id, as `ticket list` shows it
    #[arg(value_name = "ID", add = ticket_ids())]
    pub(crate) id: TicketId,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}
