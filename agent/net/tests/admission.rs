//! Which connections are accepted, and which peers are cut off.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use blixard_model::EndpointId;
use blixard_net::limits::IDLE_TIMEOUT;
use blixard_net::{DownReason, LinkState, NodeKey, NotSent, PeerConfig};
use blixard_net::{RequestError, SendOutcome};
use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;

use crate::support::{LONG, Raw, any_port, closed_with, hello, node, node_with, pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_endpoint_is_refused_and_delivers_nothing() {
    let (mut a, stranger) = (node().await, node().await);
    stranger.set_peers(vec![a.as_peer()]);
    let why = stranger.until_refused(a.id()).await;
    assert!(why.contains("list of members"), "{why}");
    assert_eq!(stranger.net.send_raft(a.id(), Bytes::from_static(b"x")), SendOutcome::Unreachable);
    let answer = stranger.net.request(a.id(), Bytes::from_static(b"x"), LONG).await;
    assert_eq!(answer, Err(RequestError::NotSent(NotSent::LinkDown)));

    // A stranger that does not wait for an answer but writes at once.
    let raw = Raw::new().await;
    let connection = raw.dial(&a).await;
    if let Ok((mut send, _receive)) = connection.open_bi().await {
        let _ = send.write_all(&hello(1, "lab")).await;
        let _ = send.finish();
    }
    assert!(closed_with(&connection).await.contains("list of members"));
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
    assert!(a.net.links().borrow().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_strangers_do_not_keep_a_member_out() {
    let (a, b) = (node().await, node().await);
    a.set_peers(vec![PeerConfig { endpoint_id: b.id(), addresses: Vec::new(), relay_url: None }]);
    let raw = Raw::new().await;
    let strangers = futures_util::future::join_all((0..100).map(|_| raw.dial_as(&a, b"blixard/1")));
    let member = async {
        b.set_peers(vec![a.as_peer()]);
        b.until_up(a.id()).await
    };
    let (_, state) = tokio::join!(strangers, member);
    assert!(state.is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_name_is_refused_with_both_names() {
    let a = node_with(NodeKey::generate(), any_port(), "lab").await;
    let b = node_with(NodeKey::generate(), any_port(), "other").await;
    a.set_peers(vec![PeerConfig { endpoint_id: b.id(), addresses: Vec::new(), relay_url: None }]);
    b.set_peers(vec![a.as_peer()]);
    let why = b.until_refused(a.id()).await;
    assert!(why.contains("\"other\"") && why.contains("\"lab\""), "{why}");
    assert!(!a.net.links().borrow()[&b.id()].is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_is_refused_with_both_versions() {
    let (a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let connection = raw.dial(&a).await;
    let (mut send, _receive) = connection.open_bi().await.expect("stream");
    send.write_all(&hello(9, "lab")).await.expect("hello");
    let why = closed_with(&connection).await;
    assert!(why.contains("version 9") && why.contains("speaks 1"), "{why}");
    assert!(raw.dial_as(&a, b"blixard/9").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_peer_is_cut_off_at_once() {
    let (mut a, b) = pair().await;
    let removed = Instant::now();
    a.set_peers(Vec::new());
    assert!(a.net.links().borrow().is_empty());
    assert_eq!(a.net.send_raft(b.id(), Bytes::from_static(b"x")), SendOutcome::NotAPeer);
    let why = b.until_refused(a.id()).await;
    assert!(why.contains("list of members"), "{why}");
    assert!(removed.elapsed() < IDLE_TIMEOUT, "{:?}", removed.elapsed());
    // The removed peer goes on trying, and never gets anything through.
    b.until(a.id(), "retried", |state| matches!(state, LinkState::Down { attempts, .. } if *attempts >= 3))
        .await;
    assert_eq!(b.net.send_raft(a.id(), Bytes::from_static(b"x")), SendOutcome::Unreachable);
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
    // Once it is listed again, it gets its link back.
    a.set_peers(vec![b.as_peer()]);
    a.until_up(b.id()).await;
    b.until_up(a.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_list_again_changes_nothing() {
    let (a, b) = pair().await;
    let before = a.net.links().borrow().clone();
    a.set_peers(vec![a.as_peer(), b.as_peer(), b.as_peer()]);
    let (b_id, (_b, _echo)) = (b.id(), b.spawn_echo());
    assert_eq!(a.net.request(b_id, Bytes::new(), LONG).await, Ok(Bytes::new()));
    assert_eq!(*a.net.links().borrow(), before);
    assert_eq!(before.len(), 1, "the node itself is no peer");
    assert!(before.values().all(LinkState::is_up));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_address_is_dialled_at_once() {
    let (a, b) = (node().await, node().await);
    // Nobody listens where the first address points.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let wrong = PeerConfig {
        endpoint_id: b.id(),
        addresses: vec![silent.local_addr().expect("address")],
        relay_url: None,
    };
    a.set_peers(vec![wrong]);
    b.set_peers(vec![PeerConfig { endpoint_id: a.id(), addresses: Vec::new(), relay_url: None }]);
    let state = a.until(b.id(), "tried", |s| matches!(s, LinkState::Down { attempts: 1.., .. })).await;
    assert!(matches!(state, LinkState::Down { reason: DownReason::Unreachable(_), .. }), "{state:?}");
    a.set_peers(vec![b.as_peer()]);
    let started = Instant::now();
    a.until_up(b.id()).await;
    // An attempt at the old address may just have begun.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impossible_id_or_a_wrong_key_makes_a_peer_unreachable() {
    let (a, b) = (node().await, node().await);
    let impossible = (0..=255u8)
        .map(|byte| EndpointId::from_bytes([byte; 32]))
        .find(|id| blixard_net::key::check_endpoint_id(id).is_err())
        .expect("one of them");
    let other = NodeKey::generate().endpoint_id();
    let addresses = vec![b.addr()];
    a.set_peers(vec![
        PeerConfig { endpoint_id: impossible, addresses: addresses.clone(), relay_url: None },
        PeerConfig { endpoint_id: other, addresses, relay_url: None },
    ]);
    for id in [impossible, other] {
        let state = a.until(id, "tried", |s| matches!(s, LinkState::Down { attempts: 1.., .. })).await;
        assert!(matches!(state, LinkState::Down { reason: DownReason::Unreachable(_), .. }), "{state:?}");
    }
}
