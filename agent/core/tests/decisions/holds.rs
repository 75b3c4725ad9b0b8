//! Long leases: what a node announces, a cluster that is disarmed, and terms that change.

use std::collections::BTreeSet;

use blixard_core::lease::{Grantor, Holder, LeaseStep};
use blixard_core::state::LeaseHold;
use blixard_model::{
    ClusterVersion, Command, Desired, GrantId, HoldAsk, LeaseDenial, LeaseFile, LeaseGrant, LeaseRenewal,
    LeaseTerms, LeaseTermsChoice, MembershipChange, OnNodeLoss, Outcome, RaftId, Removal, Request, RequestId,
    VmSpec, VmsFate,
};

use crate::common::{Cluster, name, node, spec};
use crate::lease::{
    BOOT, NEXT_BOOT, TERMS, WAIT_MS, WALL_MS, cluster, enforce, grant, holder, is_done, lost, on, place,
    renew, renewal, step,
};

/// How long a leader waits after a lease of two minutes: with the stop time, the clocks and the margin.
const HELD_WAIT_MS: u64 = 129_526;

fn take(n: u64, begins_ms: u64, length_ms: u64) -> Command {
    Command::TakeHold { raft_id: RaftId(n), hold: HoldAsk { boot_id: BOOT, begins_ms, length_ms } }
}

fn hold_of(cluster: &Cluster, n: &str) -> Option<LeaseHold> {
    cluster.state.leases.holders[&node(n)].hold
}

fn disarm(for_ms: u64) -> Command {
    Command::Disarm { for_ms, at_ms: WALL_MS }
}

#[test]
fn a_hold_is_waited_out_by_every_leader_and_a_lost_node_has_none() {
    let mut cluster = cluster();
    let mut grantor = Grantor::new(3, TERMS, 0);
    renew(&mut grantor, 1_000, &cluster.state.leases, renewal(None)).expect("granted");
    assert!(is_done(&cluster.apply(take(2, 50_000, 120_000))));
    grantor.note_holders(2_000, &cluster.state.leases);
    let n2 = node("n2");
    assert_eq!(grantor.over_ms(&n2), 2_000 + HELD_WAIT_MS, "from when the log says so");
    // A leader that has just begun counts from its beginning.
    let mut next = Grantor::new(4, TERMS, 7_000);
    next.note_holders(7_100, &cluster.state.leases);
    assert_eq!(next.over_ms(&n2), 7_100 + HELD_WAIT_MS);
    assert_eq!(next.over_ms(&node("n1")), 7_100 + WAIT_MS, "of others it waits for the usual time");
    // Once it is over, the node is lost and has none any more.
    assert!(is_done(&cluster.apply(lost("n2"))));
    assert_eq!(hold_of(&cluster, "n2"), None);
    assert!(!is_done(&cluster.apply(take(2, 60_000, 120_000))), "it has to say anew that it obeys leases");
}

#[test]
fn only_who_obeys_leases_in_this_boot_takes_a_hold_and_none_ends_before_the_one_before() {
    let mut cluster = cluster();
    assert!(!is_done(&cluster.apply(take(3, 0, 120_000))), "n3 has not said that it obeys leases");
    for length_ms in [0, 999, 86_400_001, u64::MAX] {
        assert!(!is_done(&cluster.apply(take(2, 0, length_ms))), "{length_ms} ms is no length");
    }
    assert!(is_done(&cluster.apply(take(2, 10_000, 120_000))));
    assert!(is_done(&cluster.apply(take(2, 40_000, 30_000))));
    let hold = hold_of(&cluster, "n2").expect("the second");
    assert_eq!((hold.begins_ms, hold.length_ms), (Some(40_000), 90_000), "the first ends no later");
    // The next boot waits for it.
    assert!(is_done(&cluster.apply(enforce(2, NEXT_BOOT, 1))));
    assert_eq!(hold_of(&cluster, "n2"), Some(hold));
    let mut grantor = Grantor::new(3, TERMS, 0);
    let asked = LeaseRenewal { boot_id: NEXT_BOOT, quote: None };
    let refused = renew(&mut grantor, 0, &cluster.state.leases, asked);
    let wait_ms = TERMS.wait_after_ms(90_000);
    assert_eq!(refused, Err(LeaseDenial::EarlierBoot { wait_ms }));
    assert!(renew(&mut grantor, wait_ms, &cluster.state.leases, asked).is_ok());
    // Once that is over it takes its own, for which leaders wait at least as long.
    let other = HoldAsk { boot_id: NEXT_BOOT, begins_ms: 0, length_ms: 5_000 };
    assert!(is_done(&cluster.apply(Command::TakeHold { raft_id: RaftId(2), hold: other })));
    let taken = hold_of(&cluster, "n2").expect("it has one");
    assert_eq!((taken.boot_id, taken.length_ms, taken.begins_ms), (NEXT_BOOT, 90_000, Some(0)));
    let since = taken.since;
    let ends = Command::EndHold { raft_id: RaftId(2), boot_id: NEXT_BOOT, since };
    assert!(is_done(&cluster.apply(ends)));
}

