//! `cargo xtask mutants`: checks whether the simulation finds the bugs that are planted for this.
//!
//! One build holds all planted bugs; `BLIXARD_MUTANT` switches one on. Each planted bug is simulated until
//! its first failing seed. It must also make those seeds fail that are kept as regressions of the same bug. A
//! run without any planted bug has to pass first, or a failure would mean nothing.

mod list;
mod tested;

use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::list::{MUTANTS, Mutant};
use self::tested::{TESTED, Tested};
use crate::place::Place;
use crate::sim::{self, FailedSeed};

/// Seeds that must pass without a planted bug.
const CONTROL_SEEDS: u64 = 300;
/// How many of the planted bugs have to be caught, in percent.
const CAUGHT_PERCENT: usize = 95;

/// Arguments of `cargo xtask mutants`.
#[derive(Debug, Args)]
pub(crate) struct MutantsArgs {
    /// Print one JSON object on stdout, and nothing else
    #[arg(long)]
    json: bool,
    /// Run only this planted bug
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Seeds after which a planted bug counts as not caught
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// How many seeds run at once; by default one for each processor
    #[arg(long)]
    threads: Option<usize>,
}

/// The result of one planted bug.
struct RanMutant {
    mutant: Mutant,
    caught: Option<FailedSeed>,
    /// Seeds that are kept as regressions of this bug and do not show it any more.
    stale: u64,
    seconds: f64,
}

impl RanMutant {
    fn json(&self) -> Value {
        json!({
            "name": self.mutant.name,
            "source": self.mutant.source,
            "caught": self.caught.is_some(),
            "seed": self.caught.as_ref().map(|failure| failure.seed),
            "invariant": self.caught.as_ref().map(|failure| failure.invariant.as_str()),
            "stale_regressions": self.stale,
            "seconds": self.seconds,
        })
    }
}

impl fmt::Display for RanMutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mutant { name, source, .. } = self.mutant;
        let seconds = self.seconds;
        match &self.caught {
            Some(FailedSeed { seed, invariant, .. }) => {
                write!(f, "| `{name}` | {source} | {seed} | `{invariant}` | {seconds:.1} |")
            }
            None => write!(f, "| `{name}` | {source} | not caught | | {seconds:.1} |"),
        }
    }
}

/// Builds, runs the control and then every planted bug, and prints a table with a line for each.
///
/// # Errors
/// The build or the control fails, or there is no planted bug of that name.
pub(crate) fn run(place: &Place, args: &MutantsArgs) -> Result<ExitCode> {
    let is_chosen = |mutant: &&Mutant| args.only.as_ref().is_none_or(|only| only == mutant.name);
    let chosen: Vec<&Mutant> = MUTANTS.iter().filter(is_chosen).collect();
    let is_tested = |tested: &&Tested| args.only.as_ref().is_none_or(|only| only == tested.name);
    let tested: Vec<&Tested> = TESTED.iter().filter(is_tested).collect();
    ensure!(!chosen.is_empty() || !tested.is_empty(), "there is no planted bug of that name");
    let program = build(place)?;
    let control = simulate(&program, None, CONTROL_SEEDS, args.threads)?;
    if let Some(failure) = control.first() {
        anyhow::bail!("without a planted bug it does not hold either: {failure}");
    }
    if !args.json {
        println!("| mutant | stands for | caught at seed | by | s |\n|---|---|---|---|---|");
    }
    let mut all = Vec::new();
    for mutant in chosen {
        let began = Instant::now();
        let caught = simulate(&program, Some(mutant.name), args.seeds, args.threads)?.into_iter().next();
        let stale = stale_regressions(&program, mutant.name)?;
        let ran = RanMutant { mutant: *mutant, caught, stale, seconds: began.elapsed().as_secs_f64() };
        if !args.json {
            println!("{ran}");
        }
        all.push(ran);
    }
    let simulated = tell(&all, args);
    let noticed = tell_tested(place, &tested, args)?;
    Ok(if noticed { simulated } else { ExitCode::FAILURE })
}

