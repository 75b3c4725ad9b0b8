//! `blixard local`: the VMs of this machine, whatever the cluster does.

use std::path::PathBuf;

use blixard_model::id::VmName;
use clap::{Args, Subcommand};

use super::shared::AskArgs;
use crate::completion::vm_names;

#[derive(Debug, Subcommand)]
pub(crate) enum LocalCommand {
    /// Lists the VMs of this machine; needs no quorum, and no agent
    List(LocalListArgs),
    /// Stops a VM of this machine, which stays so until `vm start`; needs no quorum, and as root no agent
    Stop(LocalStopArgs),
}

/// Where it is found what an agent that does not answer would know.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// This node's configuration, for when the agent does not answer
    #[arg(long, value_name = "FILE", default_value = "/etc/blixard/config.toml")]
    pub(crate) config: PathBuf,
}

/// Arguments of `blixard local list`.
#[derive(Debug, Args)]
pub(crate) struct LocalListArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Arguments of `blixard local stop`.
#[derive(Debug, Args)]
pub(crate) struct LocalStopArgs {
    /// The VM
    #[arg(value_name = "NAME", add = vm_names())]
    pub(crate) name: VmName,
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}
