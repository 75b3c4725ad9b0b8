//! The clap tree: every subcommand, its flags and its help text. Parses, decides nothing.

mod cluster;

use std::path::PathBuf;
use std::time::Duration;

use blixard_model::api::DEFAULT_SOCKET;
use blixard_model::id::{NodeName, RequestId, VmName};
use blixard_model::vm::{Disk, Hypervisor};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::cluster::{
    BackupArgs, ClusterCommand, JoinArgs, LeaveArgs, RecoverArgs, TicketCommand, TicketCreateArgs,
    TicketRevokeArgs,
};
pub use self::cluster::{OfflineArgs, RestoreArgs};

/// Longest `--timeout`, in seconds (one day).
const TIMEOUT_S_MAX: i64 = 86_400;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused
  2  usage: not understood
  3  nothing happened (no quorum, or the agent is not reachable)
  4  the outcome is not known; sending the same --request-id again is safe";

/// A few machines as one home for microVMs.
#[derive(Debug, Parser)]
#[command(name = "blixard", version, about, after_help = EXIT_CODES, max_term_width = 110)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the binary is asked to be.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs this machine's agent (blixard.service does this)
    Agent(AgentArgs),
    /// Makes this node's key if there is none and prints its endpoint id
    Keygen(KeygenArgs),
    /// Becomes the hypervisor of a VM (ExecStart of blixard-vm@.service)
    #[command(hide = true)]
    VmExec(VmUnitArgs),
    /// Returns once the hypervisor of a VM says running (ExecStartPost)
    #[command(hide = true)]
    VmWait(VmUnitArgs),
    /// Stops the hypervisor of a VM gracefully (ExecStop)
    #[command(hide = true)]
    VmStop(VmUnitArgs),
    /// Removes what systemd keeps of a deleted VM's limits (blixard-vm-forget@.service)
    #[command(hide = true)]
    VmForget(VmUnitArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

/// What is asked of a running agent, or of nobody (`completions`).
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Shows this node and its cluster; answers without a quorum too
    Status(StatusArgs),
    /// The cluster's nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// The cluster's VMs
    #[command(subcommand)]
    Vm(Box<VmCommand>),
    /// The cluster as a whole: joining and leaving it, backups, and what to do when it is lost
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Prints a completion script, for example: blixard completions fish | source
    Completions(CompletionsArgs),
}

const AGENT_EXIT_CODES: &str = "\
Exit codes:
  0   it was told to stop
  1   an error
  65  the store counts as lost: it went back in time, or the cluster has let it go
  74  the disk of the data directory failed
  75  the disk of the data directory is full";

/// Arguments of `blixard agent`.
#[derive(Debug, Args)]
#[command(after_help = AGENT_EXIT_CODES)]
pub struct AgentArgs {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE", default_value = "/etc/blixard/config.toml")]
    pub config: PathBuf,
    /// Only checks the configuration: exits with 0 when an agent could start with it
    #[arg(long)]
    pub check_config: bool,
}

/// Arguments of `blixard keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Where the key is or shall be
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub key_file: Option<PathBuf>,
    /// Takes the place of the key from this configuration [default: /etc/blixard/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VmUnitArgs {
    /// The VM, the instance name of its unit
    #[arg(value_name = "NAME")]
    pub(crate) name: VmName,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Lists the members with role, reach and what they offer
    List(ListArgs),
    /// Removes a node from the cluster for good
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The node
    #[arg(value_name = "NAME")]
    pub(crate) name: NodeName,
    /// It does not answer and will not come back
    #[arg(long)]
    pub(crate) force: bool,
    /// What becomes of the VMs placed there: 'delete' forgets them, 'keep' leaves them to a node of that name
    #[arg(long, value_name = "FATE", requires = "force")]
    pub(crate) vms: Option<Fate>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// What becomes of VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fate {
    Delete,
    Keep,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Makes a VM and places it, without starting it
    Create(CreateArgs),
    /// Makes a VM, starts it and waits until it runs
    Run(RunArgs),
    /// Lists the VMs
    List(ListArgs),
    /// Shows one VM
    Show(ShowArgs),
    /// Starts a stopped VM
    Start(ChangeArgs),
    /// Stops a VM; it keeps its name, disks and reservation
    Stop(ChangeArgs),
    /// Stops a VM and forgets it (its disk files stay)
    Delete(ChangeArgs),
    /// Prints a VM's console
    Logs(LogsArgs),
}

/// How the agent is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct SocketArgs {
    /// The agent's socket
    #[arg(long, value_name = "PATH", env = "BLIXARD_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
}

/// What commands with one answer share.
#[derive(Debug, Clone, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    pub(crate) at: SocketArgs,
    /// Prints one JSON document instead of text; errors are JSON on stderr then
    #[arg(long)]
    pub(crate) json: bool,
    /// Longest time of the whole command [default: 30, or 120 for one that waits]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..=TIMEOUT_S_MAX))]
    pub(crate) timeout: Option<u32>,
}