#[test]
fn a_boot_ends_the_hold_of_another_one_only_if_it_was_granted_a_lease_since() {
    let mut cluster = cluster();
    assert!(is_done(&cluster.apply(enforce(1, NEXT_BOOT, 1))));
    let hold = HoldAsk { boot_id: NEXT_BOOT, begins_ms: 0, length_ms: 120_000 };
    assert!(is_done(&cluster.apply(Command::TakeHold { raft_id: RaftId(1), hold })));
    // A copy of the machine, which had a lease before that one came.
    let mut copy = holder(None);
    copy.note_granted(0, grant(1, 3));
    copy.look(step(&cluster.state, 100, 9)).expect("a file");
    copy.note_written(100, true);
    assert!(is_done(&cluster.apply(enforce(1, BOOT, 1))));
    let since = cluster.state.leases.holders[&node("n1")].since;
    let later = |now_ms| step(&cluster.state, now_ms, since);
    for now_ms in [200, 70_000, 140_000] {
        assert_eq!(copy.hold_to_end(later(now_ms)), None, "the other one may run its VMs");
        assert!(!copy.speaks_for_all(later(now_ms)), "nor does it say that they are gone");
    }
    copy.note_granted(150_000, grant(2, since));
    copy.look(later(150_100)).expect("a file");
    copy.note_written(150_100, true);
    assert!(copy.speaks_for_all(later(150_200)) && copy.hold_to_end(later(150_200)).is_some());
}

#[test]
fn a_node_that_took_a_hold_is_not_lost_by_what_was_decided_before() {
    let mut cluster = cluster();
    on(&mut cluster, "web", "n2");
    assert!(is_done(&cluster.apply(take(2, 0, 120_000))));
    let since = hold_of(&cluster, "n2").expect("it has one").since;
    let decided = |seen| Command::NodeLost { node: node("n2"), term: 3, eligible: vec![node("n1")], seen };
    assert!(!is_done(&cluster.apply(decided(Some(since - 1)))));
    assert_eq!(place(&cluster, "web"), Some(node("n2")));
    assert!(is_done(&cluster.apply(decided(Some(since)))));
    assert_eq!(place(&cluster, "web"), Some(node("n1")));
}

