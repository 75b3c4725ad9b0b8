//! More joins than can be served: they are refused, and nothing else suffers.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use blixard_model::ClusterId;
use blixard_net::limits::JOINS_MAX;
use blixard_net::{Incoming, JoinError, NetStats, NodeKey, SendOutcome};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use iroh::endpoint::Connection;
use tokio::sync::mpsc::error::TryRecvError;

use crate::support::{JOIN_ALPN, LONG, Node, Raw, closed_with, frame, ms, node, node_with, pair};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

/// Environment variable that is set in a process that runs only one test.
const ALONE: &str = "BLIXARD_NET_TEST_ALONE";

/// An address of the loopback network. Each address counts as a source of its own.
fn source(n: usize) -> SocketAddr {
    format!("127.0.0.{n}:0").parse().expect("address")
}

/// Connections of strangers that say nothing, each from a source of its own.
async fn silent(node: &Node, count: usize) -> Vec<(Raw, Connection)> {
    let mut held = Vec::new();
    for n in 0..count {
        let raw = Raw::on(source(2 + n)).await;
        let connection = raw.dial_as(node, JOIN_ALPN).await.expect("served");
        node.until_stats("under way", |stats| stats.joins.under_way == n + 1).await;
        held.push((raw, connection));
    }
    held
}

