//! From the removal of a node to the last closed connection.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{bench, load, numbers};
use crate::scenario::cluster::Cluster;

/// Removals that are measured.
const RUNS: usize = 20;
/// How long a removal may take until every reachable member has closed its connection.
const BOUND: Duration = Duration::from_secs(1);

/// The times from the answer, and from the commit at the leader, to the last closed link, in milliseconds,
/// taken from the members' logs; and whether a node still lists the removed member.
fn remove(c: &mut Cluster) -> (f64, f64, bool) {
    bench::join_last(c);
    bench::await_caught_up(c);
    let id = c.ids[3][..10].to_owned();
    let up = format!("link to {id} up");
    bench::until(c, "everybody has a link", || c.nodes[..3].iter().all(|node| node.log().contains(&up)));
    let asked = SystemTime::now();
    bench::remove_last(c, 0);
    let answered = SystemTime::now();
    let down = format!("link to {id} down");
    let closed_at =
        |c: &Cluster, node: usize| bench::logged(&c.nodes[node], &[&down]).filter(|time| *time >= asked);
    bench::until(c, "everybody has closed", || (0..3).all(|node| closed_at(c, node).is_some()));
    let last = (0..3).filter_map(|node| closed_at(c, node)).max().expect("three");
    let removed = ["membership changed", "Remove"];
    let commits = c.nodes[..3].iter().filter_map(|node| bench::logged(node, &removed));
    let commit = commits.filter(|time| *time >= asked).min().expect("committed");
    let since = |from: SystemTime| last.duration_since(from).map_or(0.0, numbers::ms);
    let open =
        c.nodes[..3].iter().any(|node| bench::status(node).is_some_and(|status| status.members.len() != 3));
    (since(answered), since(commit), open)
}

#[test]
fn removal_to_the_last_closed_connection() {
    let mut c = bench::formed_of(3);
    load::create(&c.nodes[0], 1, 1, 0);
    let begun = Instant::now();
    let runs: Vec<(f64, f64, bool)> = (0..RUNS).map(|_| remove(&mut c)).collect();
    let column = |of: fn(&(f64, f64, bool)) -> f64| -> Value {
        numbers::spread(runs.iter().map(|run| Duration::from_secs_f64(of(run) / 1000.0)).collect())
    };
    let late = runs.iter().filter(|run| run.1 > numbers::ms(BOUND)).count();
    let numbers = json!({
        "from_answer_ms": column(|run| run.0), "from_commit_ms": column(|run| run.1),
        "later_than_1_s": late, "seconds": begun.elapsed().as_secs(),
    });
    numbers::print("node remove to the last link closed by three members", &numbers);
    assert_eq!(late, 0, "{runs:?}");
}
