//! The clap tree: every command, its flags and its help text. Parses, decides nothing.
//!
//! One file for each group of commands, `shared` for the flags that several take. What all commands have in
//! common is added to the finished tree by [`command`].

mod cluster;
mod local;
mod node;
mod shared;
mod status;
mod ticket;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;

use blixard_model::id::VmName;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub(crate) use self::cluster::{
    ArmArgs, BackupArgs, ClusterCommand, DisarmArgs, JoinArgs, LeaseArgs, LeaveArgs, RecoverArgs,
};
pub use self::cluster::{OfflineArgs, RestoreArgs};
pub(crate) use self::local::{LocalCommand, LocalListArgs, LocalStopArgs};
pub(crate) use self::node::{Fate, NodeCommand, RemoveArgs};
pub(crate) use self::shared::{AskArgs, FreshArgs, ListArgs, WriteArgs};
pub(crate) use self::status::StatusArgs;
pub(crate) use self::ticket::{TicketCommand, TicketCreateArgs, TicketRevokeArgs};
pub(crate) use self::vm::{
    ChangeArgs, CreateArgs, LogsArgs, RunArgs, SetArgs, ShowArgs, SpecArgs, VmCommand,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, or it failed
  2  the command line is wrong
  3  nothing happened: no quorum, or the agent cannot be reached
  4  the outcome is not known";

/// What follows [`EXIT_CODES`] where a request can be repeated under its id.
const REPEATING_IS_SAFE: &str = ": repeating the command with the same --request-id is safe";

const AGENT_EXIT_CODES: &str = "\
Exit codes:
  0   it was told to stop
  1   an error
  65  the store counts as lost: it is older than it was, or the cluster has let it go
  74  the disk of the data directory failed
  75  the disk of the data directory is full";

/// Where the global flag stands among the others: behind them, before `--help`.
const GLOBAL_ORDER: usize = 900;

/// A few machines as one home for microVMs
#[derive(Debug, Parser)]
#[command(name = "blixard", version, about, max_term_width = 110, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Prints one JSON document instead of text, and errors as JSON on stderr
    #[arg(long, global = true, display_order = GLOBAL_ORDER)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// What the program is asked to be.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Runs this machine's agent; blixard.service does this
    #[command(after_help = AGENT_EXIT_CODES)]
    Agent(AgentArgs),
    /// Prints this node's endpoint id; makes its key first if there is none
    Keygen(KeygenArgs),
    /// Runs a VM and supervises it (ExecStart of blixard-vm@.service)
    #[command(hide = true)]
    VmRun(VmRunArgs),
    /// Becomes the hypervisor under the supervisor of a VM
    #[command(hide = true)]
    VmChild(VmChildArgs),
    /// Becomes the hypervisor of a VM (ExecStart of an older blixard-vm@.service)
    #[command(hide = true)]
    VmExec(VmUnitArgs),
    /// Returns once the hypervisor of a VM says running (ExecStartPost of an older one)
    #[command(hide = true)]
    VmWait(VmUnitArgs),
    /// Stops the hypervisor of a VM without a supervisor gracefully (ExecStop)
    #[command(hide = true)]
    VmStop(VmUnitArgs),
    /// Removes what systemd keeps of a deleted VM's limits (blixard-vm-forget@.service)
    #[command(hide = true)]
    VmForget(VmUnitArgs),
    /// Restarts the machine where SIGKILL does not end a VM (blixard-last-resort.service)
    #[command(hide = true)]
    LastResort(LastResortArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

/// What is asked of a running agent, or of nobody (`completions`).
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Shows this node and its cluster; needs no quorum
    Status(StatusArgs),
    /// Lists and removes nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Creates, runs, shows, stops and deletes VMs
    #[command(subcommand)]
    Vm(Box<VmCommand>),
    /// Lists and stops the VMs of this machine, whatever the cluster does
    #[command(subcommand)]
    Local(LocalCommand),
    /// Joins and leaves a cluster, prepares for planned work, makes backups, and recovers a cluster that is
    /// lost
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Prints a script with which a shell completes commands and the names of VMs and nodes
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
}

/// Arguments of `blixard agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE", default_value = "/etc/blixard/config.toml")]
    pub config: PathBuf,
    /// Only checks the configuration; exits with 0 if an agent could start with it
    #[arg(long)]
    pub check_config: bool,
}

/// Arguments of `blixard last-resort`.
#[derive(Debug, Args)]
pub struct LastResortArgs {
    /// The configuration of the agent, in TOML: without `last_resort = "reboot"` there is nothing to do
    #[arg(long, value_name = "FILE", default_value = "/etc/blixard/config.toml")]
    pub config: PathBuf,
}

