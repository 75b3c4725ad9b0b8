//! `cargo xtask`: what a contributor types. Sets up, builds, shows, tests; the lab itself is `vm-tests/lab`.

mod chaos;
mod demo;
mod deny;
mod evidence;
mod fixtures;
mod fuzz;
mod lab;
mod mutants;
mod nix;
mod place;
mod privilege;
mod setup;
mod sim;
mod stories;
mod tests;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use self::place::Place;

/// Sets up, demonstrates and tests Blixard
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct XtaskCli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Three machines form a cluster, run a microVM, lose their leader and go on
    Demo(DemoArgs),
    /// Everything that has to hold: formatting, lints, tests, documentation, Nix, stories on real machines
    Test(TestArgs),
    /// Machines to play with: up, down, status, exec, run, all, logs (`cargo xtask lab --help`)
    #[command(disable_help_flag = true)]
    Lab(LabArgs),
    /// Random faults on a cluster of real machines, with a judge outside of them; fails when a VM ran twice
    Chaos(chaos::ChaosArgs),
    /// Throws hostile bytes at every decoder and counts (`fuzz --seconds 60 raft-messages`)
    Fuzz(FuzzArgs),
    /// Simulates whole clusters, one for each seed (`cargo xtask sim --help`)
    #[command(disable_help_flag = true)]
    Sim(SimArgs),
    /// Plants bugs in the simulated crates, one at a time, and counts those that are caught
    Mutants(mutants::MutantsArgs),
    /// Measures what this machine can measure and writes it to agent/docs/evidence/measured.md
    Evidence(evidence::EvidenceArgs),
    /// Writes samples of this build's formats for later builds to read (`fixtures 0.2.0-COMMIT`)
    Fixtures(FixturesArgs),
    /// Evaluates the flake, the NixOS module and the NixOS tests
    Nix,
    /// Installs the Debian packages that the lab and the tests need and that are not here
    Setup,
}

/// Arguments of `cargo xtask demo`.
#[derive(Debug, Args)]
struct DemoArgs {
    /// Leave the cluster up at the end and say how to use it
    #[arg(long)]
    keep: bool,
    /// Print one JSON object last, on stdout, and everything else on stderr
    #[arg(long)]
    json: bool,
}

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
struct TestArgs {
    /// Leave the stories on real machines out
    #[arg(long)]
    quick: bool,
}

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, Args)]
struct FuzzArgs {
    /// Time for each target
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Only the targets whose names begin with this
    target: Option<String>,
}

/// Arguments of `cargo xtask lab`, which are passed to the lab.
#[derive(Debug, Args)]
struct LabArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Arguments of `cargo xtask fixtures`.
#[derive(Debug, Args)]
struct FixturesArgs {
    /// Name of the new directory: the version and the commit of this build
    name: String,
}

/// Arguments of `cargo xtask sim`, which are passed to the simulator.
#[derive(Debug, Args)]
struct SimArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

fn main() -> ExitCode {
    let cli = XtaskCli::parse();
    match run(&cli.task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<ExitCode> {
    let place = Place::find()?;
    match task {
        Task::Demo(args) => Ok(demo::run(&place, args.keep, args.json)),
        Task::Test(args) => tests::run(&place, args.quick),
        Task::Lab(args) => lab::run(&place, &args.words),
        Task::Chaos(args) => chaos::run(&place, args),
        Task::Fuzz(args) => fuzz::run(&place, args.seconds, args.target.as_deref()),
        Task::Sim(args) => sim::run(&place, &args.words),
        Task::Mutants(args) => mutants::run(&place, args),
        Task::Evidence(args) => evidence::run(&place, args),
        Task::Fixtures(args) => fixtures::run(&place, &args.name),
        Task::Nix => run_nix(&place),
        Task::Setup => {
            setup::ensure(setup::EVERYTHING)?;
            println!("what is needed is here");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_nix(place: &Place) -> Result<ExitCode> {
    let agent = place.agent();
    match nix::run(place.root(), agent.exists().then_some(agent.as_path()))? {
        nix::NixOutcome::Passed(summary) => println!("passed: {summary}"),
        nix::NixOutcome::Skipped(reason) => println!("SKIPPED: {reason}"),
    }
    Ok(ExitCode::SUCCESS)
}
