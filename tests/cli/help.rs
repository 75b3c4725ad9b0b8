//! What the program says about itself.

use std::path::Path;

use blixard_model::api::DEFAULT_SOCKET;

use crate::binary::run;

#[track_caller]
fn says(args: &[&str], needles: &[&str]) -> String {
    let run = run(Path::new("/nonexistent"), args);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{args:?}: {run:?}");
    for needle in needles {
        assert!(run.stdout.contains(needle), "{args:?}: no {needle:?} in {}", run.stdout);
    }
    run.stdout
}

#[test]
fn help_names_the_commands_and_the_exit_codes() {
    let text = says(
        &["--help"],
        &[
            "agent",
            "keygen",
            "status",
            "node",
            "vm",
            "local",
            "cluster",
            "completions",
            "Exit codes",
            "4  the outcome is not known",
            "--json",
        ],
    );
    for hidden in ["vm-run", "vm-child", "vm-exec", "vm-wait", "vm-stop", "vm-forget", "last-resort"] {
        assert!(!text.contains(hidden), "{text}");
    }
    says(&["vm", "--help"], &["create", "run", "list", "show", "start", "stop", "delete", "logs"]);
    says(&["vm", "run", "--help"], &["--restart", "[possible values: always, on-failure, never]"]);
    says(&["local", "--help"], &["list", "stop", "no agent"]);
    says(&["local", "stop", "--help"], &["--config", "--timeout", "[default: 120]", "--json"]);
    says(&["cluster", "--help"], &["backup", "restore", "recover"]);
    says(&["cluster", "backup", "--help"], &["--stale", "--force", "--json", "'-' is stdout"]);
    says(&["cluster", "restore", "--help"], &["--as-new", "--config", "/etc/blixard/config.toml"]);
    says(&["cluster", "recover", "--help"], &["--i-know-the-others-are-gone", "--config"]);
    says(&["agent", "--help"], &["--config", "--check-config"]);
    says(&["status", "--help"], &["--watch", "--interval", "--check", "with --check: something needs"]);
    says(&["keygen", "--help"], &["--key-file", "--config"]);
}

#[test]
fn help_of_every_command_names_its_exit_codes() {
    for args in [
        &["vm", "--help"][..],
        &["vm", "list", "--help"],
        &["node", "remove", "--help"],
        &["cluster", "join", "--help"],
        &["cluster", "ticket", "create", "--help"],
    ] {
        let text = says(args, &["Exit codes:", "3  nothing happened", "4  the outcome is not known\n"]);
        assert!(!text.contains("--request-id"), "it has none: {text}");
    }
    says(
        &["vm", "run", "--help"],
        &["the same --request-id is safe", "[default: 120, or 30 with --no-wait]"],
    );
    says(&["vm", "list", "--help"], &["[default: 30]"]);
    for args in [&["vm", "logs", "--help"][..], &["agent", "--help"], &["cluster", "recover", "--help"]] {
        let text = says(args, &["Exit codes:"]);
        assert!(!text.contains("--json"), "there is no document: {text}");
    }
}

#[test]
fn help_of_a_write_says_how_it_waits_and_how_it_is_repeated() {
    let flags = ["--request-id", "--timeout", "--no-wait", "--json", "--socket", "BLIXARD_SOCKET"];
    for verb in ["run", "start", "stop", "delete"] {
        says(&["vm", verb, "--help"], &flags);
    }
    says(&["vm", "run", "--help"], &["--cpus", "--memory-mib", "--kernel", "--disk", "--node", "--file"]);
    says(&["vm", "logs", "--help"], &["--follow", "--lines"]);
    says(&["vm", "list", "--help"], &["--stale", "--json"]);
}

#[test]
fn the_old_command_name_token_still_works_but_is_hidden() {
    let help = says(&["cluster", "--help"], &["  ticket  "]);
    assert!(!help.contains("token"), "{help}");
    for verb in ["create", "list", "revoke"] {
        let ticket = says(&["cluster", "ticket", verb, "--help"], &[]);
        assert_eq!(says(&["cluster", "token", verb, "--help"], &[]), ticket);
    }
}

#[test]
fn the_module_and_the_documents_name_the_socket_that_the_program_uses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    for file in ["modules/options.nix", "agent/docs/operations.md", "agent/docs/metrics.md"] {
        let text = std::fs::read_to_string(root.join(file)).expect("readable");
        assert!(text.contains(DEFAULT_SOCKET), "{file}");
    }
    says(&["status", "--help"], &[DEFAULT_SOCKET]);
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(says(&["--version"], &[]), format!("blixard {}\n", env!("CARGO_PKG_VERSION")));
}
