//! Two nodes that run with one key.

use std::time::Instant;

use blixard_net::{DownReason, HeldElsewhere, LinkState, NodeKey, Rival, SendOutcome};
use bytes::Bytes;

use crate::support::{any_port, ms, node, node_on_freed, node_with};

/// Whether the link is down because the peer keeps its link with the other node.
fn is_held_elsewhere(state: &LinkState) -> bool {
    matches!(state, LinkState::Down { reason: DownReason::HeldElsewhere(_), .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_agent_with_a_key_is_refused_while_the_first_one_is_alive() {
    let (mut a, key) = (node().await, NodeKey::generate());
    let mut first = node_with(key.clone(), any_port(), "lab").await;
    a.set_peers(vec![first.as_peer()]);
    first.set_peers(vec![a.as_peer()]);
    let LinkState::Up { since, .. } = a.until_up(first.id()).await else { unreachable!("waited for up") };
    first.until_up(a.id()).await;

    let second = node_with(key, any_port(), "lab").await;
    second.set_peers(vec![a.as_peer()]);
    let begun = Instant::now();
    let LinkState::Down { reason: DownReason::HeldElsewhere(held), .. } =
        second.until(a.id(), "refused", is_held_elsewhere).await
    else {
        unreachable!("waited for it")
    };
    println!("MEASURED the second holder of a key is refused after {} ms", ms(begun));
    let HeldElsewhere { other_addr, own_addr, .. } = held;
    assert_eq!((other_addr, own_addr), (Some(first.addr()), Some(second.addr())));
    let named = Some(Rival { remote_addr: Some(second.addr()) });
    let names = |state: &LinkState| matches!(state, LinkState::Up { rival, .. } if *rival == named);
    a.until(first.id(), "with both named", names).await;

    // The second node is refused again and again, and the first node's link never ends.
    let tried = |state: &LinkState| {
        is_held_elsewhere(state) && matches!(state, LinkState::Down { attempts: 3.., .. })
    };
    second.until(a.id(), "refused again", tried).await;
    let links = a.net.links();
    let now = links.borrow().get(&first.id()).cloned();
    assert!(matches!(now, Some(LinkState::Up { since: now, .. }) if now == since), "{now:?}");
    assert_eq!(a.net.send_raft(first.id(), Bytes::from_static(b"on")), SendOutcome::Queued);
    assert_eq!(first.next_raft().await.1, Bytes::from_static(b"on"));
    assert_eq!(first.net.send_raft(a.id(), Bytes::from_static(b"back")), SendOutcome::Queued);
    assert_eq!(a.next_raft().await.1, Bytes::from_static(b"back"));

    first.net.close().await;
    second.until_up(a.id()).await;
    a.until(second.id(), "alone", |state| matches!(state, LinkState::Up { rival: None, .. })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_comes_back_is_refused_while_another_one_with_its_key_is_linked() {
    let (a, key) = (node().await, NodeKey::generate());
    let first = node_with(key.clone(), any_port(), "lab").await;
    let place = first.addr();
    a.set_peers(vec![first.as_peer()]);
    first.set_peers(vec![a.as_peer()]);
    first.until_up(a.id()).await;
    first.net.close().await;
    drop(first.incoming);
    let second = node_with(key.clone(), any_port(), "lab").await;
    second.set_peers(vec![a.as_peer()]);
    second.until_up(a.id()).await;
    let back = node_on_freed(key, place).await;
    back.set_peers(vec![a.as_peer()]);
    let LinkState::Down { reason: DownReason::HeldElsewhere(held), .. } =
        back.until(a.id(), "refused", is_held_elsewhere).await
    else {
        unreachable!("waited for it")
    };
    assert_eq!(held.other_addr, Some(second.addr()));
    second.until_up(a.id()).await;
}
