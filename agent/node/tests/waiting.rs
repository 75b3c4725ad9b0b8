//! Who waits is answered: with the outcome, with what is known, or is asked for again.

use std::collections::BTreeSet;

use blixard_core::planner::NotNow;
use blixard_model::{AskOutcome, Outcome};
use blixard_node::AttemptEnd;

use crate::group::{Group, Waiter, create, endpoint, name, waiter};

/// As in the crate: reads that Raft dropped are asked again after this many ticks.
const READ_RETRY_TICKS: usize = 5;

#[test]
fn a_proposal_is_answered_with_its_outcome_where_it_was_made_and_nowhere_else() {
    let mut group = Group::of(3);
    let (leader, follower) = (group.leader(), group.follower());
    group.node(follower).ask(create("a", None), endpoint(follower), waiter("to a follower"));
    group.node(leader).ask(create("a", None), endpoint(leader), waiter("to the leader"));
    group.settle();
    let not_leader = AttemptEnd::NotLeader { leader: Some(name(leader)) };
    assert_eq!(group.answer("to a follower"), Some(&not_leader));
    let applied = AttemptEnd::Decided(Outcome::done(Some(name(leader))).into());
    assert_eq!(group.answer("to the leader"), Some(&applied));
    assert_eq!(group.answers.len(), 2);
    assert_eq!(group.node(leader).waiting(), (0, 0));
}

#[test]
fn proposals_are_answered_unknown_when_the_leadership_is_lost() {
    let mut group = Group::of(3);
    let leader = group.leader();
    group.cut.insert(leader);
    group.node(leader).ask(create("a", None), endpoint(leader), waiter("w"));
    group.settle();
    assert_eq!(group.answer("w"), None);
    assert_eq!(group.node(leader).waiting(), (1, 0));
    group.until("it is answered", |group| group.answer("w").is_some());
    assert!(matches!(group.answer("w"), Some(AttemptEnd::Unknown { .. })), "{:?}", group.answers);
    assert_eq!(group.node(leader).waiting(), (0, 0));
}

#[test]
fn a_proposal_that_nobody_waits_for_is_forgotten() {
    let mut group = Group::of(3);
    let leader = group.leader();
    group.cut.insert(leader);
    group.node(leader).ask(create("a", None), endpoint(leader), Waiter { name: "w", gave_up: true });
    group.tick(1);
    assert_eq!(group.node(leader).waiting(), (0, 0));
    group.tick(40);
    assert_eq!(group.answer("w"), None);
}

#[test]
fn reads_that_raft_dropped_are_asked_again() {
    let mut group = Group::of(3);
    // Nobody leads: Raft drops them without a word.
    assert!(group.node(1).read(waiter("waits")));
    assert!(group.node(1).read(Waiter { name: "gone", gave_up: true }));
    group.settle();
    assert_eq!(group.node(1).waiting(), (0, 2));
    group.tick(READ_RETRY_TICKS);
    assert_eq!(group.node(1).waiting(), (0, 1), "who gave up is not asked for again");
    assert_eq!(group.reads, []);
    group.leader();
    group.tick(READ_RETRY_TICKS + 1);
    assert_eq!(group.reads, [(1, "waits")]);
    assert_eq!(group.node(1).waiting(), (0, 0));
}

#[test]
fn a_read_at_any_node_shows_what_was_acknowledged_before() {
    let mut group = Group::of(3);
    let (leader, follower) = (group.leader(), group.follower());
    group.node(leader).ask(create("a", None), endpoint(leader), waiter("w"));
    group.settle();
    assert!(group.node(follower).read(waiter("read")));
    group.tick(1);
    assert_eq!(group.reads, [(follower, "read")]);
    assert_eq!(group.node(follower).state().vms.len(), 1);
}

/// A leader that never heard of node 3, whose link stands.
fn new_leader() -> (Group, u8) {
    let mut group = Group::of(3);
    group.cut.insert(3);
    let leader = group.leader();
    group.node(leader).note_links([1, 2, 3].map(endpoint).into_iter().collect::<BTreeSet<_>>());
    (group, leader)
}

#[test]
fn a_new_leader_places_nothing_before_it_has_heard_of_the_linked_members() {
    let (mut group, leader) = new_leader();
    group.node(leader).ask(create("a", None), endpoint(leader), waiter("early"));
    group.settle();
    let rejected = group.answer("early");
    assert_eq!(rejected, Some(&AttemptEnd::NotNow(NotNow::NewLeader)));
    // A live one answers the first heartbeats.
    group.cut.clear();
    group.tick(3);
    group.node(leader).ask(create("a", Some(3)), endpoint(leader), waiter("heard"));
    group.settle();
    let done = AttemptEnd::Decided(Outcome::done(Some(name(3))).into());
    assert_eq!(group.answer("heard"), Some(&done));
}

#[test]
fn a_linked_member_that_says_no_word_is_waited_for_no_longer_and_given_nothing() {
    let (mut group, leader) = new_leader();
    group.tick(5);
    group.node(leader).ask(create("a", Some(3)), endpoint(leader), waiter("on the dead"));
    group.node(leader).ask(create("b", None), endpoint(leader), waiter("anywhere"));
    group.settle();
    let dead = group.answer("on the dead");
    let refused = |end: &AttemptEnd| matches!(end, AttemptEnd::Decided(AskOutcome::Refused { .. }));
    assert!(dead.is_some_and(refused), "{dead:?}");
    let anywhere = group.answer("anywhere");
    assert!(
        matches!(anywhere, Some(AttemptEnd::Decided(AskOutcome::Done { node: Some(on), .. }))
            if *on != name(3)),
        "{anywhere:?}"
    );
    // What it asks comes by another way than Raft's messages, and may come first.
    group.node(leader).ask(create("c", Some(3)), endpoint(3), waiter("its own"));
    group.settle();
    let done = AttemptEnd::Decided(Outcome::done(Some(name(3))).into());
    assert_eq!(group.answer("its own"), Some(&done));
}
