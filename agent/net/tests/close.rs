//! How a node is closed.

use std::time::{Duration, Instant};

use blixard_net::limits::IDLE_TIMEOUT;
use blixard_net::{DownReason, LinkState, NodeKey, PeerConfig, SendOutcome};
use bytes::Bytes;

use crate::support::{any_port, node, node_on_freed, node_with, pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_tells_the_peers_and_frees_the_port() {
    let (a, mut b) = (node().await, node().await);
    let (b_id, b_addr) = (b.id(), b.addr());
    // `a` does not dial, so that the reason of the loss stays visible.
    a.set_peers(vec![PeerConfig { endpoint_id: b_id, addresses: Vec::new(), relay_url: None }]);
    b.set_peers(vec![a.as_peer()]);
    a.until_up(b_id).await;
    let started = Instant::now();
    b.net.clone().close().await;
    let closed = started.elapsed();
    let reason = a.until_down(b_id).await;
    assert_eq!(reason, DownReason::Lost("the peer was stopped".to_owned()));
    assert!(started.elapsed() < IDLE_TIMEOUT, "closed {closed:?}, seen {:?}", started.elapsed());
    // Handles that are still held have no effect any more.
    assert_ne!(b.net.send_raft(a.id(), Bytes::from_static(b"x")), SendOutcome::Queued);
    b.set_peers(Vec::new());
    assert!(b.incoming.recv().await.is_none(), "nothing can arrive any more");
    let again = node_on_freed(NodeKey::generate(), b_addr).await;
    assert_eq!(again.addr(), b_addr);
    again.net.close().await;
    a.net.close().await;
    b.net.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_does_not_wait_for_an_unreachable_peer() {
    let a = node().await;
    let nowhere = node_with(NodeKey::generate(), any_port(), "lab").await;
    let peer = nowhere.as_peer();
    nowhere.net.close().await;
    let id = peer.endpoint_id;
    a.set_peers(vec![peer]);
    // The second attempt is under way or about to be.
    a.until(id, "tried", |state| matches!(state, LinkState::Down { attempts: 1.., .. })).await;
    let started = Instant::now();
    a.net.close().await;
    println!("MEASURED close while a peer is dialled that does not answer: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_ends_everything() {
    let (a, b) = pair().await;
    let (mut incoming, a_id) = (a.incoming, a.net.endpoint_id());
    drop(a.net);
    assert!(incoming.recv().await.is_none(), "its tasks ended");
    b.until_down(a_id).await;
}
