//! The largest state: sent to a new member, beside writes, and on disk.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{bench, disk, latency, load, numbers};
use crate::scenario::cluster::Cluster;

/// VMs in the largest state, as many as a cluster may hold.
const VMS: usize = 10_000;
/// Length of each VM's command line, the longest that is allowed.
const CMDLINE_LEN: usize = 1_800;
/// Joins that are measured.
const RUNS: usize = 5;

/// The time from the admission at the leader until the state is applied, taken from their logs.
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

/// Measures joins of a node, one after the other.
fn joins(c: &mut Cluster) {
    let mut bytes = 0.0;
    let times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let time = transfer(c);
            bytes = bench::metric(&c.nodes[3], "blixard_snapshot_bytes");
            bench::remove_last(c, 0);
            time
        })
        .collect();
    let rate = |time: &Duration| (bytes / 1e6 / time.as_secs_f64() * 10.0).round() / 10.0;
    let rates: Vec<Value> = times.iter().map(|time| json!(rate(time))).collect();
    let numbers = json!({
        "snapshot_mb": (bytes / 1e5).round() / 10.0, "admitted_to_applied_ms": numbers::spread(times),
        "mb_per_s": rates,
    });
    numbers::print("snapshot of 10000 VMs, admitted to applied", &numbers);
}

#[test]
fn the_largest_state() {
    let mut c = bench::formed_of(3);
    let _apart = bench::put_last_apart(&c);
    load::create(&c.nodes[bench::leader(&c, 3)], 3, VMS, CMDLINE_LEN);
    joins(&mut c);
    latency::beside_snapshots(&mut c);
    disk::with_the_largest_state(&c);
}
