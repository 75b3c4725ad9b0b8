//! How large the store's file gets under a steady load of writes while the log is compacted.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use super::{bench, load, numbers};
use crate::scenario::cluster::{Cluster, Node};

/// Writes between two measurements.
const WRITES: usize = 10_000;
/// VMs that these writes start and stop.
const VMS: usize = 300;

fn store_kib(node: &Node) -> u64 {
    fs::metadata(node.dir.join("store.redb")).expect("a store").len() >> 10
}

/// The sizes of the leader's file and of a follower's file after each round, in KiB.
fn grow(c: &Cluster, rounds: usize) -> Value {
    let leader = bench::leader(c, 3);
    let sizes: Vec<Value> = (0..rounds)
        .map(|_| {
            load::switch(&c.nodes[leader], WRITES, VMS);
            json!([store_kib(&c.nodes[leader]), store_kib(&c.nodes[(leader + 1) % 3])])
        })
        .collect();
    json!(sizes)
}

#[test]
fn the_file_under_a_steady_load() {
    let c = bench::formed_of(3);
    load::create(&c.nodes[0], 2, VMS, 100);
    let begun = Instant::now();
    let sizes = grow(&c, 10);
    let numbers = json!({ "kib_leader_follower": sizes, "seconds": begun.elapsed().as_secs() });
    numbers::print("store.redb after each 10000 writes, 300 VMs", &numbers);
}

/// The same measurement in a cluster that has the largest state.
pub(super) fn with_the_largest_state(c: &Cluster) {
    let begun = Instant::now();
    let sizes = grow(c, 5);
    let numbers = json!({ "kib_leader_follower": sizes, "seconds": begun.elapsed().as_secs() });
    numbers::print("store.redb after each 10000 writes, 10000 VMs", &numbers);
}
