//! Many seeds, a few at once; each alone on its thread.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use blixard_sim::disk::{CrashMoment, CrashPoints, Op};
use blixard_sim::{Options, Report, run as run_seed};
use indicatif::{ProgressBar, ProgressStyle};

/// From so many seeds on, every boundary of the disk has to be hit.
const LONG_RUN: usize = 5_000;

/// From so many seeds on, each of these has to have happened: a product that does nothing breaks no promise.
const SHORT_RUN: usize = 200;
const HAPPENS: [&str; 12] = [
    "acknowledged",
    "disarms",
    "elections",
    "failovers",
    "frozen_running",
    "frozen_stopping",
    "holds",
    "joins",
    "lease_ends",
    "recognised",
    "vm_starts",
    "watchdog_kills",
];

/// What came of them.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) took: Duration,
    /// In the order of the seeds.
    pub(crate) runs: Vec<SeedRun>,
}

/// A seed that was run.
#[derive(Debug)]
pub(crate) struct SeedRun {
    pub(crate) seed: u64,
    pub(crate) nodes: Option<usize>,
    pub(crate) report: Report,
}

impl Done {
    /// Those that failed.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &SeedRun> {
        self.runs.iter().filter(|run| run.report.violation.is_some())
    }
}

impl Done {
    /// Where power was lost, over all seeds.
    pub(crate) fn points(&self) -> CrashPoints {
        let mut points = CrashPoints::default();
        self.runs.iter().for_each(|run| points.merge(&run.report.counts.crash_points));
        points
    }

    /// The boundaries of the disk at which no seed of a long run lost its power.
    pub(crate) fn missed_points(&self) -> Vec<(Op, CrashMoment)> {
        if self.runs.len() < LONG_RUN { Vec::new() } else { self.points().below(1) }
    }

    /// What never happened in a run that is long enough for it.
    pub(crate) fn missed(&self) -> Vec<&'static str> {
        let happens = |name: &&str| {
            let numbers = |run: &SeedRun| run.report.counts.numbers();
            self.runs.iter().any(|run| numbers(run).iter().any(|(of, count)| of == name && *count > 0))
        };
        let is_short = self.runs.len() < SHORT_RUN;
        HAPPENS.into_iter().filter(|name| !is_short && !happens(name)).collect()
    }
}

/// Runs them all, or up to the first failure.
pub(crate) fn run(seeds: &[(u64, Option<usize>)], threads: usize, fail_fast: bool) -> Done {
    let began = Instant::now();
    let stops = |run: &SeedRun| fail_fast && run.report.violation.is_some();
    let mut runs = each(seeds, threads, stops, |(seed, nodes)| {
        let report = run_seed(seed, Options::of(seed, nodes), false);
        SeedRun { seed, nodes, report }
    });
    runs.sort_by_key(|run| run.seed);
    Done { took: began.elapsed(), runs }
}

/// Runs each of these, a few at once, until one `stops` it all. In no order.
pub(crate) fn each<S: Copy + Sync, T: Send>(
    seeds: &[S],
    threads: usize,
    stops: impl Fn(&T) -> bool + Sync,
    run: impl Fn(S) -> T + Sync,
) -> Vec<T> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let runs = Mutex::new(Vec::new());
    let bar = bar(seeds.len() as u64);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    let ran = run(*seed);
                    if stops(&ran) {
                        stop.store(true, Ordering::Relaxed);
                    }
                    bar.inc(1);
                    runs.lock().unwrap_or_else(PoisonError::into_inner).push(ran);
                }
            });
        }
    });
    bar.finish_and_clear();
    runs.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn bar(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    let template = "  {bar:40} {pos}/{len} seeds ({per_sec}, {eta} to go)";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
