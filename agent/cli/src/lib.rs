//! The command line: the clap tree of the whole binary, and the client commands.
//!
//! A client command asks the agent over its Unix socket and shows the answer. Pure parts (`args`, `spec`,
//! `wait`, `table`, `check`, `text`, `failure`) are apart from those that talk (`client`, `status`, `vm`,
//! `cluster`, `members`) and print (`output`, `progress`). What needs the store's formats is handed in by the
//! binary (`files`). What is never here: decisions about the cluster, and anything of a running agent that
//! the local API does not offer to others too.

mod args;
mod check;
mod client;
mod cluster;
mod failure;
mod files;
mod members;
mod output;
mod progress;
#[cfg(test)]
mod sample;
mod spec;
mod status;
mod table;
mod text;
mod vm;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use blixard_model::api::{Listing, NodeView};
use blixard_model::id::VmName;
use clap::{CommandFactory, Parser};
use serde::Serialize;

pub use self::args::{AgentArgs, KeygenArgs, OfflineArgs, RestoreArgs};
use self::args::{
    AskArgs, Cli, ClientCommand, Command, CompletionsArgs, FreshArgs, ListArgs, NodeCommand, Shell, VmCommand,
};
use self::client::{Client, Deadline};
pub use self::failure::Failure;
pub use self::files::{CheckedBackup, ClusterFiles};

/// What the arguments of the process ask it to be.
#[derive(Debug)]
pub enum Asked {
    /// This machine's agent.
    Agent(AgentArgs),
    /// The one that makes this node's key.
    Keygen(KeygenArgs),
    /// The hypervisor of a VM.
    VmExec(VmName),
    /// The one that waits until the hypervisor of a VM says running.
    VmWait(VmName),
    /// The one that stops the hypervisor of a VM.
    VmStop(VmName),
    /// The one that removes what systemd keeps of a deleted VM's limits.
    VmForget(VmName),
    /// A command of this crate; [`run`] does it.
    Client(ClientRun),
}

/// A client command with its arguments.
#[derive(Debug)]
pub struct ClientRun(ClientCommand);

/// What the arguments of the process ask for.
///
/// # Errors
/// The exit code, after the text was printed: 0 for help and version, 2 for what is not understood.
pub fn parse() -> Result<Asked, ExitCode> {
    let command = Cli::try_parse().map(|cli| cli.command).map_err(not_understood)?;
    Ok(match command {
        Command::Agent(args) => Asked::Agent(args),
        Command::Keygen(args) => Asked::Keygen(args),
        Command::VmExec(args) => Asked::VmExec(args.name),
        Command::VmWait(args) => Asked::VmWait(args.name),
        Command::VmStop(args) => Asked::VmStop(args.name),
        Command::VmForget(args) => Asked::VmForget(args.name),
        Command::Client(command) => Asked::Client(ClientRun(command)),
    })
}

/// Prints help, a version, or what is not understood.
fn not_understood(error: clap::Error) -> ExitCode {
    let code = error.exit_code();
    let json = std::env::args_os().skip(1).any(|arg| arg == "--json");
    if code != 0 && json {
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
pub fn run(ClientRun(command): ClientRun, files: &dyn ClusterFiles) -> ExitCode {
    let json = wants_json(&command);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(json, Err(Failure::unavailable(format!("no runtime: {error}"), ""))),
    };
    end(json, runtime.block_on(dispatch(command, files)))
}

/// Prints an error of a command that is no client's.
pub fn complain(cause: &str) {
    output::note(&Failure::refused(cause, "").human());
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

async fn dispatch(command: ClientCommand, files: &dyn ClusterFiles) -> Result<(), Failure> {
    match command {
        ClientCommand::Status(args) => status::run(args).await,
        ClientCommand::Node(NodeCommand::List(args)) => node_list(args).await,
        ClientCommand::Node(NodeCommand::Remove(args)) => members::remove(args).await,
        ClientCommand::Vm(command) => vm::run(*command).await,
        ClientCommand::Cluster(command) => cluster::run(command, files).await,
        ClientCommand::Completions(args) => completions(&args),
    }
}

fn wants_json(command: &ClientCommand) -> bool {
    match command {
        ClientCommand::Status(args) => args.ask.json,
        ClientCommand::Node(NodeCommand::List(args)) => args.ask.json,
        ClientCommand::Node(NodeCommand::Remove(args)) => args.ask.json,
        ClientCommand::Cluster(command) => cluster::wants_json(command),
        ClientCommand::Completions(_) => false,
        ClientCommand::Vm(command) => match &**command {
            VmCommand::List(args) => args.ask.json,
            VmCommand::Show(args) => args.ask.json,
            VmCommand::Create(args) => args.write.ask.json,
            VmCommand::Run(args) => args.write.ask.json,
            VmCommand::Start(args) | VmCommand::Stop(args) | VmCommand::Delete(args) => args.write.ask.json,
            VmCommand::Logs(_) => false,
        },
    }
}

async fn node_list(args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.ask.at.socket);
    let path = format!("/v1/nodes{}", stale_query(args.fresh));
    let list: Listing<NodeView> = client.get(&path, deadline_of(&args.ask, vm::ANSWER_TIMEOUT)).await?;
    print_list(&list, args.ask.json, table::node_list)
}

fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "blixard", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

fn deadline_of(ask: &AskArgs, default: Duration) -> Deadline {
    Deadline::after(ask.timeout.map_or(default, |seconds| Duration::from_secs(seconds.into())))
}

fn stale_query(fresh: FreshArgs) -> &'static str {
    if fresh.stale { "?stale=true" } else { "" }
}

/// Prints a list, and on stderr that it is stale where it is. In JSON the list says so itself.
fn print_list<T: Serialize>(
    list: &Listing<T>,
    json: bool,
    text: fn(&Listing<T>) -> String,
) -> Result<(), Failure> {
    if let Some(note) = table::stale_note(list) {
        output::note(&note);
    }
    if json { output::print_json(list) } else { output::print(&text(list)) }
}
