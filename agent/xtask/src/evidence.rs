//! `cargo xtask evidence`: measures what can be measured on one machine and writes it down.
//!
//! The file says with each number how to repeat it, on which machine it was taken and of which commit it is.
//! Every run replaces the whole file: what was measured at different times does not stand side by side.

mod leases;
mod lines;
mod object;

use std::fmt::Write as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use self::object::object;
use crate::place::Place;
use crate::sim;

/// Where the file is, from the repository's root.
const FILE: &str = "agent/docs/evidence/measured.md";

/// Arguments of `cargo xtask evidence`.
#[derive(Debug, Args)]
pub(crate) struct EvidenceArgs {
    /// How many lives of a cluster are simulated
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Plant every bug as well and say which seed finds it; takes half an hour
    #[arg(long)]
    mutants: bool,
    /// Let each fault of `cargo xtask lab measure` happen so often as well, and count what leases cost; takes
    /// ten minutes, and seven for each
    #[arg(long, conflicts_with = "no_machines")]
    trials: Option<u32>,
    /// Leave out what needs real machines, and so root
    #[arg(long)]
    no_machines: bool,
}

/// Measures everything and replaces the file.
///
/// # Errors
/// Something cannot be built, run or written. The file is then as it was.
pub(crate) fn run(place: &Place, args: &EvidenceArgs) -> Result<ExitCode> {
    let mut page = head(place)?;
    page.push_str(&lines::table(&place.root().join("agent"))?);
    page.push_str(&simulated(place, args.seeds)?);
    if args.mutants {
        page.push_str(&planted(place)?);
    }
    if !args.no_machines {
        page.push_str(&shown(place)?);
    }
    if let Some(trials) = args.trials {
        page.push_str(&leases::failovers(place, trials)?);
        page.push_str(&leases::cost(place)?);
    }
    std::fs::write(place.root().join(FILE), page).with_context(|| format!("{FILE} cannot be written"))?;
    println!("{FILE} is written");
    Ok(ExitCode::SUCCESS)
}

/// Of what, when and where.
fn head(place: &Place) -> Result<String> {
    let root = place.root();
    let commit = said(Command::new("git").current_dir(root).args(["rev-parse", "--short=12", "HEAD"]))?;
    let changed = said(Command::new("git").current_dir(root).args(["status", "--porcelain"]))?;
    let changed = if changed.is_empty() { "" } else { ", with changes that are not committed" };
    let date = said(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
    let rustc = said(Command::new("rustc").arg("--version"))?;
    let kernel = said(Command::new("uname").args(["--kernel-name", "--kernel-release"]))?;
    // What comes after the number is whoever built it.
    let kernel = kernel.split('-').next().unwrap_or_default();
    let processors = std::thread::available_parallelism().context("how many processors are there?")?;
    let memory_mib = memory_mib()?;
    Ok(format!(
        "# Measured\n\n\
         Written by `cargo xtask evidence`, which measures everything below anew.\n\
         [2026-11.md](2026-11.md) says which test shows what, and keeps the numbers of comparisons and of\n\
         long runs.\n\n\
         - commit: {commit}{changed}\n\
         - date: {date}\n\
         - machine: {processors} processors, {memory_mib} MiB of memory, {kernel}\n\
         - compiler: {rustc}\n"
    ))
}

fn memory_mib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("how much memory is there?")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("MemTotal is no number")?;
    Ok(kib / 1_024)
}

/// The lives of so many clusters.
fn simulated(place: &Place, seeds: u64) -> Result<String> {
    let program = sim::build(place)?;
    let told = object(Command::new(program).args(["--json", "--seeds", &seeds.to_string()]), &[0, 1])?;
    let number = |key: &str| told[key].as_f64().unwrap_or_default();
    let failed = told["failures"].as_array().map_or(0, Vec::len);
    let mut text = format!(
        "\n## Simulated clusters\n\n`cargo xtask sim --seeds {seeds}`: {failed} failed, {:.0} seeds a \
         minute, trace {}.\n\n| in all of them | |\n|---|---|\n",
        number("seeds_per_min"),
        told["trace_hash"].as_str().unwrap_or("unknown"),
    );
    for (what, count) in told["totals"].as_object().context("the simulator told no totals")? {
        writeln!(text, "| {} | {count} |", what.replace('_', " "))?;
    }
    Ok(text)
}

/// Every planted bug, and what caught it.
fn planted(place: &Place) -> Result<String> {
    let mut command = place.cargo();
    let told =
        object(command.args(["run", "--quiet", "--package", "xtask", "--", "mutants", "--json"]), &[0, 1])?;
    let mut text = format!(
        "\n## Planted bugs\n\n`cargo xtask mutants`: {} of {} caught within {} seeds.\n\n\
         | bug | stands for | caught at seed | by |\n|---|---|---|---|\n",
        told["caught"], told["total"], told["seeds_max"],
    );
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for one in told["mutants"].as_array().context("no planted bug was told of")? {
        let seed = one["seed"].as_u64().map_or_else(|| "not caught".to_owned(), |seed| seed.to_string());
        let (name, source, by) = (word(&one["name"]), word(&one["source"]), word(&one["invariant"]));
        writeln!(text, "| `{name}` | {source} | {seed} | {by} |")?;
    }
    Ok(text)
}

/// Three real machines.
fn shown(place: &Place) -> Result<String> {
    let mut command = place.cargo();
    let told = object(command.args(["run", "--quiet", "--package", "xtask", "--", "demo", "--json"]), &[0])?;
    let mut text =
        "\n## Three real machines\n\n`cargo xtask demo --json`, once:\n\n| | |\n|---|---|\n".to_owned();
    for (what, value) in told.as_object().context("the demo told nothing")? {
        if what.ends_with("_ms") {
            writeln!(text, "| `{what}` | {value} |")?;
        }
    }
    Ok(text)
}

fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("{name} cannot be run"))?;
    ensure!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
