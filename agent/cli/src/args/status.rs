//! `blixard status`.

use std::time::Duration;

use clap::Args;

use super::shared::AskArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0  the agent answered, whatever it said; with --check: nothing needs attention,
     and one line on stderr says so if the cluster is disarmed
  1  with --check: something needs attention, and one line on stderr names it:
     no quorum, a member that is unreachable or lost, a warning, or something
     that has failed for longer than a minute
  2  the command line is wrong
  3  the agent did not answer

--watch goes on until Ctrl-C, also while the agent does not answer, and ends
with 0. On a pipe each update begins with a line '--- TIME'; with --json each
update is one line, and errors go to stderr.";

/// Arguments of `blixard status`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct StatusArgs {
    /// Updates the view until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    /// Seconds between two updates, 0.2 to 3600 [default: 2]
    #[arg(long, value_name = "SECONDS", requires = "watch", value_parser = parse_interval)]
    pub(crate) interval: Option<Duration>,
    /// For monitoring: prints nothing and exits with 0 if all is well, else with 1 and one line on stderr
    #[arg(long, conflicts_with = "watch")]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.2..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "not a number from 0.2 to 3600".to_owned())
}
