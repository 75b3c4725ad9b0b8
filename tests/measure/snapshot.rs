//! The largest state on its way to a new member.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{bench, load, numbers};
use crate::scenario::cluster::Cluster;

/// VMs of the largest state, as many as there may be.
pub(super) const VMS: usize = 10_000;
/// Length of each one's command line, the longest there may be.
pub(super) const CMDLINE_LEN: usize = 1_800;
/// Joins measured.
const RUNS: usize = 5;

/// Three nodes with the largest state.
pub(super) fn formed_with_the_largest_state() -> Cluster {
    let c = bench::formed_of(3);
    load::create(&c.nodes[bench::leader(&c, 3)], 3, VMS, CMDLINE_LEN);
    c
}

/// From the admission at the leader until the state is applied, by their logs.
fn transfer(c: &mut Cluster) -> Duration {
    let begun = SystemTime::now();
    bench::join_last(c);
    bench::await_caught_up(c);
    let admissions =
        c.nodes[..3].iter().filter_map(|node| bench::logged(node, &["membership changed", "AddLearner"]));
    let admitted = admissions.filter(|time| *time >= begun).min().expect("admitted");
    let applied =
        bench::logged(&c.nodes[3], &["state replaced by the leader's snapshot"]).expect("a snapshot");
    applied.duration_since(admitted).unwrap_or_default()
}

#[test]
#[ignore = "a measurement"]
fn the_largest_state_to_a_new_member() {
    let begun = Instant::now();
    let mut c = formed_with_the_largest_state();
    let filled = begun.elapsed();
    let mut bytes = 0.0;
    let times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let time = transfer(&mut c);
            bytes = bench::metric(&c.nodes[3], "blixard_snapshot_bytes");
            bench::remove_last(&c, 0);
            time
        })
        .collect();
    let rate = |time: &Duration| (bytes / 1e6 / time.as_secs_f64() * 10.0).round() / 10.0;
    let rates: Vec<Value> = times.iter().map(|time| json!(rate(time))).collect();
    let numbers = json!({
        "snapshot_mb": (bytes / 1e5).round() / 10.0, "admitted_to_applied_ms": numbers::spread(times),
        "mb_per_s": rates, "filled_in_s": filled.as_secs(),
    });
    numbers::print("snapshot of 10000 VMs, admitted to applied", &numbers);
}
