//! More than can be sent or taken: it is dropped or waits, and nothing else suffers.

use std::time::Instant;

use blixard_net::limits::{
    INCOMING_QUEUE_MAX, RAFT_QUEUE_BYTES_MAX, RAFT_QUEUE_FRAMES_MAX, SNAPSHOT_LEN_MAX,
};
use blixard_net::{DownReason, Incoming, NetStats, SendOutcome};
use bytes::Bytes;
use tokio::time::timeout;

use crate::support::{LONG, Node, Raw, node, pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_drops_and_delays_nobody() {
    let (mut a, mut b, raw) = (node().await, node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer(), b.as_peer()]);
    b.set_peers(vec![a.as_peer()]);
    a.until_up(b.id()).await;
    // It accepts the stream of Raft messages and never reads it.
    let (connection, _send, _receive) = raw.link(&a).await;
    let mut own = connection.open_uni().await.expect("stream");
    own.write_all(&[1]).await.expect("kind");
    a.until_up(raw.id()).await;

    let message = Bytes::from(vec![0; 64 << 10]);
    let started = Instant::now();
    let mut queued: u64 = 0;
    let most = 10 * u64::try_from(RAFT_QUEUE_FRAMES_MAX).expect("few");
    let mut outcome = SendOutcome::Queued;
    while outcome == SendOutcome::Queued {
        outcome = a.net.send_raft(raw.id(), message.clone());
        queued += 1;
        assert!(queued < most, "nothing bounds the queue");
    }
    assert_eq!(outcome, SendOutcome::QueueFull);
    let stats = a.net.stats().peers[&raw.id()].clone();
    assert_eq!(stats.dropped.queue_full, 1, "{stats:?}");
    assert!(stats.queue_messages > 0 && stats.queue_bytes > 0, "{stats:?}");
    assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());

    assert_eq!(a.net.send_raft(b.id(), Bytes::from_static(b"b")), SendOutcome::Queued);
    assert_eq!(b.next_raft().await.1, Bytes::from_static(b"b"));
    assert_eq!(b.net.send_raft(a.id(), Bytes::from_static(b"a")), SendOutcome::Queued);
    assert_eq!(a.next_raft().await.1, Bytes::from_static(b"a"));

    // One that takes nothing any more is as good as lost.
    let reason = a.until_down(raw.id()).await;
    assert!(matches!(&reason, DownReason::Lost(why) if why.contains("no progress")), "{reason}");
    assert_eq!(a.net.send_raft(raw.id(), message), SendOutcome::Unreachable);
    // Nothing is lost without being counted.
    let stats = a.until_stats("emptied", |stats| stats.peers[&raw.id()].queue_bytes == 0).await;
    let stats = &stats.peers[&raw.id()];
    let lost = stats.dropped.queue_full + stats.dropped.link_down;
    assert_eq!(stats.raft_sent + lost, queued + 1, "{stats:?}");
    assert_eq!((stats.queue_messages, stats.dropped.queue_full), (0, 1), "{stats:?}");
    assert!(stats.backoff.last_error.as_ref().is_some_and(|why| why.contains("no progress")), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_bounded_in_bytes_and_in_messages() {
    // A queue of its own for each bound, so that the other one is not reached first.
    // A window of the connection takes no more small ones than the queue does.
    for len in [4 << 20, 1 << 10] {
        let (a, raw) = (node().await, Raw::new().await);
        a.set_peers(vec![raw.as_peer()]);
        let (_connection, _send, _receive) = raw.link(&a).await;
        a.until_up(raw.id()).await;
        let message = Bytes::from(vec![0; len]);
        let mut queued = 0;
        let mut outcome = SendOutcome::Queued;
        while outcome == SendOutcome::Queued {
            outcome = a.net.send_raft(raw.id(), message.clone());
            queued += 1;
            // What is already written to the connection counts no more: twice the bound is room enough for
            // it.
            assert!(queued * len <= 4 * RAFT_QUEUE_BYTES_MAX, "bytes are not bounded");
            assert!(queued <= 100 * RAFT_QUEUE_FRAMES_MAX, "messages are not bounded");
        }
        // A sender that waited for room would see the link end first.
        assert_eq!(outcome, SendOutcome::QueueFull, "messages of {len} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_does_not_read_loses_raft_messages_and_no_requests() {
    let (a, mut b) = pair().await;
    let (a_net, b_id) = (a.net.clone(), b.id());
    let sent = 4 * INCOMING_QUEUE_MAX;
    for i in 0..sent {
        // The sender's own queue may be full for a moment: that is not what is looked at here.
        while a.net.send_raft(b_id, Bytes::from(i.to_string())) != SendOutcome::Queued {
            tokio::task::yield_now().await;
        }
    }
    // What has no room is gone, and counted; nobody reads yet.
    let all = u64::try_from(sent).expect("few");
    a.until_stats("all sent", |stats| stats.peers[&b_id].raft_sent == all).await;
    let dropped = all - u64::try_from(INCOMING_QUEUE_MAX).expect("few");
    let counted = |stats: &NetStats| {
        let peer = &stats.peers[&a.id()];
        (peer.raft_received, peer.dropped.inbox_full) == (all, dropped)
    };
    b.until_stats("all received", counted).await;
    let asked = tokio::spawn(async move { a_net.request(b_id, Bytes::from_static(b"?"), LONG).await });
    let mut arrived = 0;
    loop {
        match b.next().await {
            Incoming::Raft { .. } => arrived += 1,
            Incoming::Request { bytes, reply, .. } => {
                reply.send(bytes);
                break;
            }
            other => panic!("expected a message or a request, got {other:?}"),
        }
    }
    assert_eq!(asked.await.expect("task"), Ok(Bytes::from_static(b"?")));
    assert_eq!(arrived, INCOMING_QUEUE_MAX);
    while b.incoming.try_recv().is_ok() {}
    assert!(a.net.links().borrow()[&b_id].is_up(), "the link did not suffer");
    assert_eq!(a.net.send_raft(b_id, Bytes::from_static(b"last")), SendOutcome::Queued);
    while b.next_raft().await.1 != Bytes::from_static(b"last") {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_held_by_the_application_are_bounded_for_each_member() {
    let (a, mut b) = pair().await;
    let c = node().await;
    b.set_peers(vec![a.as_peer(), c.as_peer()]);
    c.set_peers(vec![b.as_peer()]);
    c.until_up(b.id()).await;
    let snapshot = Bytes::from(vec![1; SNAPSHOT_LEN_MAX / 2 + 1]);
    let mut delivered = async |from: &Node| {
        let delivery =
            timeout(LONG, from.net.send_snapshot(b.id(), snapshot.clone())).await.expect("in time");
        match delivery {
            Ok(()) => match b.next().await {
                Incoming::Snapshot { bytes, .. } => Ok(bytes),
                other => panic!("expected a snapshot, got {other:?}"),
            },
            Err(error) => Err(error.to_string()),
        }
    };
    let held = delivered(&a).await.expect("room");
    let refused = delivered(&a).await.map(|bytes| bytes.len());
    assert!(refused.as_ref().is_err_and(|why| why.contains("no room")), "{refused:?}");
    drop(delivered(&c).await.expect("another's room"));
    drop(held);
    drop(delivered(&a).await.expect("room again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_held_by_the_application_are_bounded() {
    let (a, mut b) = pair().await;
    let message = Bytes::from(vec![0; 4 << 20]);
    let mut held = Vec::new();
    // Eight times what may be held. The requests are the clock: each is answered after the messages before
    // it.
    for _ in 0..128 {
        while a.net.send_raft(b.id(), message.clone()) != SendOutcome::Queued {
            tokio::task::yield_now().await;
        }
        let answer = a.net.request(b.id(), Bytes::new(), LONG);
        let read = async {
            loop {
                match b.next().await {
                    Incoming::Raft { bytes, .. } => held.push(bytes),
                    Incoming::Request { reply, .. } => break reply.send(Bytes::new()),
                    other => panic!("expected a message or a request, got {other:?}"),
                }
            }
        };
        let (answer, ()) = tokio::join!(answer, read);
        assert_eq!(answer, Ok(Bytes::new()));
    }
    let bytes: usize = held.iter().map(Bytes::len).sum();
    assert!(bytes <= blixard_net::limits::INCOMING_RAFT_BYTES_MAX, "{bytes}");
    // Dropped by the application, they make room again.
    drop(held);
    let mut arrived = false;
    while !arrived {
        let _ = a.net.send_raft(b.id(), Bytes::from_static(b"again"));
        let (answer, ()) = tokio::join!(a.net.request(b.id(), Bytes::new(), LONG), async {
            loop {
                match b.next().await {
                    Incoming::Raft { bytes, .. } => arrived |= bytes == Bytes::from_static(b"again"),
                    Incoming::Request { reply, .. } => break reply.send(Bytes::new()),
                    other => panic!("expected a message or a request, got {other:?}"),
                }
            }
        });
        assert_eq!(answer, Ok(Bytes::new()));
    }
}
