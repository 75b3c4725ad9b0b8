//! A node that joins and is removed a hundred times while others write.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::load::Steady;
use super::{bench, load, numbers};

/// Joins, each followed by a removal.
const ROUNDS: usize = 100;
/// Pause between two writes.
const PAUSE: Duration = Duration::from_millis(20);
/// Most VMs that are created.
const VMS_MAX: usize = 9_900;

fn name(n: usize) -> String {
    format!("churn{n}")
}

#[test]
fn a_hundred_joins_and_removals_under_load() {
    let mut c = bench::formed_of(3);
    load::create(&c.nodes[0], 1, 1, 0);
    let leader = bench::leader(&c, 3);
    let led = bench::led(&c.nodes[leader]).expect("led");
    let writer = Steady::spawn(&c.nodes[leader], PAUSE, |n| {
        let node = format!("n{}", n % 3 + 1);
        let spec = json!({ "name": name(n), "cpus": 1, "memory_mib": 64, "kernel": "/k", "node": node });
        (n < VMS_MAX).then(|| ("/v1/vms".to_owned(), json!({ "spec": spec }).to_string()))
    });
    let begun = Instant::now();
    let (mut joins, mut removals) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bench::start_last(&mut c);
        let sent = Instant::now();
        bench::send_ticket(&c);
        bench::await_caught_up(&c);
        joins.push(sent.elapsed());
        let asked = Instant::now();
        bench::remove_last(&c, leader);
        removals.push(asked.elapsed());
    }
    let took = begun.elapsed();
    assert!(!writer.is_done(), "it wrote until the end");
    let seen = writer.stop();
    let there: BTreeSet<String> = c.nodes[leader].vms().into_iter().map(|vm| vm.name.to_string()).collect();
    let lost = seen.acknowledged.iter().filter(|write| !there.contains(&name(write.n))).count();
    let elections = bench::led(&c.nodes[leader]).expect("led").0 - led.0;
    numbers::print(
        "100 joins and removals under load",
        &json!({
            "seconds": took.as_secs(), "acknowledged": seen.acknowledged.len(), "lost": lost,
            "failed": seen.failed.len(), "unknown": seen.unknown.len(), "elections": elections,
            "longest_gap_ms": numbers::ms(seen.longest_gap()), "write_ms": numbers::spread(seen.times()),
            "join_ms": numbers::spread(joins), "removal_ms": numbers::spread(removals),
        }),
    );
    assert_eq!(lost, 0, "acknowledged and not there");
    bench::until(&c, "everybody has all of it", || {
        c.nodes[..3].iter().all(|node| bench::status(node).is_some_and(|s| s.vms == there.len()))
    });
}