/// Arguments of `blixard keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The file that holds the key; made if it does not exist
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub key_file: Option<PathBuf>,
    /// Uses the key that this configuration names [default: /etc/blixard/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of the commands that a VM's unit runs.
#[derive(Debug, Args)]
pub(crate) struct VmUnitArgs {
    /// The VM, the instance name of its unit
    #[arg(value_name = "NAME")]
    pub(crate) name: VmName,
}

/// Arguments of the command that supervises a VM.
#[derive(Debug, Args)]
pub struct VmRunArgs {
    /// The VM, the instance name of its unit
    #[arg(value_name = "NAME")]
    pub name: VmName,
    /// Where the agent's lease is, in tests; the unit does not give it
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub lease_dir: Option<PathBuf>,
}

/// Arguments of the command by which a supervisor starts the hypervisor.
#[derive(Debug, Args)]
pub struct VmChildArgs {
    /// The process id of the supervisor
    #[arg(value_name = "PID")]
    pub supervisor: i32,
    /// The hypervisor
    #[arg(value_name = "PROGRAM")]
    pub program: String,
    /// Its arguments
    #[arg(value_name = "ARGUMENT", last = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

const COMPLETIONS_HELP: &str = "\
Put one of these into the shell's start-up file:
  bash        source <(blixard completions bash)
  elvish      eval (blixard completions elvish | slurp)
  fish        blixard completions fish | source
  powershell  blixard completions powershell | Out-String | Invoke-Expression
  zsh         source <(blixard completions zsh)";

/// Arguments of `blixard completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: CompletionShell,
}

/// The shells that completions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl CompletionShell {
    /// Its name, as the user gives it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Elvish => "elvish",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Zsh => "zsh",
        }
    }
}

/// The whole tree. Each command's help ends with its exit codes, names its own default of `--timeout`, and
/// does not show `--json` where there is no document to print.
pub(crate) fn command() -> clap::Command {
    finish(Cli::command().after_help([EXIT_CODES, REPEATING_IS_SAFE].concat()), &[])
}

fn finish(tree: clap::Command, path: &[&str]) -> clap::Command {
    tree.mut_subcommands(|sub| {
        let name = sub.get_name().to_owned();
        let path = [path, &[name.as_str()]].concat();
        finish(finish_one(sub, &path), &path)
    })
}

fn finish_one(mut command: clap::Command, path: &[&str]) -> clap::Command {
    let has = |command: &clap::Command, id: &str| command.get_arguments().any(|arg| arg.get_id() == id);
    if command.get_after_help().is_none() && path != ["keygen"] {
        let repeating = if has(&command, "request_id") { REPEATING_IS_SAFE } else { "" };
        command = command.after_help([EXIT_CODES, repeating].concat());
    }
    let default = match path {
        _ if has(&command, "no_wait") => "120, or 30 with --no-wait",
        ["cluster", "backup"] | ["local", "stop"] => "120",
        _ => "30",
    };
    if has(&command, "timeout") {
        let help = format!("Gives up after this time [default: {default}]");
        command = command.mut_arg("timeout", |timeout| timeout.help(help));
    }
    if !prints_document(path) {
        // An argument of a command takes the place of the global one of the same id.
        command = command.arg(Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).hide(true));
    }
    command
}

/// Id and name of the global flag.
const JSON: &str = "json";

/// Whether `--json` has a meaning for the command at this path.
fn prints_document(path: &[&str]) -> bool {
    match path {
        ["vm", "logs"] | ["cluster", "restore" | "recover"] => false,
        [group, ..] => ["status", "node", "vm", "local", "cluster"].contains(group),
        [] => true,
    }
}

/// Parses a command line, whose first word is the program's name.
///
/// # Errors
/// It is not understood, or asks for help or the version.
pub(crate) fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut tree = command();
    let matches = tree.try_get_matches_from_mut(line)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut tree))?;
    let mut path = Vec::new();
    let mut at = matches.subcommand();
    while let Some((name, inner)) = at {
        path.push(name);
        at = inner.subcommand();
    }
    if cli.json && !prints_document(&path) {
        let why = format!("`blixard {}` prints no JSON: leave --json out", path.join(" "));
        return Err(tree.error(ErrorKind::ArgumentConflict, why));
    }
    Ok(cli)
}