/// Memory that this process occupies, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib >> 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_joiners_are_bounded_and_are_cut_off_at_their_deadline() {
    let mut a = node().await;
    a.net.serve_joins(Some(CLUSTER));
    let begun = Instant::now();
    let held = silent(&a, JOINS_MAX).await;
    // A further join is refused, whether it comes from another source or from one of these.
    for n in [100, 2] {
        let joiner = node_with(NodeKey::generate(), source(n), "lab").await;
        let asked = joiner.net.join(&a.as_contact(), CLUSTER, Bytes::new(), LONG).await;
        assert!(matches!(asked, Err(JoinError::Busy(_))), "{asked:?}");
    }
    assert_eq!(a.net.stats().refused.join_crowded, 2);
    assert_eq!(a.net.stats().handshakes, 0, "a join holds no place of those who have not said hello");
    for (_raw, connection) in &held {
        let why = closed_with(connection).await;
        assert!(why.contains("no request to join in time"), "{why}");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let cut = |stats: &NetStats| (stats.joins.under_way, stats.refused.bad_join) == (0, JOINS_MAX as u64);
    a.until_stats("over", cut).await;
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_trickles_in_is_cut_off_at_the_same_deadline() {
    let (mut a, raw) = (node().await, Raw::new().await);
    a.net.serve_joins(Some(CLUSTER));
    let connection = raw.dial_as(&a, JOIN_ALPN).await.expect("served");
    let (mut send, _receive) = connection.accept_bi().await.expect("told");
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    let trickle = async {
        for byte in frame(b"a request that takes its time") {
            if send.write_all(&[byte]).await.is_err() {
                return;
            }
            pace.tick().await;
        }
    };
    let (why, ()) = tokio::join!(closed_with(&connection), trickle);
    assert!(why.contains("no request to join in time"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
}

/// Dials as a stranger `count` times, and leaves each time.
async fn storm(raw: &Raw, node: &Node, count: usize) {
    let dials = stream::iter(0..count).map(|_| async {
        if let Ok(connection) = raw.dial_as(node, JOIN_ALPN).await {
            // Most connections are refused; those that are not are left.
            tokio::select! {
                _ = connection.closed() => {}
                _ = connection.accept_bi() => {}
            }
        }
    });
    dials.buffer_unordered(8).collect::<Vec<()>>().await;
}

/// Sends Raft messages to and fro while `during` lasts. Returns how many rounds there were, and the longest
/// one.
async fn raft_during(a: &mut Node, b: &mut Node, during: impl Future<Output = ()>) -> (usize, Duration) {
    let mut during = std::pin::pin!(during);
    let (mut rounds, mut longest) = (0, Duration::ZERO);
    loop {
        let round = async {
            assert_eq!(a.net.send_raft(b.id(), Bytes::from_static(b"to")), SendOutcome::Queued);
            assert_eq!(b.next_raft().await.0, a.id());
            assert_eq!(b.net.send_raft(a.id(), Bytes::from_static(b"fro")), SendOutcome::Queued);
            assert_eq!(a.next_raft().await.0, b.id());
        };
        let begun = Instant::now();
        let mut round = std::pin::pin!(round);
        tokio::select! {
            () = &mut during => {
                round.await;
                return (rounds, longest);
            }
            () = &mut round => {}
        }
        rounds += 1;
        longest = longest.max(begun.elapsed());
    }
}

/// Runs in a process of its own, so that the memory of the other tests does not count.
#[test]
fn a_thousand_strangers_that_join_cost_a_link_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    if std::env::var_os(ALONE).is_some() {
        return runtime.expect("runtime").block_on(a_thousand_strangers());
    }
    let name = "join_overload::a_thousand_strangers_that_join_cost_a_link_nothing";
    let alone = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&alone.stdout);
    println!("{said}{}", String::from_utf8_lossy(&alone.stderr));
    assert!(alone.status.success() && said.contains("MEASURED"), "{}", alone.status);
}

async fn a_thousand_strangers() {
    let ((mut a, mut b), raw) = (pair().await, Raw::on(source(2)).await);
    a.net.serve_joins(Some(CLUSTER));
    let before = (a.net.links().borrow().clone(), b.net.links().borrow().clone());
    let (raw, a_handle) = (&raw, Node { key: a.key.clone(), net: a.net.clone(), incoming: idle() });
    // What both sides need for the first hundred connections stays allocated, so it is not measured.
    let (warm, _) = raft_during(&mut a, &mut b, storm(raw, &a_handle, 100)).await;
    let (resident, begun) = (resident_mib(), Instant::now());
    let (rounds, longest) = raft_during(&mut a, &mut b, storm(raw, &a_handle, 1_000)).await;
    let (took, grown) = (ms(begun), resident_mib().saturating_sub(resident));
    let refused = a.net.stats().refused;
    println!(
        "MEASURED 1000 joins of strangers in {took} ms beside {rounds} rounds of Raft messages (longest \
         {longest:?}): {grown} MiB more, {refused:?}"
    );
    assert!(warm > 0 && rounds > 50, "{rounds}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!(grown < 64, "{grown} MiB");
    assert_eq!((a.net.links().borrow().clone(), b.net.links().borrow().clone()), before);
    // Some joins may have been admitted, one at a time; all others are counted as refused.
    let admitted = 9 + took.div_ceil(1_000) + 10;
    let all = refused.join_crowded + refused.join_rate + refused.crowded + refused.crowded_source;
    assert!(u128::from(all) >= 1_100 - admitted - 10, "{refused:?}");
    assert!(refused.join_rate + refused.join_crowded > 500, "{refused:?}");
    a.until_stats("over", |stats| stats.joins.under_way == 0 && stats.handshakes == 0).await;
    assert_eq!(a.net.stats().joins.requests, 0);
}

/// A queue in which nothing arrives.
fn idle() -> tokio::sync::mpsc::Receiver<Incoming> {
    tokio::sync::mpsc::channel(1).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_join_while_joins_are_not_served_never_reach_the_application() {
    let (mut a, raw) = (node().await, Raw::on(source(2)).await);
    for _ in 0..50 {
        raw.dial_as(&a, JOIN_ALPN).await.expect_err("no such protocol");
    }
    let refused = |stats: &NetStats| stats.refused.handshake + stats.refused.crowded_source == 50;
    a.until_stats("refused", refused).await;
    assert_eq!(a.net.stats().joins, blixard_net::JoinStats::default());
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
}
