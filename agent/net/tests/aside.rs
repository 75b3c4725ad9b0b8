//! A node that stands aside for another one that runs with its key.

use blixard_model::EndpointId;
use blixard_net::{DownReason, LinkState, NodeKey, PeerConfig, SendOutcome};
use bytes::Bytes;

use crate::support::{Node, Raw, any_port, closed_with, node, node_with, pair};

/// What a peer reads when a node that stands aside ends its link, or answers its attempt.
const TOLD: &str = "this agent stands aside";

fn is_aside(state: &LinkState) -> bool {
    matches!(state, LinkState::Down { reason: DownReason::StandsAside, .. })
}

fn is_held_elsewhere(state: &LinkState) -> bool {
    matches!(state, LinkState::Down { reason: DownReason::HeldElsewhere(_), .. })
}

/// Whether a node that stands aside has turned the peer away several times. With the loss of a link itself no
/// attempt is counted.
fn is_turned_away(state: &LinkState) -> bool {
    matches!(
        state,
        LinkState::Down { reason: DownReason::Lost(why), attempts: 3.., .. } if why.contains(TOLD)
    )
}

fn state(node: &Node, peer: EndpointId) -> LinkState {
    node.net.links().borrow().get(&peer).expect("listed").clone()
}

/// How often the node has tried to connect to the peer.
fn attempts(node: &Node, peer: EndpointId) -> u64 {
    node.net.stats().peers[&peer].connect_attempts
}

async fn reaches(from: &Node, to: &mut Node, word: &'static [u8]) {
    assert_eq!(from.net.send_raft(to.id(), Bytes::from_static(word)), SendOutcome::Queued);
    assert_eq!(to.next_raft().await, (from.id(), Bytes::from_static(word)));
}

/// Two nodes with one key. The first one is linked with `a`, which refuses the later one. The later one is
/// linked with `b`, which refuses the first one, as a member does that was started anew and met it second.
async fn two_with_one_key(a: &Node, b: &Node) -> (Node, Node) {
    let key = NodeKey::generate();
    let first = node_with(key.clone(), any_port(), "lab").await;
    let later = node_with(key, any_port(), "lab").await;
    // Neither member dials: what happens is up to the two nodes.
    let anywhere = || vec![PeerConfig { addresses: Vec::new(), ..first.as_peer() }];
    a.set_peers(anywhere());
    b.set_peers(anywhere());
    first.set_peers(vec![a.as_peer()]);
    first.until_up(a.id()).await;
    later.set_peers(vec![b.as_peer()]);
    later.until_up(b.id()).await;
    first.set_peers(vec![a.as_peer(), b.as_peer()]);
    first.until(b.id(), "refused", is_held_elsewhere).await;
    later.set_peers(vec![a.as_peer(), b.as_peer()]);
    later.until(a.id(), "refused", is_held_elsewhere).await;
    (first, later)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_aside_ends_its_links_and_makes_none_until_that_is_over() {
    let (mut a, mut aside) = pair().await;
    aside.net.stand_aside(true);
    aside.until(a.id(), "aside", is_aside).await;
    assert_eq!(aside.net.send_raft(a.id(), Bytes::from_static(b"no")), SendOutcome::Unreachable);
    let before = attempts(&aside, a.id());

    // A node that becomes a peer meanwhile is neither dialled nor let in.
    let mut new = node().await;
    aside.set_peers(vec![a.as_peer(), new.as_peer()]);
    new.set_peers(vec![aside.as_peer()]);
    for peer in [&a, &new] {
        peer.until(aside.id(), "turned away", is_turned_away).await;
        aside.until(peer.id(), "aside", is_aside).await;
    }
    assert_eq!((attempts(&aside, a.id()), attempts(&aside, new.id())), (before, 0));

    aside.net.stand_aside(false);
    for peer in [&mut a, &mut new] {
        aside.until_up(peer.id()).await;
        peer.until_up(aside.id()).await;
        reaches(&aside, peer, b"on").await;
        reaches(peer, &mut aside, b"back").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_holder_of_a_key_gets_the_links_of_the_later_one_and_gives_them_back_with_its_end() {
    let (mut a, mut b) = (node().await, node().await);
    let (mut first, mut later) = two_with_one_key(&a, &b).await;
    later.net.stand_aside(true);
    later.until(b.id(), "aside", is_aside).await;
    first.until_up(b.id()).await;
    b.until_up(first.id()).await;
    reaches(&first, &mut b, b"first").await;
    reaches(&b, &mut first, b"to the first").await;

    // It goes on asking the member that refused it, and that one alone.
    let before = later.net.stats().peers;
    let again = before[&a.id()].connect_failures + 2;
    let now = later.until_stats("asked again", |stats| stats.peers[&a.id()].connect_failures >= again).await;
    assert_eq!(now.peers[&b.id()].connect_attempts, before[&b.id()].connect_attempts);
    assert!(is_held_elsewhere(&state(&later, a.id())) && is_aside(&state(&later, b.id())));
    assert!(first.net.links().borrow().values().all(LinkState::is_up));

    // The answer tells when the first one is gone. The order to stand aside ends when the owner says so.
    first.net.close().await;
    later.until(a.id(), "not refused any more", |state| !is_held_elsewhere(state)).await;
    assert!(is_aside(&state(&later, b.id())));
    later.net.stand_aside(false);
    for member in [&mut a, &mut b] {
        later.until_up(member.id()).await;
        member.until_up(later.id()).await;
        reaches(&later, member, b"later").await;
        reaches(member, &mut later, b"to the later").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_the_first_holder_lost_is_not_kept_from_it_by_one_that_stands_aside() {
    let (a, b) = (node().await, node().await);
    let (first, later) = two_with_one_key(&a, &b).await;
    later.net.stand_aside(true);
    first.until_up(b.id()).await;
    // The member lets the later one in now, which learns by this that it is not refused there any more.
    first.set_peers(vec![b.as_peer()]);
    later.until(a.id(), "not refused any more", is_aside).await;
    first.set_peers(vec![a.as_peer(), b.as_peer()]);
    first.until_up(a.id()).await;
    assert!(is_aside(&state(&later, a.id())), "{:?}", state(&later, a.id()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_cannot_be_dialled_is_told_and_may_come_back() {
    let (a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let (connection, _send, _receive) = raw.link(&a).await;
    a.until_up(raw.id()).await;
    a.net.stand_aside(true);
    let why = closed_with(&connection).await;
    assert!(why.contains(TOLD), "{why}");
    a.until(raw.id(), "aside", is_aside).await;
    a.net.stand_aside(false);
    a.until(raw.id(), "not aside any more", |state| !is_aside(state)).await;
    let (_connection, _send, _receive) = raw.link(&a).await;
    a.until_up(raw.id()).await;
}
