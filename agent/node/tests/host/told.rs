//! What one member sees of others is told by all.

use std::collections::BTreeMap;

use blixard_model::fences::{FenceState, Fences};

use super::*;

/// The leader's word on how far the members are, as node `at` is told it.
fn progress(hosts: &mut Hosts, at: u8) -> ProgressReport {
    let waiter = hosts.want(at, Want::Progress);
    hosts.until("it is told", |hosts| hosts.answers.contains_key(&waiter));
    let Some(Answer::Progress(told)) = hosts.answers.remove(&waiter) else { panic!("no progress") };
    let now = super::at(hosts.now_ms);
    hosts.host(at).member().expect("a member").progress(now, told)
}

#[test]
fn what_one_member_sees_of_a_key_that_two_agents_hold_is_told_to_all() {
    let mut hosts = Hosts::formed(3);
    let leader = hosts.leader();
    let mut followers = (1..=3).filter(|n| *n != leader);
    let (sees, held) = (followers.next().expect("one"), followers.next().expect("another"));
    let copied = KeyHeldTwice { endpoint_id: endpoint(held), addresses: vec![address(held), address(9)] };
    let all = |hosts: &mut Hosts| [1, 2, 3].map(|n| progress(hosts, n).held_twice);
    assert_eq!(all(&mut hosts), [const { Vec::new() }; 3]);
    hosts.give(sees, Input::HeldTwice { seen: vec![copied.clone()], refusals: Vec::new() });
    hosts.pass(1_500);
    assert_eq!(all(&mut hosts), [vec![copied.clone()], vec![copied.clone()], vec![copied]]);
    hosts.give(sees, Input::HeldTwice { seen: Vec::new(), refusals: Vec::new() });
    hosts.pass(1_500);
    assert_eq!(all(&mut hosts), [const { Vec::new() }; 3]);
}

#[test]
fn a_node_that_starts_without_a_quorum_says_that_it_has_not_read_the_log() {
    let mut hosts = Hosts::formed(3);
    let has_read = |hosts: &Hosts, n| hosts.host(n).member().is_some_and(|member| member.has_read_log());
    hosts.until("all have read it", |hosts| (1..=3).all(|n| has_read(hosts, n)));
    let alone = (1..=3).find(|n| *n != hosts.leader()).expect("one follows");
    hosts.cut.insert(alone);
    hosts.restart(alone, config(alone, 3));
    hosts.pass(5_000);
    assert!(!has_read(&hosts, alone));
    hosts.cut.clear();
    hosts.link_all();
    hosts.until("it has read it", |hosts| has_read(hosts, alone));
}

#[test]
fn what_ends_the_vms_of_a_node_is_told_to_all_while_it_reports() {
    let mut hosts = Hosts::formed(3);
    let follower = (1..=3).find(|n| *n != hosts.leader()).expect("one follows");
    let seen = Fences {
        supervisor: FenceState::Works,
        systemd_watchdog: FenceState::off("switched off"),
        last_resort: FenceState::off("none"),
        hardware_watchdog: FenceState::off("x".repeat(500)),
    };
    hosts.pass(3_000);
    assert!(progress(&mut hosts, 1).fences.is_empty(), "nobody has looked");
    hosts.give(follower, Input::Fences(Box::new(seen.clone())));
    hosts.pass(3_000);
    let mut cut = seen;
    cut.cut();
    let all = [1, 2, 3].map(|n| progress(&mut hosts, n).fences);
    let told = BTreeMap::from([(name(follower), cut)]);
    assert_eq!(all, [told.clone(), told.clone(), told]);
    hosts.cut.insert(follower);
    hosts.link_all();
    hosts.pass(8_000);
    let leader = hosts.leader();
    assert!(progress(&mut hosts, leader).fences.is_empty(), "what it said is too old");
    assert!(progress(&mut hosts, follower).fences.contains_key(&name(follower)), "of itself it knows");
}

#[test]
fn the_later_holder_of_a_key_stands_aside_and_starts_no_vm() {
    let mut hosts = Hosts::formed(3);
    let leader = hosts.leader();
    let later = (1..=3).find(|n| *n != leader).expect("one follows");
    let refused = |for_ms| HolderRefusal {
        peer: endpoint(leader),
        addresses: vec![address(later), address(9)],
        for_ms,
    };
    let said = |refusals| Input::HeldTwice { seen: Vec::new(), refusals };
    let starts = |hosts: &Hosts| {
        let begun = &hosts.machines[&later].begun;
        begun.iter().filter(|action| matches!(action, Action::Start(_))).count()
    };
    // A member that was started anew met the other one first: this host was there before.
    hosts.give(later, said(vec![refused(10)]));
    assert_eq!(hosts.machines[&later].stands_aside, None);
    hosts.give(later, said(vec![refused(3_600_000)]));
    assert_eq!(hosts.machines[&later].stands_aside, Some(true));
    let waiter = hosts.change(later, create("web", Some(later)));
    hosts.until("it is answered", |hosts| hosts.answers.contains_key(&waiter));
    hosts.pass(5_000);
    assert_eq!(starts(&hosts), 0);
    hosts.give(later, said(Vec::new()));
    assert_eq!(hosts.machines[&later].stands_aside, Some(false));
    // The first one may be cut off and run them: only an agent that is started anew takes them up.
    hosts.pass(10_000);
    assert_eq!(starts(&hosts), 0);
    hosts.restart(later, config(later, 3));
    hosts.until("the VM is started", |hosts| starts(hosts) > 0);
}

#[test]
fn a_member_that_is_silent_is_told_of_with_for_how_long_by_all() {
    let mut hosts = Hosts::formed(3);
    let leader = hosts.leader();
    let mut followers = (1..=3).filter(|n| *n != leader);
    let (silent, other) = (followers.next().expect("one"), followers.next().expect("another"));
    let of = |hosts: &mut Hosts, at: u8, n: u8| {
        let raft_id = hosts.host(at).member().expect("a member").state().member_by_endpoint(endpoint(n));
        let raft_id = raft_id.expect("a member").raft_id;
        let members = progress(hosts, at).members;
        members.into_iter().find(|member| member.raft_id == raft_id).and_then(|member| member.silent_ms)
    };
    hosts.pass(1_000);
    for at in [leader, other] {
        assert!(of(&mut hosts, at, silent).is_some_and(|ms| ms < 1_000), "{at}");
        assert_eq!(of(&mut hosts, leader, leader), None);
    }
    assert!(of(&mut hosts, other, leader).is_some_and(|ms| ms < 1_000), "by its own word");
    hosts.cut.insert(silent);
    hosts.pass(1_200);
    for at in [leader, other] {
        let ms = of(&mut hosts, at, silent).expect("told");
        assert!((1_100..1_800).contains(&ms), "{at}: {ms}");
    }
    // Nobody leads: the last leader's silence is known all the same.
    hosts.cut.insert(leader);
    hosts.pass(1_200);
    let ms = of(&mut hosts, other, leader).expect("known");
    assert!(ms >= 1_100, "{ms}");
}
