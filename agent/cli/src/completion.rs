//! Completion in the user's shell: the script that a shell reads, and what that script asks at each TAB.
//!
//! Commands and flags come from the clap tree, the names of VMs and nodes from the agent. An agent that does
//! not answer within a moment completes nothing, without a word.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use blixard_model::TicketState;
use blixard_model::api::{DEFAULT_SOCKET, Listing, NodeView, TicketView, VmView};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use serde::de::DeserializeOwned;

use crate::client::{Client, Deadline};
use crate::failure::Failure;

/// Set by the script, to the shell's name, when the program is to complete a line.
const VARIABLE: &str = "BLIXARD_COMPLETE";
/// The program, as the user types it and as the script runs it.
const PROGRAM: &str = "blixard";
/// How long the agent may take to name what it has.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// zsh runs the script itself as the completion function when it is loaded from a directory of `$fpath`.
const ZSH_AUTOLOAD: &str = r#"
if [ "$funcstack[1]" = "_blixard" ]; then
    _clap_dynamic_completer_blixard "$@"
fi
"#;

/// The script for a shell.
///
/// # Errors
/// There is none for this shell.
pub(crate) fn script(shell: &str) -> Result<String, Failure> {
    let unknown = || Failure::usage(format!("there are no completions for {shell}"), "");
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or_else(unknown)?;
    let mut script = Vec::new();
    completer
        .write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)
        .map_err(|error| Failure::unavailable(format!("the script cannot be written: {error}"), ""))?;
    if shell == "zsh" {
        script.extend_from_slice(ZSH_AUTOLOAD.as_bytes());
    }
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// Completes a line, if the script asks for that. Whether it did.
///
/// # Errors
/// The shell is not known, or nobody reads the answer.
pub(crate) fn answer(
    tree: fn() -> clap::Command,
    line: impl IntoIterator<Item = OsString>,
) -> Result<bool, clap::Error> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(tree)
        .var(VARIABLE)
        .bin(PROGRAM)
        .completer(PROGRAM)
        .try_complete(line, here.as_deref())
}

/// Completes the name of a VM, with its state and node beside it.
pub(crate) fn vm_names() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        candidates("/v1/vms?stale=true", typed, |vm: &VmView| {
            Some((vm.name.to_string(), format!("{} on {}", vm.state, vm.node)))
        })
    })
}

/// Completes the name of a node, with its addresses beside it.
pub(crate) fn node_names() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        candidates("/v1/nodes?stale=true", typed, |node: &NodeView| {
            let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
            Some((node.name.to_string(), addresses.join(", ")))
        })
    })
}

/// Completes the id of a ticket that admits somebody.
pub(crate) fn ticket_ids() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        candidates("/v1/tickets?stale=true", typed, |ticket: &TicketView| {
            let only =
                ticket.name.as_ref().map_or_else(|| "any node".to_owned(), |name| format!("node {name}"));
            (ticket.state == TicketState::Open).then(|| (ticket.id.to_string(), format!("for {only}")))
        })
    })
}

/// What begins with `typed`, of what the agent has.
fn candidates<T: DeserializeOwned>(
    path: &str,
    typed: &OsStr,
    value: impl Fn(&T) -> Option<(String, String)>,
) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let items = ask::<T>(path).map_or_else(Vec::new, |list| list.items);
    let begins = |(value, _): &(String, String)| value.starts_with(typed);
    let candidate = |(value, help): (String, String)| CompletionCandidate::new(value).help(Some(help.into()));
    items.iter().filter_map(value).filter(begins).map(candidate).collect()
}

fn ask<T: DeserializeOwned>(path: &str) -> Option<Listing<T>> {
    let socket = std::env::var_os("BLIXARD_SOCKET").map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(Client::new(&socket).get(path, Deadline::after(ANSWER_TIMEOUT))).ok()
}
