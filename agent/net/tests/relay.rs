//! Links through a relay of the nodes' own list, and none through any other.
//!
//! A node on an IPv4 address and a node on an IPv6 address can reach each other only through the relay.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use blixard_model::{ClusterId, Contact, RelayUrl};
use blixard_net::{Incoming, JoinError, LinkState, NodeKey, PeerConfig, RelayList, SendOutcome};
use bytes::Bytes;

use crate::relay_server::Relay;
use crate::support::{LONG, Node, any_port, ms, start_with};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

fn any_port_v6() -> SocketAddr {
    "[::1]:0".parse().expect("address")
}

fn list(urls: &[&RelayUrl]) -> RelayList {
    RelayList::new(&urls.iter().copied().cloned().collect::<Vec<_>>()).expect("a list")
}

async fn node(bind: SocketAddr, relays: RelayList) -> Node {
    let node = start_with(NodeKey::generate(), bind, "lab", (relays, None));
    node.until_listening().await;
    node
}

/// A peer of which only a relay is known.
fn at(node: &Node, relay: &RelayUrl) -> PeerConfig {
    PeerConfig { endpoint_id: node.id(), addresses: Vec::new(), relay_url: Some(relay.clone()) }
}

fn goes_through(relay: &RelayUrl) -> impl Fn(&LinkState) -> bool {
    let relay = relay.clone();
    move |state: &LinkState| match state {
        LinkState::Up { remote_addr: None, relay_url: Some(url), .. } => *url == relay,
        _ => false,
    }
}