/// Whether a command line that is not understood asks for JSON. The parser stops at the first fault, and the
/// flag may stand behind it: it is looked for among the words, up to a bare `--`.
pub(crate) fn asks_for_json(line: impl IntoIterator<Item = OsString>) -> bool {
    line.into_iter().take_while(|word| word != "--").any(|word| word == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        line.split_whitespace().map(OsString::from)
    }

    fn parse(line: &str) -> Result<CliCommand, clap::Error> {
        super::parse(words(line)).map(|cli| cli.command)
    }

    #[test]
    fn the_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn waiting_is_the_default_and_the_last_word_wins() {
        for (flags, wanted) in [
            ("", true),
            ("--wait", true),
            ("--no-wait", false),
            ("--no-wait --wait", true),
            ("--wait --no-wait", false),
        ] {
            let command = parse(&format!("blixard vm start web {flags}")).expect("valid");
            let CliCommand::Client(ClientCommand::Vm(command)) = command else {
                panic!("not vm: {command:?}")
            };
            let VmCommand::Start(args) = *command else { panic!("not vm start: {command:?}") };
            assert_eq!(args.wait.wanted(), wanted, "{flags:?}");
        }
    }

    #[test]
    fn names_are_checked_before_anything_is_sent() {
        let long = "a".repeat(300);
        for name in ["../x", "a;b", "A", long.as_str()] {
            for verb in ["show", "start", "stop", "delete", "logs"] {
                let error = parse(&format!("blixard vm {verb} {name}")).expect_err("invalid");
                assert_eq!(error.exit_code(), 2, "{verb} {name}");
            }
            assert!(parse(&format!("blixard vm run {name} --kernel /k")).is_err(), "{name}");
        }
    }

    #[test]
    fn a_spec_needs_a_name_and_a_kernel_or_a_file() {
        assert!(parse("blixard vm run web --kernel /k").is_ok());
        assert!(parse("blixard vm run --file spec.json").is_ok());
        assert!(parse("blixard vm run web").is_err());
        assert!(parse("blixard vm run --kernel /k").is_err());
    }

    #[test]
    fn a_kernel_command_line_may_begin_with_a_dash() {
        assert!(parse("blixard vm run web --kernel /k --cmdline -b").is_ok());
    }

    #[test]
    fn an_interval_is_bounded_and_needs_a_watch() {
        for (flags, ok) in [
            ("--watch", true),
            ("--watch --interval 0.2", true),
            ("--watch --interval 3600", true),
            ("--watch --json", true),
            ("--watch --interval 0.1", false),
            ("--watch --interval 3601", false),
            ("--watch --interval NaN", false),
            ("--watch --interval inf", false),
            ("--watch --interval -1", false),
            ("--interval 2", false),
            ("--watch --check", false),
            ("--check --json", true),
        ] {
            assert_eq!(parse(&format!("blixard status {flags}")).is_ok(), ok, "{flags}");
        }
    }

    #[test]
    fn followed_logs_have_no_deadline() {
        assert!(parse("blixard vm logs web --follow --timeout 3").is_err());
        assert!(parse("blixard vm logs web --lines 3 --timeout 3").is_ok());
    }

    #[test]
    fn json_may_stand_before_or_behind_the_command() {
        for line in [
            "blixard --json vm list",
            "blixard vm --json list",
            "blixard vm list --json",
            "blixard cluster ticket list --json",
            "blixard cluster ticket --json revoke 0123456789abcdef",
        ] {
            assert!(super::parse(words(line)).expect("valid").json, "{line}");
        }
        assert!(!super::parse(words("blixard vm list")).expect("valid").json);
    }

    #[test]
    fn json_is_refused_where_there_is_no_document() {
        for line in [
            "vm logs web",
            "completions bash",
            "agent",
            "keygen",
            "vm-run web",
            "cluster restore b",
            "cluster recover",
        ] {
            assert!(parse(&format!("blixard {line}")).is_ok(), "{line}");
            for line in [format!("blixard --json {line}"), format!("blixard {line} --json")] {
                let error = parse(&line).expect_err("no document");
                assert!(error.exit_code() == 2 && error.to_string().contains("prints no JSON"), "{line}");
            }
        }
    }

    #[test]
    fn json_is_found_on_a_line_that_is_not_understood() {
        for (line, found) in [
            ("blixard vm start ../x --json", true),
            ("blixard --json vm strat", true),
            ("blixard vm list --frobnicate=1 -x --json --json", true),
            ("blixard vm start ../x", false),
            ("blixard vm start -- --json", false),
            ("blixard", false),
        ] {
            assert_eq!(asks_for_json(words(line)), found, "{line}");
        }
    }

    #[test]
    fn every_command_has_help_and_its_exit_codes() {
        fn check(command: &clap::Command) {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name}");
            let codes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(codes.contains("Exit codes:") || ["keygen", "completions"].contains(&name), "{name}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty() && !help.ends_with('.'), "{name} {}: {help:?}", argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }
}
