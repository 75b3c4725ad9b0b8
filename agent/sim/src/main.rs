//! `blixard-sim`: runs seeds of the simulation; `cargo xtask sim` builds and calls it.

mod batch;
mod judging;
mod summary;

use std::process::ExitCode;

use blixard_sim::Options;
use clap::Parser;
use mimalloc::MiMalloc;

/// A simulation allocates all the time: with the system's allocator a seed takes 1.6 times as long.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs whole simulated clusters of the production code, one for each seed, and checks what must hold
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct SimCli {
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Run this one alone
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    seed: Option<u64>,
    /// Tell what happens in it
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run short seeds with few names, and let a second judge say whether any order explains what clients saw
    #[arg(long, conflicts_with_all = ["regressions", "nodes"])]
    judge: bool,
    /// Run the seeds that once failed
    #[arg(long, conflicts_with_all = ["seeds", "start", "seed", "nodes"])]
    regressions: bool,
    /// Of these only the ones that this planted bug makes fail again
    #[arg(long, value_name = "NAME", requires = "regressions")]
    fault: Option<String>,
    /// This many machines, whatever the seed says
    #[arg(long)]
    nodes: Option<usize>,
    /// How many seeds run at once; as many as there are processors unless said otherwise
    #[arg(long)]
    threads: Option<usize>,
    /// Stop at the first failure
    #[arg(long)]
    fail_fast: bool,
    /// Print one JSON object and nothing else on stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let cli = SimCli::parse();
    // A panic is a finding like any other: it is told with its seed.
    if !cli.trace {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if cli.judge {
        return judged(&cli);
    }
    if let Some(seed) = cli.seed {
        return run_one(&cli, seed);
    }
    let seeds = match seeds(&cli) {
        Ok(seeds) => seeds,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    };
    let done = batch::run(&seeds, threads(&cli), cli.fail_fast);
    if cli.json {
        println!("{}", summary::json(&done));
    } else {
        print!("{}", summary::text(&done));
    }
    let is_whole = done.missed_points().is_empty() && (cli.nodes.is_some() || done.missed().is_empty());
    if done.failures().next().is_none() && is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn threads(cli: &SimCli) -> usize {
    cli.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn judged(cli: &SimCli) -> ExitCode {
    let seeds = cli.start..cli.start.saturating_add(cli.seeds);
    let done = match cli.seed {
        Some(seed) => judging::run_one(seed, cli.trace),
        None => judging::run(seeds, threads(cli), cli.fail_fast),
    };
    if cli.json {
        println!("{}", done.json());
    } else {
        print!("{}", done.text());
    }
    if done.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The seeds to run, each with its number of machines where that is not its own.
fn seeds(cli: &SimCli) -> Result<Vec<(u64, Option<usize>)>, String> {
    if cli.regressions {
        let all = blixard_sim::regressions::all()?;
        let chosen = all.into_iter().filter(|it| cli.fault.as_ref().is_none_or(|fault| *fault == it.fault));
        return Ok(chosen.map(|regression| (regression.seed, regression.nodes)).collect());
    }
    Ok((cli.start..cli.start.saturating_add(cli.seeds)).map(|seed| (seed, cli.nodes)).collect())
}

fn run_one(cli: &SimCli, seed: u64) -> ExitCode {
    let report = blixard_sim::run(seed, Options::of(seed, cli.nodes), cli.trace);
    if cli.json {
        println!("{}", summary::json_of(seed, cli.nodes, &report));
    } else {
        print!("{}", summary::text_of(seed, cli.nodes, &report));
    }
    if report.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
