//! Nodes that the cluster removed: they are cut off at once, never let in, and told why.

use std::collections::BTreeMap;
use std::time::Instant;

use blixard_model::EndpointId;
use blixard_net::limits::IDLE_TIMEOUT;
use blixard_net::{DownReason, Incoming, LinkState, PeerConfig, SendOutcome};
use bytes::Bytes;
use iroh::endpoint::VarInt;
use tokio::sync::mpsc::error::TryRecvError;

use crate::support::{LONG, Node, Raw, closed_with, hello, node, pair};

fn removed(id: EndpointId, word: &str) -> BTreeMap<EndpointId, String> {
    BTreeMap::from([(id, word.to_owned())])
}

/// Waits until the link is down because of a removal. Returns the text about the removal, and how many
/// attempts have failed.
async fn until_removed(node: &Node, by: EndpointId, attempts: std::ops::RangeFrom<u32>) -> (String, u32) {
    let told = |state: &LinkState| match state {
        LinkState::Down { reason: DownReason::Removed(_), attempts: failed, .. } => attempts.contains(failed),
        _ => false,
    };
    match node.until(by, "removed", told).await {
        LinkState::Down { reason: DownReason::Removed(word), attempts, .. } => (word, attempts),
        other => unreachable!("waited for a removal: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_peer_is_cut_off_at_once_and_told_about_the_removal() {
    let (mut a, b) = pair().await;
    let mut links = b.net.links();
    let begun = Instant::now();
    a.net.set_peers(vec![b.as_peer()], removed(b.id(), "7"));
    assert!(a.net.links().borrow().is_empty());
    assert_eq!(a.net.send_raft(b.id(), Bytes::from_static(b"x")), SendOutcome::NotAPeer);
    links.wait_for(|links| !links[&a.id()].is_up()).await.expect("open");
    assert!(begun.elapsed() < IDLE_TIMEOUT, "{:?}", begun.elapsed());
    let (word, _) = until_removed(&b, a.id(), 0..).await;
    assert_eq!(word, "7");
    // The removed peer goes on trying, and is refused with the text each time.
    assert_eq!(until_removed(&b, a.id(), 2..).await.0, "7");
    assert_eq!(b.net.send_raft(a.id(), Bytes::from_static(b"x")), SendOutcome::Unreachable);
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
    a.until_stats("counted", |stats| stats.refused.removed >= 2 && stats.refused.not_listed == 0).await;
    // A peer that is no longer removed is let in.
    a.set_peers(vec![b.as_peer()]);
    b.until_up(a.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_ended_a_link_differs_from_one_that_refused_an_attempt() {
    // Only `a` has an address to dial, so `b` keeps the reason that ended its link.
    let (a, b) = (node().await, node().await);
    b.set_peers(vec![PeerConfig { endpoint_id: a.id(), addresses: Vec::new(), relay_url: None }]);
    a.set_peers(vec![b.as_peer()]);
    b.until_up(a.id()).await;
    a.net.set_peers(Vec::new(), removed(b.id(), "7"));
    assert_eq!(until_removed(&b, a.id(), 0..).await, ("7".to_owned(), 0));
    // Another removed node has no link, and dials.
    let c = node().await;
    a.net.set_peers(vec![c.as_peer()], removed(c.id(), "8"));
    c.set_peers(vec![a.as_peer()]);
    let (word, attempts) = until_removed(&c, a.id(), 0..).await;
    assert!(word == "8" && attempts >= 1, "{word} {attempts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_removed_peer_sent_is_delivered_after_its_removal() {
    let (mut a, b) = pair().await;
    let (b_net, a_id) = (b.net.clone(), a.id());
    let sending = tokio::spawn(async move {
        while b_net.links().borrow()[&a_id].is_up() {
            let _ = b_net.send_raft(a_id, Bytes::from_static(b"from a member"));
            tokio::task::yield_now().await;
        }
    });
    let mut arrived = 0;
    while arrived < 1_000 {
        arrived += usize::from(matches!(a.next().await, Incoming::Raft { .. }));
    }
    a.net.set_peers(Vec::new(), removed(b.id(), "7"));
    // What is in the queue already belongs to the application.
    while a.incoming.try_recv().is_ok() {}
    until_removed(&b, a_id, 0..).await;
    sending.await.expect("task");
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_of_a_node_removed_after_its_handshake_is_refused_as_removed() {
    let (a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let connection = raw.dial(&a).await;
    a.net.set_peers(vec![raw.as_peer()], removed(raw.id(), "7"));
    let (mut send, _receive) = connection.open_bi().await.expect("stream");
    send.write_all(&hello(1, "lab")).await.expect("hello");
    assert_eq!(closed_with(&connection).await, "removed from the cluster: 7");
    assert_eq!(a.net.stats().refused.removed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_removed_while_it_is_dialled_is_told_about_the_removal() {
    let (a, raw) = (node().await, Raw::new().await);
    let addresses = raw.endpoint.bound_sockets();
    a.set_peers(vec![PeerConfig { endpoint_id: raw.id(), addresses, relay_url: None }]);
    let incoming = tokio::time::timeout(LONG, raw.endpoint.accept()).await.expect("dialled");
    let connection = incoming.expect("open").await.expect("handshake");
    // The node has said hello and waits for the welcome.
    let (_send, mut receive) = connection.accept_bi().await.expect("hello");
    receive.read_exact(&mut [0; 4]).await.expect("hello");
    a.net.set_peers(Vec::new(), removed(raw.id(), "7"));
    assert_eq!(closed_with(&connection).await, "removed from the cluster: 7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_text_about_a_removal_is_an_ordinary_refusal() {
    let (a, raw) = (node().await, Raw::new().await);
    let addresses = raw.endpoint.bound_sockets();
    a.set_peers(vec![PeerConfig { endpoint_id: raw.id(), addresses, relay_url: None }]);
    let long = format!("removed from the cluster: {}", "7".repeat(65));
    let texts = ["removed from the cluster: ", "removed", "removed from the cluster: a\nb", &long];
    for text in texts {
        let incoming = tokio::time::timeout(LONG, raw.endpoint.accept()).await.expect("dialled");
        let connection = incoming.expect("open").await.expect("handshake");
        connection.close(VarInt::from_u32(8), text.as_bytes());
        a.until_refused(raw.id()).await;
    }
    let incoming = tokio::time::timeout(LONG, raw.endpoint.accept()).await.expect("dialled");
    let connection = incoming.expect("open").await.expect("handshake");
    connection.close(VarInt::from_u32(8), b"removed from the cluster: 7");
    assert_eq!(until_removed(&a, raw.id(), 1..).await.0, "7");
}