#[test]
fn an_agent_that_ends_in_order_keeps_its_vms_and_the_next_one_ends_the_hold() {
    let mut cluster = cluster();
    let mut holder = holder(None);
    let wanted = |holder: &mut Holder, cluster: &Cluster| {
        assert_eq!(holder.leave(step(&cluster.state, 5_000, 4), 120_000), None, "no VM here needs it");
    };
    wanted(&mut holder, &cluster);
    on(&mut cluster, "kept", "n1");
    let kept =
        VmSpec { on_node_loss: Some(OnNodeLoss::Keep), ..cluster.state.vms[&name("kept")].spec.clone() };
    cluster.apply(Command::ChangeVm { spec: kept, seen: None });
    wanted(&mut holder, &cluster);
    on(&mut cluster, "web", "n1");
    holder.note_granted(1_000, grant(1, 4));
    holder.look(step(&cluster.state, 1_100, 4)).expect("a file");
    holder.note_written(1_100, true);
    assert_eq!(holder.hold_to_take(step(&cluster.state, 4_000, 4)), None, "nobody asked");
    let settling = LeaseStep { raft_id: RaftId(9), ..step(&cluster.state, 5_000, 4) };
    assert_eq!(holder.leave(settling, 120_000), Some(false), "it has not said that it obeys leases");
    assert_eq!(holder.leave(step(&cluster.state, 5_000, 4), 120_000), Some(true));
    let hold = holder.hold_to_take(step(&cluster.state, 5_010, 4)).expect("it is told");
    assert_eq!((hold.begins_ms, hold.length_ms, hold.boot_id), (5_000, 120_000, BOOT));
    assert!(is_done(&cluster.apply(Command::TakeHold { raft_id: RaftId(1), hold })));
    assert!(!holder.is_left(step(&cluster.state, 5_050, 5)), "the supervisors do not know of it");
    let file = holder.look(step(&cluster.state, 5_050, 5)).expect("it is written");
    assert_eq!(file.until_ms, Some(125_000), "from when it was asked for");
    holder.note_written(5_060, true);
    assert!(holder.is_left(step(&cluster.state, 5_060, 5)));
    assert_eq!(holder.hold_to_take(step(&cluster.state, 9_000, 5)), None, "the log has it");

    // The next agent goes on with what it finds until it is granted a lease.
    let mut next = crate::lease::holder(Some(file.clone()));
    assert_eq!(next.look(step(&cluster.state, 60_000, 6)).map(|file| file.until_ms), Some(Some(125_000)));
    next.note_written(60_000, true);
    let at = hold_of(&cluster, "n1").expect("the log has it").since;
    next.note_granted(60_100, grant(2, at));
    let short = next.look(step(&cluster.state, 60_200, at)).expect("a lease");
    assert_eq!(short.until_ms, Some(70_100), "it can be taken back: nobody counts on it being longer");
    next.note_written(60_210, true);
    assert_eq!(next.hold_to_end(step(&cluster.state, 60_210, 6)), None);
    let settled_ms = 60_210 + TERMS.settle_ms;
    assert_eq!(
        next.hold_to_end(step(&cluster.state, settled_ms - 1, 6)),
        None,
        "one may not have read of it"
    );
    let since = next.hold_to_end(step(&cluster.state, settled_ms, 6)).expect("all have");
    let end = Command::EndHold { raft_id: RaftId(1), boot_id: BOOT, since };
    assert!(is_done(&cluster.apply(end.clone())));
    assert!(!is_done(&cluster.apply(end)) && hold_of(&cluster, "n1").is_none());
}

#[test]
fn a_hold_without_a_grant_since_is_not_ended_although_little_is_left_of_it() {
    let mut cluster = cluster();
    // A lease of two minutes is longer than supervisors take to learn of another one.
    let terms = LeaseTermsChoice { lease_ms: 120_000, stop_ms: 5_000, margin_ms: 2_000 };
    assert!(is_done(&cluster.apply(Command::SetLeaseTerms { terms })));
    assert!(is_done(&cluster.apply(take(1, 0, 150_000))));
    let at = hold_of(&cluster, "n1").expect("the log has it").since;
    let file = LeaseFile {
        boot_id: BOOT,
        cluster_id: crate::lease::cluster_id(),
        until_ms: Some(150_000),
        grant: Some(GrantId { term: 3, number: 2, index: at }),
        enforces: None,
        vms: [(name("web"), 3)].into(),
    };
    let mut next = crate::lease::holder(Some(file));
    for now_ms in (40_000..150_000).step_by(1_000) {
        if next.look(step(&cluster.state, now_ms, at)).is_some() {
            next.note_written(now_ms, true);
        }
        assert_eq!(next.hold_to_end(step(&cluster.state, now_ms, at)), None, "VMs run under it at {now_ms}");
    }
}

#[test]
fn a_node_whose_last_grant_was_lost_gets_another_one_although_its_hold_goes_on() {
    let mut cluster = cluster();
    assert!(is_done(&cluster.apply(take(2, 0, 86_400_000))));
    let mut grantor = Grantor::new(3, TERMS, 0);
    let table = &cluster.state.leases;
    let first = renew(&mut grantor, 1_000, table, renewal(None)).expect("granted");
    renew(&mut grantor, 4_000, table, renewal(Some(first))).expect("granted, and lost on its way");
    renew(&mut grantor, 60_000, table, renewal(Some(first))).expect("some may be lost");
    let silent = renew(&mut grantor, 71_000, table, renewal(Some(first)));
    assert_eq!(silent, Err(LeaseDenial::NotReceived));
    let anew_ms = 60_000 + WAIT_MS + 5_000;
    assert!(renew(&mut grantor, anew_ms, table, renewal(Some(first))).is_ok());
}

