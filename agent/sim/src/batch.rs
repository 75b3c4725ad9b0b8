//! Many seeds, a few at once; each alone on its thread.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use blixard_sim::{Options, Report, run as run_seed};
use indicatif::{ProgressBar, ProgressStyle};

/// Which seeds, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) start: u64,
    pub(crate) seeds: u64,
    pub(crate) nodes: Option<usize>,
    pub(crate) threads: usize,
    pub(crate) fail_fast: bool,
}

/// What came of them.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) plan: Plan,
    pub(crate) took: Duration,
    /// By seed.
    pub(crate) reports: Vec<(u64, Report)>,
    /// The seeds that failed.
    pub(crate) failures: Vec<u64>,
}

/// Runs them all.
pub(crate) fn run(plan: &Plan) -> Done {
    let began = Instant::now();
    let (next, stop) = (AtomicU64::new(plan.start), AtomicBool::new(false));
    let reports = Mutex::new(Vec::new());
    let bar = bar(plan.seeds);
    std::thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= plan.start.saturating_add(plan.seeds) {
                        break;
                    }
                    let report = run_seed(seed, Options::of(seed, plan.nodes), false);
                    if report.violation.is_some() && plan.fail_fast {
                        stop.store(true, Ordering::Relaxed);
                    }
                    bar.inc(1);
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push((seed, report));
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|(seed, _)| *seed);
    let failed = reports.iter().filter(|(_, report)| report.violation.is_some());
    let failures = failed.map(|(seed, _)| *seed).collect();
    Done { plan: *plan, took: began.elapsed(), reports, failures }
}

fn bar(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    let template = "  {bar:40} {pos}/{len} seeds ({per_sec}, {eta} to go)";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
