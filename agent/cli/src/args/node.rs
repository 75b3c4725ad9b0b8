//! `blixard node`.

use blixard_model::id::NodeName;
use clap::{Args, Subcommand, ValueEnum};

use super::shared::{AskArgs, ListArgs};
use crate::completion::node_names;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Lists the nodes: role, whether each can be reached, and what it offers to VMs
    List(ListArgs),
    /// Removes a node from the cluster for good
    Remove(RemoveArgs),
}

/// Arguments of `blixard node remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The node to remove
    #[arg(value_name = "NAME", add = node_names())]
    pub(crate) name: NodeName,
    /// Removes a node that does not answer and will not come back
    #[arg(long)]
    pub(crate) force: bool,
    /// What happens to the VMs placed there: 'delete' forgets them, 'keep' leaves them to a new node of the
    /// same name
    #[arg(long, value_name = "FATE", requires = "force")]
    pub(crate) vms: Option<Fate>,
    /// Confirms that the machine is off and stays off: its VMs are forgotten at once. Without it those that
    /// may be failed over are forgotten when its leases are over, and it is refused if there are others
    #[arg(long, requires = "vms")]
    pub(crate) i_know_it_is_off: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// What happens to the VMs of a node that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fate {
    Delete,
    Keep,
}