#[test]
fn another_store_of_a_boot_with_a_hold_may_say_that_it_obeys_leases() {
    let mut cluster = cluster();
    assert!(is_done(&cluster.apply(take(1, 0, 900_000))));
    let file = LeaseFile {
        boot_id: BOOT,
        cluster_id: crate::lease::cluster_id(),
        until_ms: Some(900_000),
        grant: None,
        enforces: None,
        vms: [(name("web"), 3)].into(),
    };
    let mut next = crate::lease::holder(Some(file));
    let anew = |now_ms| LeaseStep { raft_id: RaftId(9), ..step(&cluster.state, now_ms, 9) };
    for now_ms in (0..=TERMS.settle_ms * 3).step_by(1_000) {
        if let Some(file) = next.look(anew(now_ms)) {
            assert_eq!(file.until_ms, Some(900_000));
            next.note_written(now_ms, true);
        }
    }
    let later = anew(TERMS.settle_ms * 3);
    assert_eq!(next.enforces(later), Some(1), "the log knows of the hold");
}

#[test]
fn a_disarmed_cluster_fails_nobody_over_and_each_node_takes_a_hold() {
    let mut cluster = cluster();
    on(&mut cluster, "web", "n2");
    let mut holder = holder(None);
    holder.note_granted(0, grant(1, 4));
    holder.look(step(&cluster.state, 100, 4)).expect("a file");
    holder.note_written(100, true);
    for for_ms in [0, 999, 86_400_001] {
        let said = cluster.apply(disarm(for_ms));
        assert!(matches!(said, Outcome::Refused { .. }), "{said:?}");
    }
    assert!(is_done(&cluster.apply(disarm(600_000))));
    let mut grantor = Grantor::new(3, TERMS, 0);
    renew(&mut grantor, 0, &cluster.state.leases, renewal(None)).expect("granted");
    grantor.note_holders(200_000, &cluster.state.leases);
    assert!(grantor.verdicts(200_000, (&cluster.state, true), &BTreeSet::new()).is_empty());
    assert!(!is_done(&cluster.apply(lost("n2"))), "decided before it was disarmed");
    // Five minutes are left by the clock on the wall.
    let late = LeaseStep { wall_ms: WALL_MS + 300_000, ..step(&cluster.state, 7_000, 9) };
    let hold = holder.hold_to_take(late).expect("each takes one");
    assert_eq!((hold.begins_ms, hold.length_ms), (7_000, 300_000));
    for wall_ms in [5, u64::MAX] {
        let wrong = LeaseStep { wall_ms, ..step(&cluster.state, 20_000, 9) };
        let mut other = crate::lease::holder(None);
        let taken = other.hold_to_take(wrong).map(|hold| hold.length_ms);
        assert_eq!(taken, Some(600_000), "never longer than asked");
        let later = LeaseStep { now_ms: 100_000, ..wrong };
        assert_eq!(other.hold_to_take(later).map(|hold| hold.length_ms), Some(520_000));
    }
    cluster.apply(Command::TakeHold { raft_id: RaftId(1), hold });
    let file = holder.look(step(&cluster.state, 7_100, 9)).expect("the supervisors are told");
    assert_eq!(file.until_ms, Some(307_000));
    holder.note_written(7_100, true);
    let covered = LeaseStep { wall_ms: WALL_MS + 320_000, ..step(&cluster.state, 27_000, 9) };
    assert_eq!(holder.hold_to_take(covered), None);
    // Disarmed again, each says so anew, and what it said of the hold before does not stand.
    let before = hold_of(&cluster, "n1").expect("it has one").since;
    assert!(is_done(&cluster.apply(disarm(300_000))));
    assert!(holder.hold_to_take(LeaseStep { now_ms: 30_000, ..covered_at(&cluster) }).is_some());
    assert_ne!(hold_of(&cluster, "n1").map(|hold| hold.since), Some(before));
    // While it is disarmed nobody gives a hold up.
    let since = hold_of(&cluster, "n1").expect("it has one").since;
    let end = Command::EndHold { raft_id: RaftId(1), boot_id: BOOT, since };
    assert!(!is_done(&cluster.apply(end)));
    // Armed by an entry that means another time it stays disarmed.
    assert!(!is_done(&cluster.apply(Command::Arm { since: Some(1) })));
    assert!(is_done(&cluster.apply(Command::Arm { since: None })));
    holder.note_granted(30_000, grant(2, 9));
    assert_eq!(holder.look(step(&cluster.state, 30_100, 9)).map(|file| file.until_ms), Some(Some(40_000)));
    // The other one has taken none: it is lost as always.
    grantor.note_holders(200_000, &cluster.state.leases);
    renew_n1(&mut grantor, &cluster);
    let lost = grantor.verdicts(200_300, (&cluster.state, false), &BTreeSet::new());
    assert_eq!(lost.iter().map(|(lost, _)| lost.clone()).collect::<Vec<_>>(), [node("n2")]);
}

