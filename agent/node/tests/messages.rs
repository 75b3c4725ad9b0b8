//! Whose messages are believed, and what ends a node.

use std::collections::BTreeSet;

use blixard_consensus::RaftRole;
use blixard_model::{RaftId, formation::Phase};
use blixard_node::{Envelope, NodeError, Notice};

use crate::group::{Group, create, endpoint, genesis, identity, store, waiter};

/// The frames that one node sends first, to whom, from whom: its campaign.
fn campaign(group: &mut Group) -> (u8, Vec<Envelope>) {
    for _ in 0..30 {
        let numbers: Vec<u8> = group.nodes.keys().copied().collect();
        for n in numbers {
            group.node(n).tick();
            let sends = group.turn(n);
            if !sends.is_empty() {
                return (n, sends);
            }
        }
    }
    panic!("nobody campaigned");
}

#[test]
fn a_message_under_the_raft_id_of_another_endpoint_is_dropped_and_told() {
    let mut group = Group::of(3);
    let (from, sends) = campaign(&mut group);
    let to = sends[0].to.as_bytes()[0];
    let liar = (1..=3).find(|n| *n != from && *n != to).expect("a third");
    group.node(to).handle_raft(endpoint(liar), &sends[0].frame, false).expect("goes on");
    assert!(group.turn(to).is_empty(), "a lie was answered");
    assert_eq!(group.notices, [(to, Notice::FalseSender { from: endpoint(liar) })]);
    // The same words of the one they belong to are answered.
    group.node(to).handle_raft(endpoint(from), &sends[0].frame, false).expect("goes on");
    assert_eq!(group.turn(to).len(), 1);
    assert_eq!(group.notices.len(), 1);
}

#[test]
fn a_frame_of_another_cluster_or_of_none_is_dropped() {
    let mut group = Group::of(3);
    let (from, sends) = campaign(&mut group);
    let to = sends[0].to.as_bytes()[0];
    let mut foreign = sends[0].frame.to_vec();
    foreign[0] ^= 1;
    for frame in [&foreign[..], &[], &foreign[..7]] {
        group.node(to).handle_raft(endpoint(from), frame, false).expect("goes on");
        assert!(group.turn(to).is_empty(), "{frame:?} was answered");
    }
    assert_eq!(group.notices, []);
}

#[test]
fn what_is_no_raft_message_is_dropped_and_told() {
    let mut group = Group::of(3);
    let (from, sends) = campaign(&mut group);
    let to = sends[0].to.as_bytes()[0];
    let mut broken = sends[0].frame[..16].to_vec();
    broken.extend([0xff; 8]);
    group.node(to).handle_raft(endpoint(from), &broken, false).expect("goes on");
    assert!(group.turn(to).is_empty());
    let [(told, Notice::BadMessage { from: of, .. })] = &group.notices[..] else {
        panic!("{:?}", group.notices);
    };
    assert_eq!((*told, *of), (to, endpoint(from)));
}

#[test]
fn a_heartbeat_above_the_log_ends_a_node_whose_disk_went_back() {
    let mut group = Group::of(3);
    let (leader, follower) = (group.leader(), group.follower());
    for vm in ["a", "b", "c"] {
        group.node(leader).ask(create(vm, None), endpoint(leader), waiter("w"));
        group.settle();
    }
    group.tick(3);
    let stored_before = group.node(follower).raft_status().commit;
    assert!(stored_before > 3);
    group.start(follower);
    group.node(leader).tick();
    group.node(leader).tick();
    let error = group.try_settle().expect_err("it goes on with less than it acknowledged");
    assert!(
        matches!(error, NodeError::RolledBack { stored, holds: 1 } if stored == stored_before),
        "{error:?}"
    );
    assert!(error.to_string().contains("move store.redb out"), "{error}");
}

#[test]
fn a_node_whose_raft_id_has_left_ends_and_only_at_the_word_of_its_own_cluster() {
    let mut group = Group::of(3);
    let cluster_id = group.node(1).state().cluster_id();
    let said = |cluster_id, you_left| {
        let genesis = genesis(3);
        let phase = Phase::Formed {
            applied: 1,
            members: Vec::new(),
            you_were_removed: false,
            cluster_id,
            genesis,
            raft_id: Some(RaftId(2)),
            your_raft_id: None,
            you_left,
        };
        identity(2, store(2), phase)
    };
    group.node(1).note_identity(said(cluster_id, false), None).expect("goes on");
    let other = blixard_model::ClusterId::from_bytes([9; 16]);
    group.node(1).note_identity(said(other, true), None).expect("another cluster's word is nothing");
    let left = group.node(1).note_identity(said(cluster_id, true), None).expect_err("goes on");
    assert!(matches!(left, NodeError::Left { raft_id: RaftId(1) }), "{left:?}");
}

#[test]
fn leadership_is_handed_over_by_who_has_it_to_somebody_there() {
    let mut group = Group::of(3);
    let (leader, follower) = (group.leader(), group.follower());
    assert!(!group.node(follower).transfer_leadership(), "it does not lead");
    assert!(group.node(leader).transfer_leadership());
    group.settle();
    assert_ne!(group.leader(), leader);
    assert_eq!(group.node(leader).summary().role, RaftRole::Follower);

    let mut alone = Group::of(1);
    let only = alone.leader();
    assert!(!alone.node(only).transfer_leadership(), "there is nobody");
    assert_eq!(alone.cut, BTreeSet::new());
}

#[test]
fn messages_that_could_not_be_sent_are_no_error_and_raft_goes_on_by_itself() {
    let mut group = Group::of(3);
    let leader = group.leader();
    group.node(leader).ask(create("a", None), endpoint(leader), waiter("before"));
    group.settle();
    // Nothing reaches anybody, and every one is told so.
    group.cut.extend([1, 2, 3]);
    for _ in 0..40 {
        for (n, node) in &mut group.nodes {
            (1..=3).filter(|m| m != n).for_each(|m| node.report_unreachable(RaftId(m.into())));
        }
        group.tick(1);
    }
    assert!(group.nodes.values().all(|node| !node.summary().leads), "it leads without a quorum");
    group.cut.clear();
    let leader = group.leader();
    group.node(leader).ask(create("b", None), endpoint(leader), waiter("after"));
    group.tick(5);
    let vms =
        |node: &crate::group::TestNode| node.state().vms.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert!(group.nodes.values().all(|node| vms(node) == ["a", "b"]), "{:?}", group.answers);
}