const STATUS_HELP: &str = "\
With --watch it goes on until Ctrl-C, also while the agent does not answer,
and ends with 0. On a pipe each look begins with a line '--- TIME'. With
--json each look is one line; errors go to stderr.

Exit codes:
  0  the agent answered, whatever it said; with --check: nothing needs a look
  1  with --check: something does, which one line on stderr names: no quorum,
     a member that is unreachable or lost, a warning, or something that fails
     for longer than a minute
  2  usage: not understood
  3  the agent did not answer";

#[derive(Debug, Args)]
#[command(after_help = STATUS_HELP)]
pub(crate) struct StatusArgs {
    /// Shows it again and again until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    /// Seconds between two looks, 0.2 to 3600 [default: 2]
    #[arg(long, value_name = "SECS", requires = "watch", value_parser = parse_interval)]
    pub(crate) interval: Option<Duration>,
    /// Prints nothing and exits with 1 when something needs a look, for monitoring
    #[arg(long, conflicts_with = "watch")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.2..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "not a number from 0.2 to 3600".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) fresh: FreshArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The VM
    #[arg(value_name = "NAME")]
    pub(crate) name: VmName,
    #[command(flatten)]
    pub(crate) fresh: FreshArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct FreshArgs {
    /// Reads what this node knows without asking a quorum: works alone, may be old
    #[arg(long)]
    pub(crate) stale: bool,
}

/// What every write takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct WriteArgs {
    /// Names this request: the same id sent again is applied once [default: a random one]
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<RequestId>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WaitArgs {
    /// Waits until it is so, the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Returns as soon as the cluster has accepted it
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

impl WaitArgs {
    /// Whether to wait: yes unless `--no-wait` is the last word.
    pub(crate) fn wanted(self) -> bool {
        self.wait || !self.no_wait
    }
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// The VM
    #[arg(value_name = "NAME")]
    pub(crate) name: VmName,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// What a VM shall be. Flags win over the file; paths name files of the node it will run on.
#[derive(Debug, Default, Args)]
pub(crate) struct SpecArgs {
    /// Its name: 1 to 48 of a-z, 0-9 and '-', beginning with a letter
    #[arg(value_name = "NAME", required_unless_present = "file")]
    pub(crate) name: Option<VmName>,
    /// Reads the spec (JSON, as `vm show --json` has it under "spec") from a file; '-' is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Virtual cpus [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Guest memory in MiB [default: 256]
    #[arg(long, value_name = "N")]
    pub(crate) memory_mib: Option<u64>,
    /// Kernel image
    #[arg(long, value_name = "PATH", required_unless_present = "file")]
    pub(crate) kernel: Option<String>,
    /// Initramfs
    #[arg(long, value_name = "PATH")]
    pub(crate) initrd: Option<String>,
    /// Words added to the kernel's command line
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) cmdline: Option<String>,
    /// A raw disk under a disk directory, with ':ro' read-only; may be given several times
    #[arg(long = "disk", value_name = "PATH[:ro]", value_parser = parse_disk)]
    pub(crate) disks: Vec<Disk>,
    /// Runs on this node and no other
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<NodeName>,
    /// What runs it: qemu [default: qemu]
    #[arg(long, value_name = "NAME")]
    pub(crate) hypervisor: Option<Hypervisor>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The VM
    #[arg(value_name = "NAME")]
    pub(crate) name: VmName,
    /// Goes on with new lines until Ctrl-C
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
    /// Begins with the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) lines: Option<u32>,
    #[command(flatten)]
    pub(crate) at: SocketArgs,
    /// Longest time of the whole command [default: 30]
    #[arg(long, value_name = "SECS", conflicts_with = "follow")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=TIMEOUT_S_MAX))]
    pub(crate) timeout: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// The shells that completions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `PATH`, `PATH:ro` or `PATH:rw`; whether the path can be is checked with the rest of the spec.
fn parse_disk(text: &str) -> Result<Disk, String> {
    let (path, read_only) = match text.rsplit_once(':') {
        Some((path, "ro")) => (path, true),
        Some((path, "rw")) => (path, false),
        _ => (text, false),
    };
    if path.is_empty() {
        return Err("the path is missing: write PATH or PATH:ro".to_owned());
    }
    Ok(Disk { path: path.to_owned(), read_only })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_disk_is_a_path_with_an_optional_mode() {
        let disk = |path: &str, read_only| Ok(Disk { path: path.to_owned(), read_only });
        assert_eq!(parse_disk("/d/a.raw"), disk("/d/a.raw", false));
        assert_eq!(parse_disk("/d/a.raw:ro"), disk("/d/a.raw", true));
        assert_eq!(parse_disk("/d/a.raw:rw"), disk("/d/a.raw", false));
        assert_eq!(parse_disk("/d/a:b"), disk("/d/a:b", false));
        assert!(parse_disk(":ro").is_err());
        assert!(parse_disk("").is_err());
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
            let Command::Client(ClientCommand::Vm(command)) = command else { panic!("not vm: {command:?}") };
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
}
