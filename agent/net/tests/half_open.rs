//! Connections that never say hello, and streams that trickle.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use blixard_net::limits::STREAMS_PER_PEER_MAX;
use blixard_net::{NodeKey, PeerConfig, RefusedStats};
use bytes::Bytes;
use iroh::endpoint::{Connection, VarInt};
use tokio::time::timeout;

use crate::support::{LONG, Node, Raw, closed_with, frame, hello, node, node_with};

/// Connections with a member's key that say nothing after the handshake, all from one address.
async fn silent(raw: &Raw, node: &Node, count: usize) -> Vec<Connection> {
    let dialled = futures_util::future::join_all((0..count).map(|_| raw.dial_as(node, b"blixard/1"))).await;
    dialled.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_of_one_source_are_capped_and_keep_no_other_out() {
    let (a, raw) = (node().await, Raw::new().await);
    let b = node_with(NodeKey::generate(), "127.0.0.2:0".parse().expect("address"), "lab").await;
    a.set_peers(vec![
        raw.as_peer(),
        PeerConfig { endpoint_id: b.id(), addresses: Vec::new(), relay_url: None },
    ]);
    let held = silent(&raw, &a, 200).await;
    let stats = a.net.stats();
    assert!((1..=32).contains(&stats.handshakes), "{stats:?}");
    assert!(stats.refused.crowded_source > 100, "{stats:?}");
    assert!(held.len() <= 40, "{} got through", held.len());

    b.set_peers(vec![a.as_peer()]);
    b.until_up(a.id()).await;
    // How long that takes is the machine's business: it was refused at no try.
    let refused = a.net.stats().refused;
    assert_eq!((refused.crowded, refused.crowded_source), (0, stats.refused.crowded_source));
    for connection in &held {
        assert!(closed_with(connection).await.contains("no hello in time"));
    }
    let stats = a.until_stats("free again", |stats| stats.handshakes == 0).await;
    assert_eq!(stats.refused.no_hello, u64::try_from(held.len()).expect("few"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_get_in_while_a_few_addresses_hold_every_place_of_strangers() {
    let a = node().await;
    let at = |n: u8| format!("127.0.0.{n}:0").parse().expect("address");
    let mut raws = Vec::new();
    for n in 2..8 {
        raws.push(Raw::on(at(n)).await);
    }
    let b = node_with(NodeKey::generate(), at(9), "lab").await;
    // The list gives no address for the silent ones. For the member it gives one, with a port at which nobody
    // answers, so that the member has to dial.
    let addresses = vec![SocketAddr::new(b.addr().ip(), 9)];
    let member = PeerConfig { endpoint_id: b.id(), addresses, relay_url: None };
    a.set_peers(raws.iter().map(Raw::as_peer).chain([member]).collect());
    // Places are given back after some seconds: on a slow machine the first ones before the last are taken.
    let mut held = Vec::new();
    let fill = async {
        for raw in raws.iter().cycle() {
            held.extend(silent(raw, &a, 20).await);
            let stats = a.net.stats();
            if stats.handshakes >= 64 && stats.refused.crowded > 0 {
                return stats.refused;
            }
        }
        unreachable!("a cycle has no end")
    };
    let before = timeout(LONG, fill).await.expect("every place is taken");
    b.set_peers(vec![a.as_peer()]);
    b.until_up(a.id()).await;
    let refused = a.net.stats().refused;
    assert_eq!((refused.crowded, refused.crowded_source), (before.crowded, before.crowded_source));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_their_cause() {
    let (a, member, stranger) = (node().await, Raw::new().await, Raw::new().await);
    a.set_peers(vec![member.as_peer()]);
    let connection = stranger.dial(&a).await;
    assert!(closed_with(&connection).await.contains("list of members"));
    for greeting in [hello(1, "other"), hello(9, "lab"), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let connection = member.dial(&a).await;
        let (mut send, _receive) = connection.open_bi().await.expect("stream");
        send.write_all(&greeting).await.expect("hello");
        closed_with(&connection).await;
    }
    let stats = a.until_stats("all refused", |stats| stats.refused.bad_hello == 3).await;
    assert_eq!((stats.refused.not_listed, stats.refused.no_hello), (1, 0), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialler_that_hangs_up_is_not_counted_as_a_bad_hello() {
    let (a, member) = (node().await, Raw::new().await);
    a.set_peers(vec![member.as_peer()]);
    for begun in [None, Some(&hello(1, "lab")[..9])] {
        let connection = member.dial(&a).await;
        let (mut send, _receive) = connection.open_bi().await.expect("stream");
        match begun {
            // The end of the stream arrives alone, as it may arrive before the end of the connection.
            None => send.finish().expect("open"),
            Some(begun) => {
                send.write_all(begun).await.expect("a beginning");
                send.reset(VarInt::from_u32(0)).expect("open");
            }
        }
        assert!(closed_with(&connection).await.contains("hung up"));
    }
    assert_eq!(a.net.stats().refused, RefusedStats::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_trickles_in_is_given_up_after_the_same_time_as_silence() {
    let (a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let connection = raw.dial(&a).await;
    let (mut send, _receive) = connection.open_bi().await.expect("stream");
    let started = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    // A byte now and then keeps the connection alive, but does not extend the deadline.
    let trickle = async {
        for byte in hello(1, "lab") {
            if send.write_all(&[byte]).await.is_err() {
                return;
            }
            pace.tick().await;
        }
    };
    let (why, ()) = tokio::join!(closed_with(&connection), trickle);
    // The deadline for the hello and the deadline for its frame are the same: either may come first.
    assert!(why.contains("no hello in time") || why.contains("no progress"), "{why}");
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_streams_that_trickle_end_and_the_link_goes_on() {
    let (mut a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let (connection, _send, _receive) = raw.link(&a).await;
    let mut raft = connection.open_uni().await.expect("stream");
    raft.write_all(&[1]).await.expect("kind");
    let mut slow = Vec::new();
    // One stream is taken by the hello, and one is left for a proper request.
    for _ in 0..STREAMS_PER_PEER_MAX - 2 {
        let (mut send, receive) = connection.open_bi().await.expect("stream");
        send.write_all(&[2, 0]).await.expect("a beginning");
        slow.push((send, receive));
    }
    let (mut send, _receive) = connection.open_bi().await.expect("stream");
    send.write_all(&[2]).await.expect("kind");
    send.write_all(&frame(b"ask")).await.expect("frame");
    assert_eq!(a.next_request().await.1, Bytes::from_static(b"ask"));
    let started = Instant::now();
    for (_send, receive) in &mut slow {
        let answer = timeout(LONG, receive.read_to_end(1 << 16)).await.expect("ended").expect("answer");
        assert!(String::from_utf8_lossy(&answer).contains("no progress"), "{answer:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
    assert!(a.net.links().borrow()[&raw.id()].is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_raft_message_ends_the_link() {
    let (a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let (connection, _send, _receive) = raw.link(&a).await;
    let mut raft = connection.open_uni().await.expect("stream");
    raft.write_all(&[1, 0, 0, 1]).await.expect("a beginning");
    let why = closed_with(&connection).await;
    assert!(why.contains("no progress"), "{why}");
}
