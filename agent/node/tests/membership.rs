//! As leader: whose store is taken for lost, who is admitted.

use blixard_model::formation::Phase;
use blixard_model::{MembershipChange, RaftId, Role, StoreId};
use blixard_node::Notice;

use crate::group::{Group, endpoint, identity, store};

/// The store that node 3 says it has now.
const NEW: u8 = 33;

fn empty(n: u8, store_id: StoreId) -> blixard_model::formation::Identity {
    identity(n, store_id, Phase::Empty { promise: None })
}

/// A group whose node 3 is silent as a member for long enough to be taken for gone, and its leader.
fn without_the_third() -> (Group, u8) {
    let mut group = Group::of(3);
    group.cut.insert(3);
    let leader = group.leader();
    group.tick(30);
    group.notices.clear();
    (group, leader)
}

fn proposed(group: &Group) -> Vec<MembershipChange> {
    let proposed = |(_, notice): &(u8, Notice)| match notice {
        Notice::MembershipProposed(change) => Some(change.clone()),
        _ => None,
    };
    group.notices.iter().filter_map(proposed).collect()
}

fn version(group: &mut Group, n: u8) -> Option<u64> {
    Some(group.node(n).summary().membership_version)
}

#[test]
fn words_that_came_unasked_remove_nobody() {
    let (mut group, leader) = without_the_third();
    for _ in 0..20 {
        group.node(leader).note_identity(empty(3, store(NEW)), None).expect("goes on");
        group.tick(5);
    }
    assert_eq!(proposed(&group), []);
}

#[test]
fn an_answer_to_a_question_from_before_the_members_changed_removes_nobody() {
    let (mut group, leader) = without_the_third();
    let before = version(&mut group, leader);
    for store_id in [store(NEW), store(NEW + 1)] {
        // The second disk takes the first one's place as soon as that was admitted.
        let now = version(&mut group, leader);
        group.node(leader).note_identity(empty(3, store_id), now).expect("goes on");
        group.tick(20);
    }
    group.notices.clear();
    for _ in 0..20 {
        group.node(leader).note_identity(empty(3, store(NEW)), before).expect("goes on");
        group.tick(5);
    }
    assert_eq!(proposed(&group), []);
    let now = version(&mut group, leader);
    group.node(leader).note_identity(empty(3, store(NEW)), now).expect("goes on");
    group.tick(20);
    assert_ne!(proposed(&group), [], "asked now, it has that store now");
}

#[test]
fn a_member_that_answers_as_such_is_not_removed_whatever_is_said() {
    let mut group = Group::of(3);
    let leader = group.leader();
    let follower = group.follower();
    for _ in 0..20 {
        let now = version(&mut group, leader);
        group.node(leader).note_identity(empty(follower, store(NEW)), now).expect("goes on");
        group.tick(5);
    }
    assert_eq!(proposed(&group), []);
}

#[test]
fn a_new_leader_removes_nobody_whom_it_had_no_time_to_hear_of() {
    let mut group = Group::of(5);
    // Not the one with the lowest raft id: that one takes over.
    let leader = group.leader();
    let quiet = if leader == 5 { 4 } else { 5 };
    for _ in 0..30 {
        for n in (1..=5).filter(|n| *n != quiet) {
            let now = version(&mut group, n);
            group.node(n).note_identity(empty(quiet, store(NEW)), now).expect("goes on");
        }
        group.tick(1);
    }
    // Whoever is elected next hears of the other one a little late.
    group.cut.insert(quiet);
    assert!(group.node(leader).transfer_leadership());
    group.settle();
    assert_ne!(group.leader(), leader);
    group.tick(8);
    group.cut.clear();
    group.tick(30);
    let removes = |change: &MembershipChange| matches!(change, MembershipChange::Remove { .. });
    assert!(!proposed(&group).iter().any(removes), "{:?}", proposed(&group));
}

#[test]
fn a_store_that_is_lost_leaves_and_the_node_is_admitted_anew() {
    let (mut group, leader) = without_the_third();
    let now = version(&mut group, leader);
    group.node(leader).note_identity(empty(3, store(NEW)), now).expect("goes on");
    group.tick(20);
    let changes = proposed(&group);
    let [MembershipChange::Remove { raft_id: RaftId(3), .. }, MembershipChange::AddLearner { member, .. }] =
        &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!(
        (member.raft_id, member.node.endpoint_id, member.node.store_id),
        (RaftId(4), endpoint(3), store(NEW))
    );
    assert_eq!(member.role, Role::Learner);
    let members: Vec<RaftId> = group.node(leader).state().nodes.raft_ids().collect();
    assert_eq!(members, [1, 2, 4].map(RaftId));
    assert!(group.node(leader).state().has_left(RaftId(3)));
    let applied = group.notices.iter().filter(|(_, notice)| matches!(notice, Notice::MembershipChanged(_)));
    assert_eq!(applied.count(), 4, "two changes, on both that are there");
}
