//! The command line: the clap tree of the whole program, and the client commands.
//!
//! A client command asks the agent over its Unix socket and shows the answer. From the bottom up:
//!
//! - pure: `args` (the tree), `spec`, `wait` (when a wait is over), `check` (what needs attention), `show`
//!   (views as text), `text`, `failure`;
//! - the agent: `client` (one request), `session` (one command's way to it), `write` (a change of a VM and
//!   the wait behind it);
//! - the terminal: `output`, `progress`, and the user's shell: `completion`;
//! - the commands: `status`, `vm`, `node`, `local`, `cluster`, `ticket`, `join`.
//!
//! What needs the store's formats (`files`), or systemd (`local`), is handed in by the program. Never here:
//! decisions about the cluster, and anything of a running agent that the local API does not offer to others
//! too.

mod args;
mod check;
mod client;
mod cluster;
mod completion;
mod failure;
mod files;
mod join;
mod lease;
mod local;
mod node;
mod output;
mod progress;
#[cfg(test)]
mod sample;
mod session;
mod show;
mod spec;
mod status;
mod text;
mod ticket;
mod vm;
mod wait;
mod write;

use std::error::Error;
use std::process::ExitCode;

use blixard_model::words::with_causes;

pub use self::args::{
    AgentArgs, KeygenArgs, LastResortArgs, OfflineArgs, RestoreArgs, VmChildArgs, VmRunArgs,
};
use self::args::{CliCommand, ClientCommand};
pub use self::failure::Failure;
pub use self::files::{CheckedBackup, ClusterFiles};
pub use self::local::{LocalUnits, LocalWork};
/// What a [`LocalUnits`] is asked for and answers with.
pub use blixard_model::{
    VmName,
    local::{LocalListing, LocalStop},
};

/// What the arguments of the process ask it to be.
#[derive(Debug)]
pub enum Asked {
    /// This machine's agent.
    Agent(AgentArgs),
    /// The one that makes this node's key.
    Keygen(KeygenArgs),
    /// The supervisor of a VM.
    VmRun(VmRunArgs),
    /// The hypervisor of a VM, under its supervisor.
    VmChild(VmChildArgs),
    /// The hypervisor of a VM, without a supervisor.
    VmExec(VmName),
    /// The one that waits until the hypervisor of a VM says running.
    VmWait(VmName),
    /// The one that stops the hypervisor of a VM without a supervisor.
    VmStop(VmName),
    /// The one that removes what systemd keeps of a deleted VM's limits.
    VmForget(VmName),
    /// The one that restarts the machine where SIGKILL does not end a VM.
    LastResort(LastResortArgs),
    /// A command of this crate; [`run`] does it.
    Client(ClientRun),
}

/// A client command with its arguments.
#[derive(Debug)]
pub struct ClientRun {
    command: ClientCommand,
    json: bool,
}

/// What the arguments of the process ask for.
///
/// # Errors
/// The exit code, after the text was printed: 0 for help, version and completions, 2 for what is not
/// understood.
pub fn parse() -> Result<Asked, ExitCode> {
    if completion::answer(args::command, std::env::args_os()).map_err(not_understood)? {
        return Err(ExitCode::SUCCESS);
    }
    let args::Cli { json, command } = args::parse(std::env::args_os()).map_err(not_understood)?;
    Ok(match command {
        CliCommand::Agent(args) => Asked::Agent(args),
        CliCommand::Keygen(args) => Asked::Keygen(args),
        CliCommand::VmRun(args) => Asked::VmRun(args),
        CliCommand::VmChild(args) => Asked::VmChild(args),
        CliCommand::VmExec(args) => Asked::VmExec(args.name),
        CliCommand::VmWait(args) => Asked::VmWait(args.name),
        CliCommand::VmStop(args) => Asked::VmStop(args.name),
        CliCommand::VmForget(args) => Asked::VmForget(args.name),
        CliCommand::LastResort(args) => Asked::LastResort(args),
        CliCommand::Client(command) => Asked::Client(ClientRun { command, json }),
    })
}

/// Prints help, a version, or what is not understood.
fn not_understood(error: clap::Error) -> ExitCode {
    let code = error.exit_code();
    if code != 0 && args::asks_for_json(std::env::args_os()) {
        let text = error.render().to_string();
        let cause = text.split("\n\nUsage:").next().unwrap_or(&text).trim().trim_start_matches("error: ");
        output::note(&Failure::usage(cause, "try --help").render(true));
    } else {
        // Help goes to stdout, where nobody may read; there is nothing to do about that.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(code).unwrap_or(2))
}

/// Runs a client command to its end and says how it ended.
pub fn run(
    ClientRun { command, json }: ClientRun,
    files: &dyn ClusterFiles,
    units: &dyn LocalUnits,
) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(json, Err(Failure::unavailable(format!("no runtime: {error}"), ""))),
    };
    end(json, runtime.block_on(dispatch(command, json, (files, units))))
}

/// Prints an error of a command that is no client's.
pub fn complain(error: &(dyn Error + 'static)) {
    output::note(&Failure::refused(with_causes(error), "").human());
}

fn end(json: bool, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(&failure.render(json));
            failure.exit_code()
        }
    }
}

async fn dispatch(
    command: ClientCommand,
    json: bool,
    (files, units): (&dyn ClusterFiles, &dyn LocalUnits),
) -> Result<(), Failure> {
    match command {
        ClientCommand::Status(args) => status::run(args, json).await,
        ClientCommand::Node(command) => node::run(command, json).await,
        ClientCommand::Vm(command) => vm::run(*command, json).await,
        ClientCommand::Local(command) => local::run(command, json, units).await,
        ClientCommand::Cluster(command) => cluster::run(command, json, files).await,
        ClientCommand::Completions(args) => output::print(&completion::script(args.shell.name())?),
    }
}