/// Runs the planted bugs that a test has to notice. Returns whether all of them were noticed.
fn tell_tested(place: &Place, tested: &[&Tested], args: &MutantsArgs) -> Result<bool> {
    let mut missed = Vec::new();
    for one in tested {
        let caught = one.is_caught(place)?;
        if !caught {
            missed.push(one.name);
        }
        if !args.json {
            println!(
                "| `{}` | {} | {} |",
                one.name,
                one.source,
                if caught { "its test" } else { "not caught" }
            );
        }
    }
    if !missed.is_empty() {
        eprintln!("no test notices {}", missed.join(", "));
    }
    Ok(missed.is_empty())
}

fn tell(all: &[RanMutant], args: &MutantsArgs) -> ExitCode {
    let caught = all.iter().filter(|ran| ran.caught.is_some()).count();
    if args.json {
        let mutants: Vec<Value> = all.iter().map(RanMutant::json).collect();
        let (total, seeds_max) = (all.len(), args.seeds);
        println!(
            "{}",
            json!({ "caught": caught, "total": total, "seeds_max": seeds_max, "mutants": mutants })
        );
    } else {
        println!("{caught} of {} caught within {} seeds", all.len(), args.seeds);
    }
    let stale: Vec<&str> = all.iter().filter(|ran| ran.stale > 0).map(|ran| ran.mutant.name).collect();
    if !stale.is_empty() {
        eprintln!("agent/sim/regressions/seeds.toml: the seeds do not show {} any more", stale.join(", "));
    }
    let escaped = all.iter().any(|ran| ran.mutant.must && ran.caught.is_none());
    let enough = caught * 100 >= all.len() * CAUGHT_PERCENT;
    if enough && !escaped && stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds into a directory of its own, because the other flags would make everything else be built again.
fn build(place: &Place) -> Result<std::path::PathBuf> {
    let target = place.target().join("mutants");
    let built = place
        .cargo()
        .env("RUSTFLAGS", "--cfg blixard_mutants")
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--package", "blixard-sim", "--profile", "sim"])
        .stdout(Stdio::null())
        .status()
        .context("cargo could not be run")?;
    ensure!(built.success(), "the simulator does not build; cargo says why above");
    Ok(target.join("sim").join("blixard-sim"))
}

/// How many seeds in the repository's list passed although the bug of which they are regressions was planted.
fn stale_regressions(program: &Path, mutant: &str) -> Result<u64> {
    let mut command = Command::new(program);
    command.args(["--regressions", "--fault", mutant]).env("BLIXARD_MUTANT", mutant);
    let told = sim::ask(&mut command)?;
    Ok(told.seeds.saturating_sub(told.failures.len() as u64))
}

fn simulate(
    program: &Path,
    mutant: Option<&str>,
    seeds: u64,
    threads: Option<usize>,
) -> Result<Vec<FailedSeed>> {
    let mut command = Command::new(program);
    command.args(["--fail-fast", "--seeds", &seeds.to_string()]).env_remove("BLIXARD_MUTANT");
    if let Some(threads) = threads {
        command.args(["--threads", &threads.to_string()]);
    }
    if let Some(name) = mutant {
        command.env("BLIXARD_MUTANT", name);
    }
    sim::ask(&mut command).map(|told| told.failures)
}

#[cfg(test)]
mod unit {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn names_in(dir: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                names_in(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                let found = text.split(concat!("mutant::", "lives(\"")).skip(1);
                names.extend(found.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned()));
            }
        }
    }

    #[test]
    fn every_planted_bug_is_listed_and_every_listed_one_planted() {
        let mut planted = BTreeSet::new();
        names_in(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("agent"), &mut planted);
        planted.remove("name");
        let names = MUTANTS.iter().map(|mutant| mutant.name).chain(TESTED.iter().map(|tested| tested.name));
        let listed: BTreeSet<String> = names.map(str::to_owned).collect();
        assert_eq!(planted, listed);
        assert_eq!(listed.len(), MUTANTS.len() + TESTED.len(), "a name twice");
    }
}
