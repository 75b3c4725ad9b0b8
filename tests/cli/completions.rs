//! Completion: the scripts for the shells, and what the program answers when they ask it.

use std::path::Path;

use blixard_model::report::ObservedState::Running;
use blixard_model::vm::Desired;

use super::fake_agent::{FakeAgent, Reply};
use super::views;
use crate::binary::{self, Run};

/// What bash is offered for the last word of a command line.
fn offered(socket: &Path, line: &[&str]) -> Vec<String> {
    let mut command = binary::command(socket, &[&["--", "blixard"], line].concat());
    let index = line.len().to_string();
    command.env("BLIXARD_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index);
    let run: Run = command.output().expect("runs").into();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{line:?}: {run:?}");
    run.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn every_shell_has_a_script_that_asks_the_program() {
    for (shell, needle) in [
        ("bash", "complete -o nospace"),
        ("elvish", "edit:completion:arg-completer"),
        ("fish", "complete --keep-order"),
        ("powershell", "Register-ArgumentCompleter"),
        ("zsh", "#compdef blixard"),
    ] {
        let run = binary::run(Path::new("/nonexistent"), &["completions", shell]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
        assert!(run.stdout.contains(needle) && run.stdout.contains("BLIXARD_COMPLETE"), "{shell}: {run:?}");
    }
    let unknown = binary::run(Path::new("/nonexistent"), &["completions", "csh"]);
    unknown.ends(2, "possible values: bash, elvish, fish, powershell, zsh");
}

#[test]
fn commands_and_flags_are_completed_without_an_agent_and_hidden_ones_are_not() {
    let nowhere = Path::new("/nonexistent/a.sock");
    assert_eq!(offered(nowhere, &["v"]), ["vm"]);
    assert_eq!(offered(nowhere, &["vm", "st"]), ["start", "stop"]);
    assert_eq!(offered(nowhere, &["cluster", "t"]), ["ticket"]);
    assert_eq!(offered(nowhere, &["vm", "list", "--st"]), ["--stale"]);
    assert_eq!(offered(nowhere, &["node", "remove", "n3", "--vms", ""]), ["delete", "keep"]);
    assert!(!offered(nowhere, &["vm", "logs", "--"]).contains(&"--json".to_owned()));
}

#[test]
fn names_are_completed_only_with_an_agent() {
    let agent = FakeAgent::new(|seen| match seen.what.as_str() {
        "GET /v1/vms?stale=true" => Reply::json(&views::listing(
            ["web", "web-2", "db"].map(|name| views::vm(name, Desired::Running, Running)).to_vec(),
        )),
        "GET /v1/nodes?stale=true" => Reply::json(&views::listing(["n1", "n2"].map(views::node).to_vec())),
        _ => Reply::Break,
    });
    for verb in ["show", "start", "stop", "delete", "logs"] {
        assert_eq!(offered(&agent.socket(), &["vm", verb, "w"]), ["web", "web-2"]);
    }
    assert_eq!(offered(&agent.socket(), &["node", "remove", "n"]), ["n1", "n2"]);
    assert_eq!(offered(&agent.socket(), &["vm", "run", "x", "--node", ""]), ["n1", "n2"]);
    assert_eq!(offered(Path::new("/nonexistent/a.sock"), &["vm", "show", "w"]), [""; 0]);
}
