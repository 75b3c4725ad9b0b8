//! Growing a cluster: from the ticket to the third voter.

use std::time::Instant;

use blixard_model::Role;
use serde_json::{Value, json};

use super::{bench, load, numbers};
use crate::scenario::cluster::Cluster;

/// VMs that are started and stopped to fill the log.
const VMS: usize = 300;
/// Writes after which the log has been compacted many times.
const WRITES: usize = 100_000;

/// Lets a third node join two listed ones with a ticket, and waits until it is the third voter.
fn join_to_voter(c: &mut Cluster) -> Value {
    bench::start_last(c);
    let begun = Instant::now();
    bench::send_ticket(c);
    let name = c.nodes[2].name.clone();
    let mut learner = None;
    bench::until(c, "it votes", || {
        let role = bench::role(&c.nodes[0], &name);
        learner = learner.or(role.map(|_| begun.elapsed()));
        role == Some(Role::Voter)
    });
    let voter = begun.elapsed();
    let by_snapshot = c.nodes[2].log().contains("state replaced by the leader's snapshot");
    let applied = bench::status(&c.nodes[0]).expect("answers").applied;
    json!({
        "learner_ms": learner.map(numbers::ms), "voter_ms": numbers::ms(voter), "log_index": applied,
        "snapshots": c.nodes[2].log().matches("state replaced by the leader's snapshot").count(),
        "by_snapshot": by_snapshot,
    })
}

#[test]
fn join_to_voter_with_an_empty_log() {
    let mut c = bench::formed_of(2);
    let runs: Vec<Value> = (0..5)
        .map(|_| {
            let numbers = join_to_voter(&mut c);
            bench::remove_last(&c, 0);
            numbers
        })
        .collect();
    numbers::print("join to voter, empty log", &json!(runs));
}

#[test]
fn join_to_voter_after_100_000_writes() {
    let mut c = bench::formed_of(2);
    load::create(&c.nodes[0], 2, VMS, 100);
    let begun = Instant::now();
    load::switch(&c.nodes[bench::leader(&c, 2)], WRITES, VMS);
    let per_second = WRITES as f64 / begun.elapsed().as_secs_f64();
    let runs: Vec<Value> = (0..5)
        .map(|_| {
            let numbers = join_to_voter(&mut c);
            bench::remove_last(&c, 0);
            numbers
        })
        .collect();
    assert!(runs.iter().all(|run| run["by_snapshot"] == true), "the log was cut: {runs:?}");
    numbers::print(
        "join to voter, 100000 writes of 300 VMs in the log that was cut",
        &json!({ "runs": runs, "writes_per_second": per_second.round() }),
    );
}
