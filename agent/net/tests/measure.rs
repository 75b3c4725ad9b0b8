//! Things done many times over, with their times:
//! `cargo test -p blixard-net --test net measure -- --nocapture --test-threads 1` prints them.

use std::time::{Duration, Instant};

use blixard_net::Incoming;
use bytes::Bytes;

use crate::support::{LONG, node, pair};

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!(
        "MEASURED {what}: n={} p50={:?} p90={:?} p99={:?} max={:?}",
        times.len(),
        percentile(&times, 50),
        percentile(&times, 90),
        percentile(&times, 99),
        percentile(&times, 100)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn link_up() {
    let mut times = Vec::new();
    for _ in 0..50 {
        let (a, b) = (node().await, node().await);
        let started = Instant::now();
        a.set_peers(vec![b.as_peer()]);
        b.set_peers(vec![a.as_peer()]);
        a.until_up(b.id()).await;
        b.until_up(a.id()).await;
        times.push(started.elapsed());
        a.net.close().await;
        b.net.close().await;
    }
    print("set_peers to link up on both sides", times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo() {
    let (a, b) = pair().await;
    let b_id = b.id();
    let (_b, _echo) = b.spawn_echo();
    let word = Bytes::from(vec![1; 256]);
    let mut times = Vec::new();
    for _ in 0..5000 {
        let started = Instant::now();
        a.net.request(b_id, word.clone(), LONG).await.expect("answer");
        times.push(started.elapsed());
    }
    print("request of 256 bytes and answer", times);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_round_trip() {
    let (mut a, b) = pair().await;
    let (a_id, b_id) = (a.id(), b.id());
    let (b_net, mut incoming) = (b.net.clone(), b.incoming);
    let echo = tokio::spawn(async move {
        let mut snapshots = 0;
        while let Some(message) = incoming.recv().await {
            match message {
                Incoming::Raft { bytes, .. } => drop(b_net.send_raft(a_id, bytes)),
                Incoming::Snapshot { .. } => snapshots += 1,
                Incoming::Request { .. } | Incoming::Join { .. } => {}
            }
        }
        snapshots
    });
    let word = Bytes::from(vec![1; 256]);
    let mut times = Vec::new();
    for _ in 0..5000 {
        let started = Instant::now();
        let _ = a.net.send_raft(b_id, word.clone());
        a.next_raft().await;
        times.push(started.elapsed());
    }
    print("Raft message of 256 bytes there and back", times);

    let snapshot = Bytes::from(vec![5; 128 << 20]);
    let started = Instant::now();
    let mut delivery = a.net.send_snapshot(b_id, snapshot);
    let mut times = Vec::new();
    let result = loop {
        let sent = Instant::now();
        let _ = a.net.send_raft(b_id, word.clone());
        tokio::select! {
            result = &mut delivery => break result,
            _ = a.next_raft() => times.push(sent.elapsed()),
        }
    };
    println!("MEASURED snapshot of 128 MiB: {result:?} after {:?}", started.elapsed());
    print("the same while the snapshot goes", times);
    b.net.close().await;
    echo.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close() {
    let mut times = Vec::new();
    for _ in 0..20 {
        let (a, b) = pair().await;
        let started = Instant::now();
        a.net.close().await;
        times.push(started.elapsed());
        b.until_down(a.key.endpoint_id()).await;
    }
    print("close of a node with a link", times);
}
