//! How much a snapshot under way delays the writes that are made meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;

use super::load::{Seen, Steady, Write};
use super::{bench, load, numbers};
use crate::scenario::cluster::Cluster;

/// Writes without a snapshot under way, measured before and after.
const SAMPLES: usize = 2_000;
/// How long snapshots are sent, one after the other.
const SPAN: Duration = Duration::from_secs(60);

/// A time in which a snapshot was under way: from the moment when the ticket was sent until the state was
/// applied.
type Span = (Instant, Instant);

/// The times of writes with nothing else under way.
fn alone(c: &Cluster, leader: usize) -> Vec<Duration> {
    let writer =
        Steady::spawn(&c.nodes[leader], Duration::ZERO, |n| load::switch_one(n).filter(|_| n < SAMPLES));
    bench::until(c, "enough writes", || writer.is_done());
    writer.stop().times()
}

/// Writes while the last node joins and is removed again and again.
fn beside_joins(c: &mut Cluster, leader: usize) -> (Seen, Vec<Span>) {
    let writer = Steady::spawn(&c.nodes[leader], Duration::ZERO, load::switch_one);
    let (begun, mut spans) = (Instant::now(), Vec::new());
    while begun.elapsed() < SPAN {
        bench::start_last(c);
        let sent = Instant::now();
        bench::send_ticket(c);
        bench::await_caught_up(c);
        spans.push((sent, Instant::now()));
        bench::remove_last(c, leader);
    }
    (writer.stop(), spans)
}

/// The times of those writes that overlap with a snapshot under way.
fn that_met(seen: &Seen, spans: &[Span]) -> Vec<Duration> {
    let met =
        |write: &&Write| spans.iter().any(|(from, to)| write.begun < *to && write.begun + write.took > *from);
    seen.acknowledged.iter().filter(met).map(|write| write.took).collect()
}

/// Measures writes without and with snapshots under way, in a cluster of three nodes and a node that joins.
pub(super) fn beside_snapshots(c: &mut Cluster) {
    let leader = bench::leader(c, 3);
    let led = bench::led(&c.nodes[leader]);
    let before = alone(c, leader);
    let (seen, spans) = beside_joins(c, leader);
    let after = alone(c, leader);
    let met = that_met(&seen, &spans);
    let usual = numbers::p99(&before).max(numbers::p99(&after));
    let factor = numbers::p99(&met).as_secs_f64() / usual.as_secs_f64();
    let long = met.iter().filter(|took| **took > usual * 2).count();
    let under_way = spans.iter().map(|(from, to)| *to - *from).collect();
    numbers::print(
        "one write after the other at the leader, state of 10000 VMs",
        &json!({
            "before_ms": numbers::spread(before), "beside_snapshots_ms": numbers::spread(met),
            "after_ms": numbers::spread(after), "p99_factor": numbers::two_decimals(factor),
            "longer_than_twice_the_usual_p99": long, "snapshot_under_way_ms": numbers::spread(under_way),
            "failed": seen.failed.len(), "unknown": seen.unknown.len(),
        }),
    );
    assert_eq!(bench::led(&c.nodes[leader]), led, "nobody had to elect");
}
