//! A seed, run and judged.

use super::{History, Verdict, judge};
use crate::{Options, Report, world};

/// What the judge says of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The seed that was run.
    pub seed: u64,
    /// The run, with what the invariants beside the judge say of it.
    pub report: Report,
    /// What was recorded of each name, as far as it is within the bounds.
    pub histories: Vec<History>,
    /// What the judge says of each of these.
    pub verdicts: Vec<Verdict>,
    /// Operations that were recorded and are outside the bounds.
    pub left_out: usize,
}

impl Judged {
    /// Whether the judge finds every history right, whatever the invariants say.
    pub fn holds(&self) -> bool {
        self.verdicts.iter().all(Verdict::holds)
    }

    /// The histories that are not right.
    pub fn failures(&self) -> impl Iterator<Item = (&History, &Verdict)> {
        self.histories.iter().zip(&self.verdicts).filter(|(_, verdict)| !verdict.holds())
    }

    /// Operations that were judged.
    pub fn operations(&self) -> usize {
        self.histories.iter().map(|history| history.operations.len()).sum()
    }

    /// Steps that the tester took.
    pub fn steps(&self) -> u64 {
        let steps = self.verdicts.iter().map(|verdict| match verdict {
            Verdict::Linearizable { steps } | Verdict::Wrong { steps } => *steps,
            Verdict::TooHard => super::STEPS_MAX,
            Verdict::Malformed(_) => 0,
        });
        steps.sum()
    }
}

/// Runs a seed with [`Options::judged`], to its end also when an invariant does not hold, and judges what its
/// clients saw; with `print` every event is told on standard output.
pub fn run(seed: u64, print: bool) -> Judged {
    let recorded = crate::caught(|| world::World::new(seed, Options::judged(seed), print).run_recorded());
    let (report, recorded) = recorded.unwrap_or_else(|report| (*report, Vec::new()));
    let all: usize = recorded.iter().map(|history| history.operations.len()).sum();
    let histories: Vec<History> = recorded.iter().map(History::within_bounds).collect();
    let verdicts = histories.iter().map(judge).collect();
    let kept: usize = histories.iter().map(|history| history.operations.len()).sum();
    Judged { seed, report, histories, verdicts, left_out: all - kept }
}
