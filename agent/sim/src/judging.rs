//! `--judge`: many seeds run for the second judge, and what it says of them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use blixard_sim::Options;
use blixard_sim::judge::{self, Judged};
use serde_json::{Value, json};

use crate::batch;

/// What came of them.
#[derive(Debug)]
pub(crate) struct JudgedBatch {
    took: Duration,
    /// In the order of the seeds.
    runs: Vec<Judged>,
}

/// Runs and judges so many seeds from the first one on, or up to the first failure.
pub(crate) fn run(seeds: std::ops::Range<u64>, threads: usize, fail_fast: bool) -> JudgedBatch {
    let began = Instant::now();
    let seeds: Vec<u64> = seeds.collect();
    let stops = |judged: &Judged| fail_fast && fails(judged);
    let mut runs = batch::each(&seeds, threads, stops, |seed| judge::run(seed, false));
    runs.sort_by_key(|judged| judged.seed);
    JudgedBatch { took: began.elapsed(), runs }
}

/// Runs and judges one, told event by event.
pub(crate) fn run_one(seed: u64, trace: bool) -> JudgedBatch {
    let began = Instant::now();
    JudgedBatch { runs: vec![judge::run(seed, trace)], took: began.elapsed() }
}

/// By the judge, or by the invariants beside it.
fn fails(judged: &Judged) -> bool {
    !judged.holds() || judged.report.violation.is_some()
}

impl JudgedBatch {
    /// Whether nobody found anything.
    pub(crate) fn is_good(&self) -> bool {
        !self.runs.iter().any(fails)
    }

    fn histories(&self) -> usize {
        self.runs.iter().map(|judged| judged.histories.len()).sum()
    }

    fn longest_search(&self) -> u64 {
        self.runs.iter().map(Judged::steps).max().unwrap_or(0)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.runs.iter().filter(|judged| fails(judged)).for_each(|judged| tell(&mut text, judged));
        let sum = |count: fn(&Judged) -> usize| self.runs.iter().map(count).sum::<usize>();
        let (operations, left_out) = (sum(Judged::operations), sum(|judged| judged.left_out));
        let wrong = self.runs.iter().filter(|judged| !judged.holds()).count();
        let per_minute = self.histories() as f64 * 60.0 / self.took.as_secs_f64().max(1e-3);
        let _ = writeln!(
            text,
            "{} seeds from {}: {} histories with {operations} operations judged ({left_out} left out), \
             {per_minute:.0} histories a minute, at most {} steps for a seed; {wrong} seeds judged wrong, \
             {} with a violation beside",
            self.runs.len(),
            self.runs.first().map_or(0, |judged| judged.seed),
            self.histories(),
            self.longest_search(),
            self.runs.iter().filter(|judged| judged.report.violation.is_some()).count(),
        );
        text
    }

    /// As one object, with the same words for a failure as a run without the judge.
    pub(crate) fn json(&self) -> Value {
        let failures: Vec<Value> = self.runs.iter().filter(|judged| fails(judged)).map(failure).collect();
        json!({
            "seeds": self.runs.len(),
            "start": self.runs.first().map(|judged| judged.seed),
            "failures": failures,
            "histories": self.histories(),
            "operations": self.runs.iter().map(Judged::operations).sum::<usize>(),
            "left_out": self.runs.iter().map(|judged| judged.left_out).sum::<usize>(),
            "longest_search_steps": self.longest_search(),
        })
    }
}

/// A seed that failed, with everything that is needed to see why.
fn tell(text: &mut String, judged: &Judged) {
    for (history, verdict) in judged.failures() {
        let _ = writeln!(text, "seed {} judged wrong: {}: {verdict}\n{history}", judged.seed, history.name);
        if let Some(count) = judge::first_wrong(history) {
            let _ = writeln!(text, "  wrong from the {count}. of these operations on");
        }
    }
    if let Some(violation) = &judged.report.violation {
        let _ = writeln!(text, "seed {} FAILED beside the judge: {violation}", judged.seed);
    }
    let _ = writeln!(text, "{}\nagain: {}", Options::judged(judged.seed), replay(judged.seed));
}

fn failure(judged: &Judged) -> Value {
    let wrong = judged.failures().next();
    let violation = match (wrong, &judged.report.violation) {
        (Some((history, verdict)), _) => {
            json!({ "invariant": "judge", "what": format!("{}: {verdict}", history.name) })
        }
        (None, Some(beside)) => json!({ "invariant": beside.invariant, "what": beside.what }),
        (None, None) => Value::Null,
    };
    json!({ "seed": judged.seed, "violation": violation, "replay": replay(judged.seed) })
}

fn replay(seed: u64) -> String {
    format!("cargo xtask sim --judge --seed {seed} --trace")
}
