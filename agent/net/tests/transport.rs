//! A node whose address cannot be listened on: it goes on living, says why, and listens as soon as it can.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use blixard_model::ClusterId;
use blixard_net::{
    DownReason, EndpointBindError, LinkState, NodeKey, NotSent, PeerConfig, RequestError, SendOutcome,
};
use blixard_net::{SnapshotError, TransportDown, TransportState};
use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use crate::support::{LONG, Node, node, node_with, start};

/// Waits until opening the transport has failed `times` times. Returns the reason, and the state itself.
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
async fn an_address_in_use_at_start_is_reported_and_is_bound_once_it_is_free() {
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

    // Nothing waits, nothing fails for good, and everything tells why.
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
async fn an_address_that_the_machine_does_not_have_is_reported_and_retried_with_backoff() {
    let address = "192.0.2.7:7431".parse().expect("address");
    let a = start(NodeKey::generate(), address, "lab");
    let (error, state) = until_failed(&a, 3).await;
    assert_eq!(error, EndpointBindError::NotLocal { address });
    let TransportState::Down { since, next_try, .. } = state else { unreachable!("failed") };
    // After three failures the wait is at least half of its longest value: this is no busy loop, and no long
    // pause either.
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
    timeout(LONG, a.net.close()).await.expect("closed in time");
    assert!(a.incoming.recv().await.is_none());
}

/// A node that listens on every address, as a peer that is reached at this address of its machine.
fn at(node: &Node, ip: &str) -> PeerConfig {
    let address = SocketAddr::new(ip.parse().expect("address"), node.addr().port());
    PeerConfig { addresses: vec![address], ..node.as_peer() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_listens_everywhere_is_reached_over_both_families() {
    for any in ["0.0.0.0:0", "[::]:0"] {
        let a = node_with(NodeKey::generate(), any.parse().expect("address"), "lab").await;
        assert_eq!(a.addr().is_ipv4(), any.starts_with('0'));
        assert_eq!(a.net.families().expect("it listens").to_string(), "IPv4 and IPv6");
        for (ip, bind) in [("127.0.0.1", "127.0.0.1:0"), ("::1", "[::1]:0"), ("::ffff:127.0.0.1", any)] {
            let b = node_with(NodeKey::generate(), bind.parse().expect("address"), "lab").await;
            a.set_peers(vec![PeerConfig { addresses: Vec::new(), ..b.as_peer() }]);
            b.set_peers(vec![at(&a, ip)]);
            b.until_up(a.id()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_a_family_that_the_node_does_not_use_is_reported_at_once() {
    let (a, b) = (node().await, node_with(NodeKey::generate(), any_v6(), "lab").await);
    for (from, to) in [(&a, &b), (&b, &a)] {
        let begun = Instant::now();
        from.set_peers(vec![to.as_peer()]);
        let named = |state: &LinkState| match state {
            LinkState::Down { reason: DownReason::Unreachable(why), .. } => {
                why.contains(&to.addr().to_string()) && why.contains("only") && why.contains("listen_address")
            }
            _ => false,
        };
        from.until(to.id(), "out of reach", named).await;
        let (contact, cluster) = (to.as_contact(), ClusterId::from_bytes([1; 16]));
        let error =
            from.net.join(&contact, cluster, Bytes::new(), LONG).await.expect_err("out of reach").to_string();
        assert!(error.contains("none of its addresses can be dialled"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "nothing is waited for: {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_in_use_in_one_family_is_reported_with_that_family() {
    let holder = held_in_ipv6_only();
    let port = holder.local_addr().expect("address").port();
    let everywhere = SocketAddr::new("0.0.0.0".parse().expect("address"), port);
    let a = start(NodeKey::generate(), everywhere, "lab");
    let in_use = EndpointBindError::InUse { address: SocketAddr::new("::".parse().expect("address"), port) };
    let named = |state: &TransportState| match state {
        TransportState::Down { reason: TransportDown::Bind(error), .. } => *error == in_use,
        _ => false,
    };
    a.until_transport("in use", named).await;
    drop(holder);
    a.until_listening().await;
    assert_eq!(a.net.families().expect("it listens").to_string(), "IPv4 and IPv6");
}

/// A socket whose port is free in IPv4. The port is below those that the kernel hands out when any port will
/// do, so that no test that runs beside this one is given it.
fn held_in_ipv6_only() -> UdpSocket {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("readable");
    let lowest: u16 = range.split_whitespace().next().and_then(|port| port.parse().ok()).expect("a port");
    let bound = |ip: &str, port: u16| UdpSocket::bind((ip, port));
    (1024..lowest)
        .rev()
        .find_map(|port| bound("0.0.0.0", port).and_then(|_free| bound("::1", port)).ok())
        .expect("a port below those handed out is free in both families")
}

fn any_v6() -> SocketAddr {
    "[::1]:0".parse().expect("address")
}