/// A look at n1 some time after the cluster was disarmed.
fn covered_at(cluster: &Cluster) -> LeaseStep<'_> {
    LeaseStep { wall_ms: WALL_MS + 320_000, ..step(&cluster.state, 27_000, 9) }
}

#[test]
fn the_time_of_a_disarmed_cluster_is_over_whatever_the_clocks_on_the_wall_say() {
    let mut cluster = cluster();
    assert!(is_done(&cluster.apply(disarm(60_000))));
    let since = cluster.state.leases.disarmed.expect("it is").since;
    let mut grantor = Grantor::new(3, TERMS, 0);
    grantor.note_holders(5_000, &cluster.state.leases);
    let over = |now_ms, wall_ms| grantor.disarm_that_is_over(now_ms, wall_ms, &cluster.state.leases);
    assert_eq!(over(64_999, WALL_MS + 59_999), None);
    assert_eq!((over(65_000, 0), over(5_000, WALL_MS + 60_000)), (Some(since), Some(since)));
    // Sent again it is the same request, whatever the leader's clock says by then.
    let id = "again".parse::<RequestId>().expect("an id");
    let asked = |at_ms| Request { id: id.clone(), command: Command::Disarm { for_ms: 60_000, at_ms } };
    let first = cluster.state.apply(90, &asked(1));
    assert_eq!(cluster.state.apply(91, &asked(2)), first);
}

/// n1 has a lease at 200 s that it is known to have received.
fn renew_n1(grantor: &mut Grantor, cluster: &Cluster) {
    let table = &cluster.state.leases;
    let mut quote = None;
    for at_ms in [200_000, 200_100] {
        let asked = (&node("n1"), RaftId(1));
        let granted = grantor.renew(at_ms, table, asked, (&renewal(quote), 9)).expect("granted");
        quote = Some(granted.0);
    }
}

