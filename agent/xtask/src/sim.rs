//! `cargo xtask sim`: builds the simulator and hands over to it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::place::Place;

/// Builds the simulator, while cargo shows its progress on stderr. Returns the path of the program.
///
/// # Errors
/// When the simulator does not build.
pub(crate) fn build(place: &Place) -> Result<PathBuf> {
    let built = place
        .cargo()
        .args(["build", "--package", "blixard-sim", "--profile", "sim"])
        .stdout(Stdio::null())
        .status()
        .context("cargo could not be run")?;
    ensure!(built.success(), "the simulator does not build; cargo says why above");
    Ok(place.target().join("sim").join("blixard-sim"))
}

/// `cargo xtask sim WORDS`.
///
/// # Errors
/// When the build fails.
pub(crate) fn run(place: &Place, words: &[String]) -> Result<ExitCode> {
    let program = build(place)?;
    Err(Command::new(program).args(words).exec()).context("the simulator could not be run")
}

/// A first seed with which no earlier run began: the seconds since 1970, times 1000, because a run takes no
/// more than 1000 seeds.
pub(crate) fn fresh_start() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    now.saturating_mul(1_000)
}

/// What the simulator printed with `--json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimTold {
    /// How many seeds ran.
    pub(crate) seeds: u64,
    /// The seeds that failed.
    pub(crate) failures: Vec<FailedSeed>,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedSeed {
    /// The seed that failed.
    pub(crate) seed: u64,
    /// The invariant that did not hold.
    pub(crate) invariant: String,
    /// What was observed.
    what: String,
    /// The command that repeats the failure.
    replay: String,
}

impl std::fmt::Display for FailedSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}: {}: {}\n  {}", self.seed, self.invariant, self.what, self.replay)
    }
}

impl SimTold {
    /// Reads the JSON object on the last line.
    ///
    /// # Errors
    /// There is no such object.
    pub(crate) fn read(stdout: &str) -> Result<Self> {
        let last = stdout.lines().last().context("the simulator said nothing")?;
        let told: Value = serde_json::from_str(last).context("the simulator did not end well")?;
        let failures = told["failures"].as_array().context("the simulator told no failures")?;
        Ok(Self {
            seeds: told["seeds"].as_u64().context("the simulator told no number of seeds")?,
            failures: failures.iter().map(FailedSeed::read).collect(),
        })
    }
}

impl FailedSeed {
    fn read(told: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            seed: told["seed"].as_u64().unwrap_or_default(),
            invariant: text(&told["violation"]["invariant"]),
            what: text(&told["violation"]["what"]),
            replay: text(&told["replay"]),
        }
    }
}

/// Runs the simulator with `--json` added to the command. Its progress bar goes to stderr.
///
/// # Errors
/// The simulator cannot be run, or does not print its result.
pub(crate) fn ask(command: &mut Command) -> Result<SimTold> {
    let output = command
        .arg("--json")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the simulator could not be run")?;
    SimTold::read(&String::from_utf8_lossy(&output.stdout))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_output_of_the_simulator_is_read() {
        let one = r#"{"seed":7,"violation":{"invariant":"replay","what":"x"},"replay":"cargo xtask sim"}"#;
        let told = SimTold::read(&format!("{{\"seeds\":9,\"failures\":[{one}]}}\n")).expect("an object");
        assert_eq!((told.seeds, told.failures.len()), (9, 1));
        assert_eq!((told.failures[0].seed, told.failures[0].invariant.as_str()), (7, "replay"));
        assert_eq!(told.failures[0].to_string(), "seed 7: replay: x\n  cargo xtask sim");
        assert!(SimTold::read("").is_err() && SimTold::read("thread panicked").is_err());
    }
}
