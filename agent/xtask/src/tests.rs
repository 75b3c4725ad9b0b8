//! `cargo xtask test`: runs everything that has to hold, step by step, and prints one line of numbers at the
//! end.
//!
//! Each step prints whether it passed and how long it took, and what a failed step printed is shown. All
//! steps run, also after one has failed. Of the stories, one of each kind is run; `cargo xtask lab all` runs
//! all of them. At the end stand the slowest steps, with a warning where all of them took too long together.

mod counts;
mod times;

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::counts::Tally;
use self::times::times;
use crate::deny;
use crate::fuzz::{self, Ran};
use crate::lab;
use crate::nix;
use crate::place::Place;
use crate::privilege::Privilege;
use crate::setup;
use crate::sim;
use crate::stories;

/// Time for each fuzz target, in seconds.
const FUZZ_SECONDS: u32 = 10;

/// Fresh seeds for the simulator.
const SIM_SEEDS: u64 = 300;

/// How a step ended.
enum StepEnd {
    /// The step has single tests, which are counted. A step without single tests counts as one.
    Tests(Tally),
    /// The step passed as a whole.
    Passed,
    /// The step could not be run here, for this reason.
    Skipped(String),
}

/// Runs every step; `quick` leaves the stories out.
///
/// # Errors
/// The stories cannot be read. The failure of a step is no error: the exit code tells it.
pub(crate) fn run(place: &Place, quick: bool) -> Result<ExitCode> {
    let began = Instant::now();
    let mut run = Run { tally: Tally::default(), took: Vec::new() };
    let ready = run.setup(quick);
    run.step("cargo fmt", || passes(place.cargo().args(["fmt", "--all", "--check"])));
    run.step("cargo clippy", || {
        passes(place.cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"]))
    });
    // All targets, so that the dependencies get the features that the tests give them and are built once.
    let built = run.step("cargo build", || {
        passes(place.cargo().args(["build", "--workspace", "--all-targets", "--quiet"]))
    });
    run.step("cargo test", || cargo_test(place));
    run.step("fuzz", || fuzzed(place));
    run.step("sim", || simulated(place));
    for checks in [&["licenses", "bans", "sources"][..], &["advisories"]] {
        run.step(&format!("cargo deny: {}", checks.join(", ")), || {
            Ok(match deny::check(place, checks)? {
                deny::DenyOutcome::Passed => StepEnd::Passed,
                deny::DenyOutcome::Skipped(reason) => StepEnd::Skipped(reason),
                deny::DenyOutcome::Failed(words) => anyhow::bail!(words),
            })
        });
    }
    run.step("lab: unit tests", || python_tests(place));
    run.step("lab and stories: pyflakes", || pyflakes(place));
    run.step("cargo doc", || {
        let mut doc = place.cargo();
        doc.env("RUSTDOCFLAGS", "-Dwarnings");
        passes(doc.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]))
    });
    run.step("xtask nix", || {
        let agent = place.agent();
        Ok(match nix::run(place.root(), built.then_some(agent.as_path()))? {
            nix::NixOutcome::Passed(_) => StepEnd::Passed,
            nix::NixOutcome::Skipped(reason) => StepEnd::Skipped(reason),
        })
    });
    for story in stories::all(place.root())?.iter().filter(|story| story.facts.tested) {
        run.step(&format!("story {} ({})", story.name, story.facts.kind), || match &ready {
            Ok(root) if built => play(place, *root, &story.name),
            Ok(_) => Ok(StepEnd::Skipped("the agent does not build".to_owned())),
            Err(reason) => Ok(StepEnd::Skipped(reason.clone())),
        });
    }
    print!("{}", times(run.took, began.elapsed()));
    println!("{}", run.tally);
    Ok(if run.tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Run {
    tally: Tally,
    /// The steps and how long each took.
    took: Vec<(String, Duration)>,
}

impl Run {
    /// Prepares for the stories. If that is not possible, the error is the reason to skip them.
    fn setup(&mut self, quick: bool) -> Result<Privilege, String> {
        if quick {
            return Err("left out by --quick".to_owned());
        }
        if !cfg!(target_os = "linux") {
            return Err("real machines need Linux".to_owned());
        }
        setup::ensure(setup::EVERYTHING).map_err(|error| format!("{error:#}"))?;
        Privilege::find(true).map_err(|error| format!("{error:#}"))
    }

    /// Runs a step, shows how it ended, and counts it. Returns false only if the step failed.
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<StepEnd>) -> bool {
        eprintln!("  …  {name}");
        let began = Instant::now();
        let ended = work();
        let took = began.elapsed();
        let seconds = took.as_secs_f64();
        self.took.push((name.to_owned(), took));
        let tally = match ended {
            Ok(StepEnd::Tests(tally)) => {
                let mark = if tally.failed == 0 { " ok " } else { "FAIL" };
                println!("{mark} {name}: {tally} ({seconds:.1} s)");
                tally
            }
            Ok(StepEnd::Passed) => {
                println!(" ok  {name} ({seconds:.1} s)");
                Tally { passed: 1, ..Tally::default() }
            }
            Ok(StepEnd::Skipped(reason)) => {
                println!("SKIP {name}: {reason}");
                Tally { skipped: 1, ..Tally::default() }
            }
            Err(error) => {
                println!("FAIL {name} ({seconds:.1} s)\n{error:#}");
                Tally { failed: 1, ..Tally::default() }
            }
        };
        self.tally += tally;
        tally.failed == 0
    }
}

