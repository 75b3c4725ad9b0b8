//! Hands over to the lab's own harness, `vm-tests/lab`, after what it needs is there.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::place::Place;
use crate::privilege::Privilege;
use crate::setup;

/// The harness' verbs that start machines, and so want an agent that is built and packages that are there.
const STARTING: [&str; 3] = ["up", "run", "all"];

/// The harness with these words, as root. It cleans up after itself, whatever ends it.
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
    // No compiled files beside the sources, where root's would be in everybody's way.
    command.arg("-B").arg(place.root().join("vm-tests").join("lab")).current_dir(place.root());
    command
}

/// Becomes the harness: signals and the terminal are its own from there.
///
/// # Errors
/// When it cannot be started.
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