#[test]
fn shorter_terms_count_for_a_node_once_it_says_that_its_supervisors_know_of_them() {
    let mut cluster = cluster();
    let choice = |lease_ms| LeaseTermsChoice { lease_ms, stop_ms: 5_000, margin_ms: 2_000 };
    let set = |lease_ms| Command::SetLeaseTerms { terms: choice(lease_ms) };
    for terms in [
        choice(2_999),
        choice(300_001),
        LeaseTermsChoice { stop_ms: 2_999, ..choice(9_000) },
        LeaseTermsChoice { margin_ms: 0, ..choice(9_000) },
    ] {
        assert!(matches!(cluster.apply(Command::SetLeaseTerms { terms }), Outcome::Refused { .. }));
    }
    assert!(is_done(&cluster.apply(set(5_000))));
    assert!(!is_done(&cluster.apply(set(5_000))), "it was so before");
    let mut grantor = Grantor::new(3, TERMS, 0);
    grantor.note_holders(0, &cluster.state.leases);
    let short_wait_ms = LeaseTerms { lease_ms: 5_000, ..TERMS }.wait_ms();
    assert_eq!(grantor.over_ms(&node("n2")), WAIT_MS, "an earlier leader may have granted it a longer one");
    let (_, length_ms) = grantor
        .renew(100, &cluster.state.leases, (&node("n2"), RaftId(2)), (&renewal(None), 9))
        .expect("granted");
    assert_eq!(length_ms, 5_000);
    let mut holder = holder(None);
    let at = hold_of(&cluster, "n1").expect("it had longer ones").since;
    holder.note_granted(0, LeaseGrant { length_ms: 5_000, ..grant(1, at) });
    holder.look(step(&cluster.state, 100, at)).expect("a file");
    holder.note_written(100, true);
    assert_eq!(holder.hold_to_end(step(&cluster.state, 100, 9)), None);
    let since = holder.hold_to_end(step(&cluster.state, 100 + TERMS.settle_ms, 9)).expect("all know");
    assert!(is_done(&cluster.apply(Command::EndHold { raft_id: RaftId(1), boot_id: BOOT, since })));
    let mut next = Grantor::new(4, TERMS, 0);
    next.note_holders(0, &cluster.state.leases);
    assert_eq!((next.over_ms(&node("n1")), next.over_ms(&node("n2"))), (short_wait_ms, WAIT_MS));
    // One that has run for long by the longer terms counts from when it knew of the change.
    let mut old = crate::lease::holder(None);
    let longer = crate::lease::cluster();
    old.note_granted(0, grant(1, 4));
    old.look(step(&longer.state, 100, 9)).expect("a file");
    old.note_written(100, true);
    let mut changed = longer;
    changed.apply(set(5_000));
    old.note_granted(100_000, grant(2, 4));
    old.look(step(&changed.state, 100_100, 9)).expect("a longer one in flight");
    old.note_written(100_100, true);
    assert_eq!(old.hold_to_end(step(&changed.state, 100_200, 9)), None);
    let at = hold_of(&changed, "n1").expect("it had longer ones").since;
    old.note_granted(103_000, LeaseGrant { length_ms: 5_000, ..grant(3, at) });
    let short = old.look(step(&changed.state, 103_100, at)).expect("a shorter one");
    assert_eq!(short.until_ms, Some(108_000), "it takes the place of the longer one");
    old.note_written(103_100, true);
    let settled_ms = 103_100 + TERMS.settle_ms;
    assert_eq!(old.hold_to_end(step(&changed.state, settled_ms - 1, 9)), None);
    assert!(old.hold_to_end(step(&changed.state, settled_ms, 9)).is_some());
    // A node that only now says that it obeys leases may have given itself one by the terms before.
    cluster.apply(enforce(3, BOOT, 1));
    assert_eq!(hold_of(&cluster, "n3").map(|hold| hold.length_ms), Some(10_000));
    // Longer ones are nothing to wait for.
    let mut longer = crate::lease::cluster();
    assert!(is_done(&longer.apply(set(20_000))));
    assert_eq!(hold_of(&longer, "n2"), None);
}

#[test]
fn a_machine_that_boots_again_runs_its_vms_itself_where_it_asks_in_time() {
    let mut cluster = cluster();
    on(&mut cluster, "web", "n2");
    let mut grantor = Grantor::new(3, TERMS, 0);
    renew(&mut grantor, 1_000, &cluster.state.leases, renewal(None)).expect("granted");
    cluster.apply(enforce(2, NEXT_BOOT, 1));
    let asked = LeaseRenewal { boot_id: NEXT_BOOT, quote: None };
    let over_ms = 1_000 + WAIT_MS;
    assert!(renew(&mut grantor, over_ms - 2_000, &cluster.state.leases, asked).is_err());
    let due = |grantor: &Grantor, now_ms| {
        let others = Cluster::of(3);
        assert_eq!(others.eligible.len(), 3);
        !grantor.verdicts(now_ms, (&cluster.state, false), &BTreeSet::new()).is_empty()
    };
    // Room elsewhere takes a node with a lease.
    let table = &cluster.state.leases;
    let first = grantor.renew(over_ms - 500, table, (&node("n1"), RaftId(1)), (&renewal(None), 9));
    let quote = Some(first.expect("granted").0);
    grantor.renew(over_ms - 400, table, (&node("n1"), RaftId(1)), (&renewal(quote), 9)).expect("granted");
    assert!(!due(&grantor, over_ms), "it asks, and is granted one now");
    assert!(renew(&mut grantor, over_ms + 100, &cluster.state.leases, asked).is_ok());
    assert!(!due(&grantor, over_ms + 200));
    // One that asked and fell silent is lost all the same.
    let mut silent = Grantor::new(3, TERMS, 0);
    renew(&mut silent, 1_000, &cluster.state.leases, asked).expect_err("an earlier boot");
    let first = silent.renew(WAIT_MS, table, (&node("n1"), RaftId(1)), (&renewal(None), 9)).expect("granted");
    silent.renew(WAIT_MS, table, (&node("n1"), RaftId(1)), (&renewal(Some(first.0)), 9)).expect("granted");
    assert!(!due(&silent, 1_000 + WAIT_MS - 1) && due(&silent, 1_000 + WAIT_MS));
}

