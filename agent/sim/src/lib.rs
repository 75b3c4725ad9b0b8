//! The proof machine: a whole cluster of production code on one thread, in virtual time, from one seed.
//!
//! What runs is what ships: `blixard-core`, `blixard-consensus`, `blixard-node` and `blixard-store` with its
//! real redb. Only the clock, the network, the disk, the hypervisor and the wiring of tasks are this crate's.
//! The same seed gives the same run, in every process. After each event the invariants are looked at, one
//! file for each; in the end everything is mended and what was asked for has to come to be.

pub mod disk;
mod invariants;
pub mod judge;
mod options;
mod planted;
pub mod regressions;
mod report;
mod rng;
mod trace;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use options::{Faults, Options};
pub use report::{Counts, Report, Violation};
pub use rng::SimRng;

/// Runs a seed; with `print` every event is told on standard output.
pub fn run(seed: u64, options: Options, print: bool) -> Report {
    caught(|| world::World::new(seed, options, print).run()).unwrap_or_else(|report| *report)
}

/// What a run gives, or the report of its panic.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Box<Report>> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = text.unwrap_or_else(|| "a panic without words".to_owned());
        let violation = Some(Violation { invariant: "no_panic", what, at_us: 0 });
        Box::new(Report { trace_hash: 0, counts: Counts::default(), violation })
    })
}
