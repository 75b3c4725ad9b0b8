//! A node whose address can not be listened on: it lives, says why, and is back by itself.

use std::net::UdpSocket;
use std::time::Duration;

use blixard_net::{
    DownReason, EndpointBindError, LinkState, NodeKey, NotSent, PeerConfig, RequestError, SendOutcome,
};
use blixard_net::{SnapshotError, TransportDown, TransportState};
use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use crate::support::{LONG, Node, node, start};

/// The reason of a transport that could not be opened so many times, and the state itself.
async fn until_failed(node: &Node, times: u32) -> (EndpointBindError, TransportState) {
    let failed = |state: &TransportState| match state {
        TransportState::Down { reason: TransportDown::Bind(_), attempts, .. } => *attempts >= times,
        _ => false,
    };
    let state = node.until_transport("failed", failed).await;
    match &state {
        TransportState::Down { reason: TransportDown::Bind(error), .. } => (error.clone(), state),
        other => unreachable!("waited for a failure: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_at_start_is_named_and_the_link_comes_up_by_itself_when_it_is_free() {
    let holder = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = holder.local_addr().expect("address");
    let mut a = start(NodeKey::generate(), address, "lab");
    let mut b = node().await;
    a.set_peers(vec![b.as_peer()]);
    b.set_peers(vec![PeerConfig { endpoint_id: a.id(), addresses: vec![address], relay_url: None }]);
    let (error, state) = until_failed(&a, 2).await;
    assert_eq!(error, EndpointBindError::InUse { address });
    assert!(
        error.to_string().contains(&address.to_string()) && error.to_string().contains("ss -lunp"),
        "{error}"
    );
    assert!(!state.is_up());
    assert_eq!(a.net.local_addr(), None);

    // Nothing waits, nothing fails for good, everything says why.
    a.until(b.id(), "without a network", |link| {
        matches!(link, LinkState::Down { reason: DownReason::NoTransport, .. })
    })
    .await;
    for _ in 0..10 {
        assert_eq!(a.net.send_raft(b.id(), Bytes::from_static(b"early")), SendOutcome::NoTransport);
    }
    assert_eq!(a.net.stats().peers[&b.id()].dropped.no_transport, 10);
    let asked = a.net.request(b.id(), Bytes::from_static(b"?"), LONG).await;
    assert_eq!(asked, Err(RequestError::NotSent(NotSent::NoTransport(error.to_string()))));
    let snapshot =
        timeout(LONG, a.net.send_snapshot(b.id(), Bytes::from_static(b"s"))).await.expect("a result");
    assert_eq!(snapshot, Err(SnapshotError::NoTransport(error.to_string())));
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)), "the queue of what arrives is open");

    drop(holder);
    a.until_up(b.id()).await;
    b.until_up(a.id()).await;
    assert_eq!(a.net.local_addr(), Some(address));
    assert_eq!(a.net.send_raft(b.id(), Bytes::from_static(b"there")), SendOutcome::Queued);
    assert_eq!(b.next_raft().await, (a.id(), Bytes::from_static(b"there")));
    assert_eq!(b.net.send_raft(a.id(), Bytes::from_static(b"back")), SendOutcome::Queued);
    assert_eq!(a.next_raft().await, (b.id(), Bytes::from_static(b"back")));
    let stats = a.net.stats();
    assert!(stats.transport_failures >= 2 && stats.transport_rebuilds == 0, "{stats:?}");
    assert_eq!(stats.peers[&b.id()].dropped.no_transport, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_the_machine_does_not_have_is_named_and_tried_again_at_a_bounded_pace() {
    let address = "192.0.2.7:7431".parse().expect("address");
    let a = start(NodeKey::generate(), address, "lab");
    let (error, state) = until_failed(&a, 3).await;
    assert_eq!(error, EndpointBindError::NotLocal { address });
    let TransportState::Down { since, next_try, .. } = state else { unreachable!("failed") };
    // Half of the longest wait is the least there can be after three: no busy loop, and no long pause either.
    let pause = next_try.expect("waits").saturating_duration_since(since);
    assert!(pause > Duration::from_millis(300) && pause < LONG, "{pause:?}");
    a.net.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_network_can_be_closed() {
    let mut a = start(NodeKey::generate(), "192.0.2.7:7431".parse().expect("address"), "lab");
    a.set_peers(vec![PeerConfig {
        endpoint_id: NodeKey::generate().endpoint_id(),
        addresses: Vec::new(),
        relay_url: None,
    }]);
    until_failed(&a, 1).await;
    timeout(Duration::from_secs(2), a.net.close()).await.expect("closed in time");
    assert!(a.incoming.recv().await.is_none());
}
