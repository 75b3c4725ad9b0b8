//! `cargo xtask chaos`: hands over to the lab's harness, which lets random faults happen and judges.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::lab;
use crate::place::Place;
use crate::privilege::Privilege;
use crate::setup;

/// Arguments of `cargo xtask chaos`.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// For so many minutes faults are begun; the last one ends later
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Which faults come, whom they hit, and how long they last [default: a random one]
    #[arg(long)]
    seed: Option<u32>,
    /// Print one JSON object last, on stdout, and everything else on stderr
    #[arg(long)]
    json: bool,
    /// A control run: supervisors that stand still and systemd without its watchdog. It fails unless VMs run
    /// twice
    #[arg(long)]
    without_enforcers: bool,
}

impl ChaosArgs {
    /// The harness's words for the same.
    fn words(&self) -> Vec<String> {
        let mut words = vec!["chaos".to_owned(), "--minutes".to_owned(), self.minutes.to_string()];
        words.extend(self.seed.map(|seed| format!("--seed={seed}")));
        words.extend(self.json.then(|| "--json".to_owned()));
        words.extend(self.without_enforcers.then(|| "--without-enforcers".to_owned()));
        words
    }
}

/// Sets up, builds, and becomes the harness, which ends with the report.
///
/// # Errors
/// When setup or the build fails.
pub(crate) fn run(place: &Place, args: &ChaosArgs) -> Result<ExitCode> {
    setup::ensure(setup::LAB)?;
    place.build_agent()?;
    let mut command = lab::harness(place, Privilege::find(false)?);
    command.args(args.words());
    match lab::become_harness(command)? {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_reaches_the_harness() {
        let plain = ChaosArgs { minutes: 20, seed: None, json: false, without_enforcers: false };
        assert_eq!(plain.words(), ["chaos", "--minutes", "20"]);
        let all = ChaosArgs { minutes: 5, seed: Some(7), json: true, without_enforcers: true };
        let words = ["chaos", "--minutes", "5", "--seed=7", "--json", "--without-enforcers"];
        assert_eq!(all.words(), words);
    }
}
