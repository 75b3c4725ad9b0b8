//! What a leader says of the members.

use blixard_model::RaftId;
use blixard_model::wire::MemberProgress;

use crate::group::{Group, create, endpoint, waiter};

/// What node `n` says of a member, if it leads.
fn of(group: &mut Group, n: u8, member: u8) -> Option<MemberProgress> {
    let report = group.node(n).progress_report()?;
    report.members.into_iter().find(|progress| progress.raft_id == RaftId(member.into()))
}

fn write(group: &mut Group, leader: u8, vms: std::ops::Range<u32>) {
    for n in vms {
        group.node(leader).ask(create(&format!("vm-{n}"), None), endpoint(leader), waiter("write"));
        group.tick(1);
    }
}

#[test]
fn only_the_leader_says_how_far_everybody_is() {
    let mut group = Group::of(3);
    let leader = group.leader();
    group.tick(10);
    for n in 1..=3 {
        let report = group.node(n).progress_report();
        assert_eq!(report.is_some(), n == leader);
        let well = |p: &MemberProgress| p.behind == Some(0) && p.heard && !p.lost && !p.snapshot;
        assert!(report.is_none_or(|report| report.members.iter().all(well) && report.changes.is_empty()));
    }
}

#[test]
fn a_member_that_is_cut_off_falls_behind_and_is_lost_and_comes_back() {
    let mut group = Group::of(3);
    let leader = group.leader();
    let cut = group.follower();
    group.tick(10);
    group.cut.insert(cut);
    write(&mut group, leader, 0..20);
    let seen = of(&mut group, leader, cut).expect("a member");
    assert!(seen.behind >= Some(20) && !seen.heard && !seen.lost, "{seen:?}");
    group.tick(600);
    let seen = of(&mut group, leader, cut).expect("a member");
    assert!(seen.lost, "{seen:?}");
    let changes = group.node(leader).progress_report().expect("leads").changes;
    let [change] = &changes[..] else { panic!("one: {changes:?}") };
    assert!(change.what.contains("is lost since 62 s"), "{change:?}");
    assert_eq!(change.waits_for.as_deref(), Some("a learner that could vote in its place"));
    group.cut.clear();
    group.tick(60);
    let leader = group.leader();
    group.tick(10);
    let seen = of(&mut group, leader, cut).expect("a member");
    assert_eq!((seen.behind, seen.lost), (Some(0), false));
}

#[test]
fn a_new_leader_does_not_guess_how_far_one_is_of_whom_it_has_not_heard() {
    let mut group = Group::of(3);
    let old = group.leader();
    write(&mut group, old, 0..5);
    group.cut.insert(old);
    let new = group.leader();
    assert_ne!(new, old);
    group.tick(20);
    let seen = of(&mut group, new, old).expect("a member");
    assert!(seen.behind.is_none() && !seen.heard, "{seen:?}");
}
