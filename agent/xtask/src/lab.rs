//! Hands over to the lab's own harness, `vm-tests/lab`, once everything that it needs is there.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::place::Place;
use crate::privilege::Privilege;
use crate::setup;

/// The harness's subcommands that start machines. They need a built agent and the packages.
const STARTING: [&str; 5] = ["up", "run", "all", "measure", "lease-cost"];

/// The command that runs the harness, as root. The harness cleans up after itself, whatever ends it.
pub(crate) fn harness(place: &Place, root: Privilege) -> Command {
    let agent = place.agent();
    let mut command = root.command(
        "python3",
        &[
            ("CARGO_TARGET_DIR", place.target().as_os_str()),
            ("BLIXARD_LAB_BINARY", agent.as_os_str()),
            ("TERM", &std::env::var_os("TERM").unwrap_or_else(|| "dumb".into())),
        ],
    );
    // With -B, Python writes no compiled files beside the sources, where files of root would be in
    // everybody's way.
    command.arg("-B").arg(place.root().join("vm-tests").join("lab")).current_dir(place.root());
    command
}

/// Replaces this process by the harness, which has the signals and the terminal from then on.
///
/// # Errors
/// When the harness cannot be started.
pub(crate) fn become_harness(mut command: Command) -> Result<Infallible> {
    Err(command.exec()).context("python3 could not be run")
}

/// `cargo xtask lab WORDS`.
///
/// # Errors
/// When setup or the build fails.
pub(crate) fn run(place: &Place, words: &[String]) -> Result<ExitCode> {
    if words.first().is_some_and(|verb| STARTING.contains(&verb.as_str())) {
        setup::ensure(setup::LAB)?;
        place.build_agent()?;
    }
    let mut command = harness(place, Privilege::find(false)?);
    command.args(words);
    match become_harness(command)? {}
}