/// Two nodes with a link that can only go through the relay.
async fn apart(relay: &Relay) -> (Node, Node) {
    let (a, b) = (node(any_port(), relay.list()).await, node(any_port_v6(), relay.list()).await);
    a.set_peers(vec![at(&b, &relay.url)]);
    b.set_peers(vec![at(&a, &relay.url)]);
    a.until(b.id(), "up through the relay", goes_through(&relay.url)).await;
    b.until(a.id(), "up through the relay", goes_through(&relay.url)).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_passes_through_a_relay() {
    let relay = Relay::new().await;
    let begun = Instant::now();
    let (a, mut b) = apart(&relay).await;
    println!("MEASURED: up through a relay after {} ms", ms(begun));
    for number in 0..200u8 {
        assert_eq!(a.net.send_raft(b.id(), Bytes::from(vec![number; 300])), SendOutcome::Queued);
    }
    for number in 0..200u8 {
        assert_eq!(b.next_raft().await, (a.id(), Bytes::from(vec![number; 300])));
    }
    let snapshot = Bytes::from(vec![7; 4 << 20]);
    let begun = Instant::now();
    let delivery = a.net.send_snapshot(b.id(), snapshot.clone());
    let Incoming::Snapshot { from, bytes } = b.next().await else { panic!("expected the snapshot") };
    assert!(from == a.id() && bytes == snapshot);
    assert_eq!(delivery.await, Ok(()));
    println!("MEASURED: 4 MiB through a relay in {} ms", ms(begun));
    let (a_id, b_id) = (a.id(), b.id());
    let (b_net, echo) = b.spawn_echo();
    let begun = Instant::now();
    let answer = a.net.request(b_id, Bytes::from_static(b"who"), LONG).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"who")));
    println!("MEASURED: a request through a relay in {} ms", ms(begun));
    assert!(goes_through(&relay.url)(&a.net.links().borrow()[&b_id]), "still");
    assert!(goes_through(&relay.url)(&b_net.links().borrow()[&a_id]), "still");
    b_net.close().await;
    echo.await.expect("echo");
    a.net.close().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_lost_with_its_relay_and_comes_back_with_it() {
    let relay = Relay::new().await;
    let (a, mut b) = apart(&relay).await;
    let (url, address) = (relay.url.clone(), relay.address());
    let begun = Instant::now();
    relay.stop().await;
    a.until_down(b.id()).await;
    b.until_down(a.id()).await;
    println!("MEASURED: lost {} ms after its relay", ms(begun));
    assert!(begun.elapsed() < Duration::from_secs(10), "within seconds");
    let begun = Instant::now();
    let relay = Relay::on(address).await;
    a.until(b.id(), "up again", goes_through(&url)).await;
    b.until(a.id(), "up again", goes_through(&url)).await;
    println!("MEASURED: up again {} ms after its relay", ms(begun));
    assert_eq!(a.net.send_raft(b.id(), Bytes::from_static(b"again")), SendOutcome::Queued);
    assert_eq!(b.next_raft().await, (a.id(), Bytes::from_static(b"again")));
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_begins_over_a_relay_takes_a_direct_path_when_there_is_one() {
    let relay = Relay::new().await;
    let (a, b) = (node(any_port(), relay.list()).await, node(any_port(), relay.list()).await);
    a.set_peers(vec![at(&b, &relay.url)]);
    b.set_peers(vec![at(&a, &relay.url)]);
    for (one, other) in [(&a, &b), (&b, &a)] {
        let straight = |state: &LinkState| {
            matches!(state, LinkState::Up { remote_addr: Some(address), relay_url: None, .. }
                if *address == other.addr())
        };
        one.until(other.id(), "direct", straight).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_reached_through_the_relay_that_works_whichever_relay_is_named() {
    let (gone, relay) = (Relay::new().await, Relay::new().await);
    let dead = gone.url.clone();
    gone.stop().await;
    let relays = list(&[&dead, &relay.url]);
    let (a, b) = (node(any_port(), relays.clone()).await, node(any_port_v6(), relays).await);
    assert_eq!(a.net.home_relay(), Some(dead.clone()), "until it knows better");
    a.set_peers(vec![at(&b, &dead)]);
    b.set_peers(vec![at(&a, &dead)]);
    a.until(b.id(), "up through the living relay", goes_through(&relay.url)).await;
    a.until_stats("at home", |_| a.net.home_relay().as_ref() == Some(&relay.url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_not_in_the_own_list_is_never_contacted() {
    let relay = Relay::new().await;
    let foreign = TcpListener::bind("127.0.0.1:0").expect("listener");
    foreign.set_nonblocking(true).expect("nonblocking");
    let address = foreign.local_addr().expect("address");
    let foreign_url: RelayUrl = format!("http://{address}").parse().expect("url");
    let (a, b) = (node(any_port(), relay.list()).await, node(any_port_v6(), relay.list()).await);
    let stranger = PeerConfig {
        endpoint_id: NodeKey::generate().endpoint_id(),
        addresses: vec!["127.0.0.1:9".parse().expect("address")],
        relay_url: Some(foreign_url.clone()),
    };
    a.set_peers(vec![at(&b, &foreign_url), stranger.clone()]);
    assert_eq!(a.net.stats().foreign_relays, 2);
    // `a` dials the peer of which it has an address, again and again.
    a.until_stats("tried", |stats| stats.peers[&stranger.endpoint_id].connect_failures >= 2).await;
    a.set_peers(vec![at(&b, &relay.url), stranger]);
    b.set_peers(vec![at(&a, &relay.url)]);
    a.until(b.id(), "up through the own relay", goes_through(&relay.url)).await;
    let contact = Contact { endpoint_id: b.id(), addresses: Vec::new(), relay_url: Some(foreign_url) };
    match a.net.join(&contact, CLUSTER, Bytes::from_static(b"in"), LONG).await {
        Err(JoinError::Unreachable(why)) => assert!(why.contains("net.relay_urls"), "{why}"),
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert_eq!(a.net.stats().foreign_relays, 4);
    let called = foreign.accept().expect_err("nobody called");
    assert_eq!(called.kind(), std::io::ErrorKind::WouldBlock, "nobody called");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_relays_of_its_own_a_node_uses_none() {
    let relay = Relay::new().await;
    let (a, b) = (node(any_port(), RelayList::default()).await, node(any_port_v6(), relay.list()).await);
    assert_eq!(a.net.home_relay(), None);
    a.set_peers(vec![at(&b, &relay.url)]);
    b.set_peers(vec![at(&a, &relay.url)]);
    b.until_stats("tried", |stats| stats.peers[&a.id()].connect_failures >= 1).await;
    assert_eq!(a.net.stats().peers[&b.id()].connect_attempts, 0);
    assert!(!a.net.links().borrow()[&b.id()].is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_through_a_relay() {
    let relay = Relay::new().await;
    let (mut a, joiner) = (node(any_port(), relay.list()).await, node(any_port_v6(), relay.list()).await);
    a.net.serve_joins(Some(CLUSTER));
    let contact = Contact { endpoint_id: a.id(), addresses: Vec::new(), relay_url: Some(relay.url.clone()) };
    // The member may not be connected to the relay yet.
    a.until_stats("at the relay", |_| a.net.home_relay().is_some()).await;
    let asked = joiner.net.join(&contact, CLUSTER, Bytes::from_static(b"in"), LONG);
    let answered = async {
        match a.next().await {
            Incoming::Join { from, source, bytes, reply } => {
                assert!(from == joiner.id() && source.is_none() && bytes == "in");
                reply.send(Bytes::from_static(b"yes"));
            }
            other => panic!("expected a join, got {other:?}"),
        }
    };
    let (answer, ()) = tokio::join!(asked, answered);
    assert_eq!(answer, Ok(Bytes::from_static(b"yes")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_a_certificate_of_ones_own_is_used() {
    let (relay, ca) = Relay::with_tls().await;
    let on = |bind| start_with(NodeKey::generate(), bind, "lab", (relay.list(), Some(ca.clone())));
    let (a, b) = (on(any_port()), on(any_port_v6()));
    let trusting = start_with(NodeKey::generate(), any_port_v6(), "lab", (relay.list(), None));
    a.set_peers(vec![at(&b, &relay.url), at(&trusting, &relay.url)]);
    b.set_peers(vec![at(&a, &relay.url)]);
    trusting.set_peers(vec![at(&a, &relay.url)]);
    a.until(b.id(), "up through the relay", goes_through(&relay.url)).await;
    trusting.until_stats("tried", |stats| stats.peers[&a.id()].connect_failures >= 1).await;
    assert!(!trusting.net.links().borrow()[&a.id()].is_up(), "a public authority vouches for nothing here");
}
