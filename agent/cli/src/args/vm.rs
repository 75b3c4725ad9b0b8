//! `blixard vm`.

use std::path::PathBuf;

use blixard_model::id::VmName;
use clap::{Args, Subcommand};

use super::shared::{AskArgs, FreshArgs, ListArgs, SocketArgs, WaitArgs, WriteArgs, parse_timeout};
use crate::completion::vm_names;
use crate::spec::{SpecFlags, SpecPatch, Unset};

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Creates a VM and places it on a node, without starting it
    Create(CreateArgs),
    /// Creates a VM, starts it, and waits until it runs
    Run(RunArgs),
    /// Lists the VMs
    List(ListArgs),
    /// Shows everything about one VM
    Show(ShowArgs),
    /// Changes the spec of a VM where it is placed, and restarts it if it runs
    Set(SetArgs),
    /// Starts a stopped VM
    Start(ChangeArgs),
    /// Stops a VM; it keeps its name, its disks and its reservation
    Stop(ChangeArgs),
    /// Stops a VM and forgets it; its disk files stay
    Delete(ChangeArgs),
    /// Prints the console of a VM
    Logs(LogsArgs),
}

/// Arguments of `blixard vm create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// Arguments of `blixard vm run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// The spec of a new VM, in flags and a file. Flags win over the file.
#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    #[command(flatten)]
    pub(crate) flags: SpecPatch,
    /// Reads the spec from a JSON file, in the form that `vm show --json` prints under "spec"; '-' is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// Arguments of `blixard vm show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The VM
    #[arg(value_name = "NAME", add = vm_names())]
    pub(crate) name: VmName,
    #[command(flatten)]
    pub(crate) fresh: FreshArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Arguments of `blixard vm set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The VM
    #[arg(value_name = "NAME", add = vm_names())]
    pub(crate) name: VmName,
    #[command(flatten)]
    pub(crate) flags: SpecFlags,
    /// Takes a field away from the spec. May be repeated
    #[arg(long, value_name = "FIELD")]
    pub(crate) unset: Vec<Unset>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// Arguments of `blixard vm start`, `stop` and `delete`.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// The VM
    #[arg(value_name = "NAME", add = vm_names())]
    pub(crate) name: VmName,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// Arguments of `blixard vm logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The VM
    #[arg(value_name = "NAME", add = vm_names())]
    pub(crate) name: VmName,
    /// Prints new lines as they come, until Ctrl-C
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
    /// Begins with the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) lines: Option<u32>,
    #[command(flatten)]
    pub(crate) at: SocketArgs,
    /// Gives up after this time
    #[arg(long, value_name = "SECONDS", conflicts_with = "follow", value_parser = parse_timeout)]
    pub(crate) timeout: Option<u32>,
}