/// A node that leads, grants itself leases and one to n3, and finds out that n2 is lost.
fn with_two_others() -> (Cluster, Grantor, u64) {
    let mut cluster = crate::lease::cluster();
    let mut grantor = Grantor::new(3, TERMS, 0);
    let now_ms = WAIT_MS + 1_000;
    for n in [1, 3] {
        cluster.apply(enforce(n, BOOT, 1));
        let node = node(&format!("n{n}"));
        let mut renew = |quote| {
            let asked = renewal(quote);
            grantor.renew(now_ms, &cluster.state.leases, (&node, RaftId(n)), (&asked, 9))
        };
        let quote = renew(None).expect("granted").0;
        renew(Some(quote)).expect("granted");
    }
    (cluster, grantor, now_ms)
}

#[test]
fn the_vms_of_a_lost_node_go_where_units_are_seen_as_far_as_they_fit_there() {
    let (mut cluster, grantor, now_ms) = with_two_others();
    on(&mut cluster, "web", "n2");
    let blind: BTreeSet<_> = [node("n3")].into();
    let eligible = |cluster: &Cluster, blind: &BTreeSet<_>| {
        let mut lost = grantor.verdicts(now_ms, (&cluster.state, true), blind).into_iter();
        lost.find(|(lost, _)| *lost == node("n2")).expect("it is lost").1
    };
    assert_eq!(eligible(&cluster, &BTreeSet::new()), [node("n1"), node("n3")]);
    assert_eq!(eligible(&cluster, &blind), [node("n1")]);
    assert_eq!(eligible(&cluster, &[node("n1"), node("n3")].into()).len(), 2, "no other one is left");
    // What has no room there waits for one that sees its units again.
    cluster.eligible = vec![node("n1")];
    assert!(is_done(&cluster.create(VmSpec { memory_mib: 1_600, ..spec("large") })));
    assert_eq!(eligible(&cluster, &blind).len(), 2);
}

#[test]
fn the_vms_of_a_removed_node_are_forgotten_once_its_leases_are_over() {
    let mut cluster = cluster();
    on(&mut cluster, "web", "n2");
    let retire = MembershipChange::Remove {
        raft_id: RaftId(2),
        why: Removal::Operator { vms: Some(VmsFate::Retire) },
    };
    let voters = [RaftId(1), RaftId(2), RaftId(3)];
    let refused = |cluster: &Cluster, words: &str| {
        let said = cluster.state.check_membership(&retire, &voters).expect_err(words).to_string();
        assert!(said.contains(words) && said.contains("--i-know-it-is-off"), "{said}");
    };
    on(&mut cluster, "kept", "n2");
    let kept = VmSpec { on_node_loss: Some(OnNodeLoss::Keep), ..spec("kept") };
    cluster.apply(Command::ChangeVm { spec: kept, seen: None });
    refused(&cluster, "VM kept may still run on n2");
    cluster.apply(Command::DeleteVm { name: name("kept") });
    refused(&cluster, "VM kept may still run on n2");
    let generation = cluster.state.vms[&name("kept")].placement.generation;
    cluster.apply(Command::ConfirmGone { name: name("kept"), node: node("n2"), generation });
    cluster.apply(disarm(60_000));
    refused(&cluster, "disarmed");
    cluster.apply(Command::Arm { since: None });
    cluster.state.check_membership(&retire, &voters).expect("its leases end");
    cluster.state.apply_membership(&retire);
    assert_eq!(cluster.state.vms[&name("web")].desired, Desired::Absent);
    assert!(!is_done(&cluster.create(spec("web"))), "the name is not free: it may still run");
    // Whoever deletes it now, or knows nothing of the machine, does not free its name either.
    assert!(!is_done(&cluster.apply(Command::DeleteVm { name: name("web") })));
    // Who is left is the only one that runs VMs: what is waited for needs leases to go on.
    cluster_still_waits(&mut cluster);
    let mut grantor = Grantor::new(3, TERMS, 0);
    grantor.note_holders(0, &cluster.state.leases);
    assert!(grantor.verdicts(WAIT_MS - 1, (&cluster.state, true), &BTreeSet::new()).is_empty());
    let due = grantor.verdicts(WAIT_MS, (&cluster.state, false), &BTreeSet::new());
    assert_eq!(due, [(node("n2"), Vec::new())]);
    assert!(is_done(&cluster.apply(lost("n2"))));
    assert_eq!(place(&cluster, "web"), None);
    assert!(!cluster.state.leases.is_on, "nothing is waited for any more");
    cluster.eligible = vec![node("n1")];
    assert!(is_done(&cluster.create(spec("web"))));
}

