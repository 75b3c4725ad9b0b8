//! `blixard-sim`: runs seeds of the simulation; `cargo xtask sim` builds and calls it.

mod batch;
mod summary;

use std::process::ExitCode;

use blixard_sim::Options;
use clap::Parser;

/// Runs whole simulated clusters of the production code, one for each seed, and checks what must hold
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct Cli {
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
    let cli = Cli::parse();
    // A panic is a finding like any other: it is told with its seed.
    if !cli.trace {
        std::panic::set_hook(Box::new(|_| {}));
    }
    if let Some(seed) = cli.seed {
        return run_one(&cli, seed);
    }
    let plan = batch::Plan {
        start: cli.start,
        seeds: cli.seeds,
        nodes: cli.nodes,
        threads: cli.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        fail_fast: cli.fail_fast,
    };
    let done = batch::run(&plan);
    if cli.json {
        println!("{}", summary::json(&done));
    } else {
        print!("{}", summary::text(&done));
    }
    if done.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_one(cli: &Cli, seed: u64) -> ExitCode {
    let options = Options::of(seed, cli.nodes);
    let report = blixard_sim::run(seed, options.clone(), cli.trace);
    if cli.json {
        println!("{}", summary::json_of(seed, &report));
    } else {
        print!("{}", summary::text_of(seed, &options, &report));
    }
    if report.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
