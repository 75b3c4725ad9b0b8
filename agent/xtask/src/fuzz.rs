//! `cargo xtask fuzz`: runs the targets that give hostile bytes to the decoders, for longer than `cargo test`
//! does.
//!
//! A target is a test named `fuzz_TARGET`; `agent/hostile` says what is watched.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::place::Place;

/// The result of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// The target's name.
    target: String,
    /// How many inputs it executed.
    executions: u64,
    /// The rest of the target's line: time, outcomes, memory, seed.
    words: String,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16} {:>10} {}", self.target, self.executions, self.words)
    }
}

impl Ran {
    /// Reads the line that a target prints last, `fuzz TARGET: N executions in ...`, which may stand anywhere
    /// in a line of the test runner.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let (_, told) = line.split_once("fuzz ")?;
        let (target, rest) = told.split_once(": ")?;
        let (executions, words) = rest.split_once(' ')?;
        let executions = executions.parse().ok()?;
        Some(Self { target: target.to_owned(), executions, words: words.to_owned() })
    }
}

/// The command that runs one target, or all of them, for `seconds` each.
pub(crate) fn command(place: &Place, seconds: u32, target: Option<&str>) -> Command {
    let mut cargo = place.cargo();
    cargo.env("BLIXARD_FUZZ_SECONDS", seconds.to_string());
    cargo.args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast", "--quiet", "--"]);
    cargo.arg(format!("fuzz_{}", target.unwrap_or_default().replace('-', "_"))).arg("--nocapture");
    cargo
}

/// Runs the targets, and prints a line for each one that ends. Failures appear on stderr.
///
/// # Errors
/// Cargo cannot be run, or there is no such target.
pub(crate) fn run(place: &Place, seconds: u32, target: Option<&str>) -> Result<ExitCode> {
    let mut child = command(place, seconds, target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo could not be run")?;
    let mut count = 0;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        if let Some(ran) = Ran::read(&line?) {
            println!("{ran}");
            count += 1;
        }
    }
    let status = child.wait()?;
    if status.success() {
        ensure!(
            count > 0,
            "there is no target {}: each is a test named fuzz_TARGET",
            target.unwrap_or_default()
        );
        println!("{count} targets held");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_targets_line_is_read_wherever_it_stands() {
        let line = "fuzz net-hello: 16287 executions in 1.0 s, 71 outcomes, at most 5 KiB of heap, seed 2";
        for before in ["", "test frame::tests::fuzz_net_frames ... ", ".."] {
            let ran = Ran::read(&format!("{before}{line}")).expect("a target");
            assert_eq!((ran.target.as_str(), ran.executions), ("net-hello", 16_287));
        }
        assert_eq!(Ran::read("test frame::tests::fuzz_net_frames ... ok"), None);
        assert_eq!(Ran::read("fuzz net-hello: it panicked"), None);
    }
}