#[test]
fn vms_that_a_removed_node_left_behind_wait_for_its_leases_too() {
    let leave =
        |fate| MembershipChange::Remove { raft_id: RaftId(2), why: Removal::Operator { vms: Some(fate) } };
    let removed = |fate| {
        let mut cluster = cluster();
        on(&mut cluster, "web", "n2");
        cluster.state.apply_membership(&leave(fate));
        cluster
    };
    let mut kept = removed(VmsFate::Keep);
    cluster_still_waits(&mut kept);
    assert!(is_done(&kept.apply(Command::DeleteVm { name: name("web") })));
    assert_eq!(kept.state.vms[&name("web")].desired, Desired::Absent, "it may still run");
    assert!(is_done(&kept.apply(lost("n2"))));
    assert!(kept.state.vms.is_empty() && !kept.state.leases.is_on);
    // One that finds no room then waits for it, or until it is deleted.
    let mut crowded = removed(VmsFate::Keep);
    cluster_still_waits(&mut crowded);
    let nowhere = Command::NodeLost { node: node("n2"), term: 3, eligible: Vec::new(), seen: None };
    assert!(is_done(&crowded.apply(nowhere)));
    assert!(crowded.state.leases.is_on, "whoever leads finds it room later");
    let mut deleted = crowded.clone();
    assert!(is_done(&crowded.apply(lost("n2"))));
    assert_eq!((place(&crowded, "web"), crowded.state.leases.is_on), (Some(node("n1")), false));
    assert!(is_done(&deleted.apply(Command::DeleteVm { name: name("web") })));
    assert!(deleted.state.vms.is_empty() && !deleted.state.leases.is_on);
    // A new machine of its name that runs no VMs says nothing of those of the old one.
    let mut renamed = removed(VmsFate::Keep);
    cluster_still_waits(&mut renamed);
    let mut member = cluster().state.member_by_name(&node("n2")).expect("a member").to_member();
    (member.raft_id, member.node.offer.witness) = (RaftId(9), true);
    renamed.state.apply_membership(&MembershipChange::AddLearner { member, ticket: None });
    renamed.apply(Command::StopVm { name: name("web") });
    assert!(renamed.state.leases.is_on);
    // Somebody who knows that the machine is off says so after all.
    let mut retired = removed(VmsFate::Retire);
    cluster_still_waits(&mut retired);
    assert!(is_done(&retired.apply(Command::ForgetVms { node: node("n2") })));
    assert!(!retired.state.leases.is_on);
    // A release before knows nothing of that, and its replicas do the same as ours.
    let mut old = cluster();
    old.state.version = ClusterVersion::LEASES;
    on(&mut old, "web", "n2");
    old.state.apply_membership(&leave(VmsFate::Keep));
    let witness = old.witness_offer(3);
    old.apply(witness);
    assert!(!old.state.leases.is_on);
}

fn cluster_still_waits(cluster: &mut Cluster) {
    let witness = cluster.witness_offer(3);
    cluster.apply(witness);
    assert!(cluster.state.leases.is_on && cluster.state.leases.ends);
}