/// What a command printed, on both streams, and whether it succeeded.
fn output(command: &mut Command) -> Result<(bool, String)> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} could not be run", command.get_program().display()))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

/// Runs a step that is one command.
fn passes(command: &mut Command) -> Result<StepEnd> {
    let (success, text) = output(command)?;
    if success { Ok(StepEnd::Passed) } else { Err(anyhow::Error::msg(text)) }
}

/// Runs a step that is one command with tests in it; `count` reads their number from its output.
fn counted(command: &mut Command, count: fn(&str) -> Tally) -> Result<StepEnd> {
    let (success, text) = output(command)?;
    let tally = count(&text);
    if success && tally.failed == 0 {
        return Ok(StepEnd::Tests(tally));
    }
    // Tests that passed need no line each.
    for line in text.lines().filter(|line| !line.ends_with("... ok")) {
        println!("{line}");
    }
    // A failure to which no failed test belongs, for example in compiling, counts as one failed test.
    Ok(StepEnd::Tests(Tally { failed: tally.failed.max(1), ..tally }))
}

fn cargo_test(place: &Place) -> Result<StepEnd> {
    let mut cargo = place.cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    // The tests run this agent and do not build their own.
    if place.agent().exists() {
        cargo.env("BLIXARD_BIN", place.agent());
    }
    counted(&mut cargo, counts::cargo_test)
}

/// Every fuzz target counts as one test.
fn fuzzed(place: &Place) -> Result<StepEnd> {
    let (success, text) = output(&mut fuzz::command(place, FUZZ_SECONDS, None))?;
    let ran: Vec<Ran> = text.lines().filter_map(Ran::read).collect();
    ran.iter().for_each(|ran| println!("      {ran}"));
    if !success || ran.is_empty() {
        return Err(anyhow::Error::msg(text));
    }
    let passed = u32::try_from(ran.len()).unwrap_or(u32::MAX);
    Ok(StepEnd::Tests(Tally { passed, ..Tally::default() }))
}

/// Every seed counts as one test. The fresh seeds differ each time, so the command that repeats them is
/// printed.
fn simulated(place: &Place) -> Result<StepEnd> {
    let program = sim::build(place)?;
    let start = sim::fresh_start();
    let (seeds, start) = (SIM_SEEDS.to_string(), start.to_string());
    println!("      cargo xtask sim --seeds {seeds} --start {start}");
    let fresh = sim::ask(Command::new(&program).args(["--seeds", &seeds, "--start", &start]))?;
    let known = sim::ask(Command::new(&program).arg("--regressions"))?;
    let failed = [&fresh.failures, &known.failures];
    failed.iter().flat_map(|failures| failures.iter()).for_each(|failure| println!("{failure}"));
    let failed = u32::try_from(fresh.failures.len() + known.failures.len()).unwrap_or(u32::MAX);
    let passed = u32::try_from(fresh.seeds + known.seeds).unwrap_or(u32::MAX).saturating_sub(failed);
    Ok(StepEnd::Tests(Tally { passed, failed, ..Tally::default() }))
}

fn python(place: &Place) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").current_dir(place.root());
    command
}

fn python_tests(place: &Place) -> Result<StepEnd> {
    if !setup::is_here("python3") {
        return Ok(StepEnd::Skipped("there is no python3".to_owned()));
    }
    let discover = ["-m", "unittest", "discover", "-s", "vm-tests/lab", "-t", "vm-tests/lab"];
    counted(python(place).args(discover), counts::python_unittest)
}

fn pyflakes(place: &Place) -> Result<StepEnd> {
    if !setup::is_here("pyflakes3") {
        return Ok(StepEnd::Skipped("there is no pyflakes3".to_owned()));
    }
    let mut failed = passes(Command::new("pyflakes3").current_dir(place.root()).arg("vm-tests/lab")).err();
    // The stories are checked as NixOS checks them: with the code that comes before them, from which the
    // lines are counted.
    let home = place.target().join("stories");
    fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    for story in stories::all(place.root())? {
        let file = home.join(format!("{}.py", story.name));
        fs::write(&file, &story.script).with_context(|| format!("writing {}", file.display()))?;
        let names = story.names();
        let checked = passes(Command::new("pyflakes3").env("PYFLAKES_BUILTINS", names).arg(&file));
        failed = failed.or(checked.err());
    }
    failed.map_or(Ok(StepEnd::Passed), Err)
}

/// Runs a story on fresh machines. What it prints is shown only if it fails.
fn play(place: &Place, root: Privilege, story: &str) -> Result<StepEnd> {
    let mut command = lab::harness(place, root);
    command.args(["--die-with-parent", "run", story]);
    passes(&mut command)
}
