//! Nodes renew their leases, and one that cannot loses its VMs to others when its leases are over.

use blixard_model::{LeaseTerms, NodeName, VmName, VmSpec};
use blixard_node::host::HoldEnd;

use super::*;

/// Until when the supervisors of this machine let VMs run that may be failed over.
fn until_ms(hosts: &Hosts, n: u8) -> Option<u64> {
    hosts.machines[&n].lease.as_ref().and_then(|file| file.until_ms)
}

/// Three machines, each with a lease.
fn leased() -> Hosts {
    let mut hosts = Hosts::formed(3);
    hosts.until("each has a lease", |hosts| {
        [1, 2, 3].iter().all(|n| until_ms(hosts, *n).is_some_and(|until_ms| until_ms > hosts.now_ms))
    });
    hosts
}

fn placed(hosts: &Hosts, at: u8) -> NodeName {
    let state = hosts.host(at).member().expect("a member").state();
    let web: VmName = "web".parse().expect("a name");
    state.vms[&web].placement.node.clone()
}

fn starts(hosts: &Hosts, n: u8) -> bool {
    hosts.machines[&n].begun.iter().any(|action| matches!(action, Action::Start(_)))
}

#[test]
fn the_vm_of_a_machine_that_is_cut_off_goes_to_another_when_its_leases_are_over() {
    let mut hosts = leased();
    let leader = hosts.leader();
    let waiter = hosts.change(leader, create("web", None));
    hosts.until("it is made", |hosts| hosts.answers.contains_key(&waiter));
    let home = (1..=3).find(|n| name(*n) == placed(&hosts, leader)).expect("one of them");
    hosts.until("it is started", |hosts| starts(hosts, home));
    hosts.cut.insert(home);
    hosts.link_all();
    let others: Vec<u8> = (1..=3).filter(|n| *n != home).collect();
    // Whoever leads then waits for all that may have been granted: of one that has just begun it is the most.
    hosts.pass(16_000);
    assert_eq!(placed(&hosts, others[0]), name(home), "its leases may not be over yet");
    let ended = until_ms(&hosts, home).expect("it had one");
    hosts.until("it is placed elsewhere", |hosts| placed(hosts, others[0]) != name(home));
    let waited_ms = hosts.now_ms - ended;
    assert!(waited_ms >= 7_000, "{waited_ms} ms after the lease had ended: stop time and margin");
    let next = others.into_iter().find(|n| name(*n) == placed(&hosts, *n)).expect("one of the others");
    hosts.until("it is started there", |hosts| starts(hosts, next));
    assert_eq!(until_ms(&hosts, home), Some(ended));
    // It comes back: by the log nothing is its any more, and it has to say anew that it obeys leases.
    hosts.cut.clear();
    hosts.link_all();
    hosts.until("it has a lease again", |hosts| {
        until_ms(hosts, home).is_some_and(|until_ms| until_ms > hosts.now_ms)
    });
    assert!(hosts.machines[&home].lease.as_ref().is_some_and(|file| file.vms.is_empty()));
}

#[test]
fn a_lease_takes_a_quorum_and_is_counted_from_before_it_was_asked_for() {
    let mut hosts = leased();
    let leader = hosts.leader();
    let asker = (1..=3).find(|n| *n != leader).expect("one follows");
    for n in [asker, leader] {
        let before = until_ms(&hosts, n);
        hosts.until("it is renewed", |hosts| until_ms(hosts, n) != before);
        let renewed_ms = hosts.now_ms;
        // The next renewal is sent in this time, and nobody confirms that the leader leads.
        hosts.pass(LeaseTerms::DEFAULT.renewal_ms() - 200);
        let before = until_ms(&hosts, n);
        hosts.loses = |input| matches!(input, Input::Raft { .. });
        hosts.pass(700);
        assert_eq!(until_ms(&hosts, n), before, "n{n}: no quorum, no lease");
        hosts.loses = |_| false;
        hosts.until("it is renewed again", |hosts| until_ms(hosts, n) != before);
        let sent_ms = until_ms(&hosts, n).expect("a lease") - LeaseTerms::DEFAULT.lease_ms;
        let is_counted = sent_ms < renewed_ms + LeaseTerms::DEFAULT.renewal_ms() + 400;
        assert!(
            is_counted && hosts.now_ms > sent_ms + 200,
            "n{n}: sent at {sent_ms}, it is {}",
            hosts.now_ms
        );
    }
}

/// A VM that runs on one of three machines: on which, and another one.
fn with_a_vm() -> (Hosts, u8, u8) {
    let mut hosts = leased();
    let leader = hosts.leader();
    let waiter = hosts.change(leader, create("web", None));
    hosts.until("it is made", |hosts| hosts.answers.contains_key(&waiter));
    let home = (1..=3).find(|n| name(*n) == placed(&hosts, leader)).expect("one of them");
    let other = (1..=3).find(|n| *n != home).expect("another");
    hosts.until("it is started", |hosts| starts(hosts, home));
    (hosts, home, other)
}

fn hold_of(hosts: &Hosts, at: u8, of: u8) -> bool {
    let state = hosts.host(at).member().expect("a member").state();
    state.leases.holder(&name(of)).is_some_and(|holder| holder.hold.is_some())
}

#[test]
fn the_vms_of_an_agent_that_ends_in_order_go_on_and_are_waited_for() {
    let (mut hosts, home, other) = with_a_vm();
    let idle = (1..=3).find(|n| *n != home && *n != other).expect("a third");
    let waiter = hosts.want(idle, Want::Hold { for_ms: 120_000 });
    assert_eq!(hosts.answers[&waiter], Answer::Held(HoldEnd::NotNeeded), "nothing runs there");
    let asked_ms = hosts.now_ms;
    let waiter = hosts.want(home, Want::Hold { for_ms: 120_000 });
    hosts.until("it is answered", |hosts| hosts.answers.contains_key(&waiter));
    assert_eq!(hosts.answers[&waiter], Answer::Held(HoldEnd::Taken));
    assert_eq!(until_ms(&hosts, home), Some(asked_ms + 120_000));
    hosts.cut.insert(home);
    hosts.link_all();
    hosts.pass(60_000);
    assert_eq!(placed(&hosts, other), name(home), "it has said so");
    // The next agent takes the lease up again, and later gives the long one back.
    let lease = hosts.machines[&home].lease.clone();
    hosts.cut.clear();
    hosts.restart(home, HostConfig { lease: lease.into(), ..config(home, 3) });
    hosts.until("it has a lease as always", |hosts| {
        until_ms(hosts, home).is_some_and(|until_ms| until_ms <= hosts.now_ms + 10_000)
    });
    assert!(hold_of(&hosts, other, home));
    hosts.pass(LeaseTerms::DEFAULT.settle_ms - 2_000);
    assert!(hold_of(&hosts, other, home), "a supervisor may not know of the end yet");
    hosts.until("it is given back", |hosts| !hold_of(hosts, other, home));
    assert_eq!(placed(&hosts, other), name(home));
}

#[test]
fn an_agent_that_does_not_come_back_loses_its_vms_when_what_it_announced_is_over() {
    let (mut hosts, home, other) = with_a_vm();
    let waiter = hosts.want(home, Want::Hold { for_ms: 30_000 });
    hosts.until("it is answered", |hosts| hosts.answers.contains_key(&waiter));
    let until_ms = until_ms(&hosts, home).expect("a lease");
    hosts.cut.insert(home);
    hosts.link_all();
    hosts.until("its end", |hosts| hosts.now_ms + 11_000 >= until_ms);
    hosts.until("its end", |hosts| hosts.now_ms >= until_ms);
    assert_eq!(placed(&hosts, other), name(home));
    hosts.until("it is placed elsewhere", |hosts| placed(hosts, other) != name(home));
    assert!(hosts.now_ms >= until_ms + 7_000, "stop time and margin");
}

/// Its agent renews the lease and does nothing to any unit.
#[test]
fn a_machine_whose_systemd_cannot_be_asked_is_given_no_vm_while_another_has_room() {
    let (mut hosts, home, _) = with_a_vm();
    let leader = hosts.leader();
    let others: Vec<u8> = (1..=3).filter(|n| *n != home).collect();
    let (deaf, able) = (others[0], others[1]);
    hosts.machine(deaf).lists_fail = Some("no bus");
    hosts.pass(3_500);
    for vm in ["a", "b", "c"] {
        let waiter = hosts.change(leader, create(vm, None));
        hosts.until("it is made", |hosts| hosts.answers.contains_key(&waiter));
    }
    let vms_of = |hosts: &Hosts, n: u8| {
        hosts.host(able).member().expect("a member").state().placed_on(&name(n)).count()
    };
    assert_eq!((vms_of(&hosts, deaf), vms_of(&hosts, home) + vms_of(&hosts, able)), (0, 4));
    hosts.cut.insert(home);
    hosts.link_all();
    hosts.pass(16_000);
    hosts.until("they are placed elsewhere", |hosts| vms_of(hosts, home) == 0);
    assert_eq!((vms_of(&hosts, deaf), vms_of(&hosts, able)), (0, 4));
    // It sees its units again.
    hosts.machine(deaf).lists_fail = None;
    hosts.pass(2_500);
    let waiter = hosts.change(able, create("d", None));
    hosts.until("it is made", |hosts| hosts.answers.contains_key(&waiter));
    assert_eq!(vms_of(&hosts, deaf), 1);
}

/// The new boot sees no unit; another machine of the node's name may run one by the earlier spec.
#[test]
fn what_an_earlier_spec_took_is_free_when_the_leases_of_earlier_boots_are_over() {
    let (mut hosts, home, other) = with_a_vm();
    let waiter = hosts.want(home, Want::Hold { for_ms: 30_000 });
    hosts.until("it is answered", |hosts| hosts.answers.contains_key(&waiter));
    let until_ms = until_ms(&hosts, home).expect("a lease");
    hosts.reboot(home, config(home, 3));
    let web: VmName = "web".parse().expect("a name");
    let held = |hosts: &Hosts| {
        let state = hosts.host(other).member().expect("a member").state();
        state.vms[&web].held.is_some()
    };
    let WriteAsk::CreateVm { spec, .. } = create("web", None).ask else { panic!("another ask") };
    let spec = VmSpec { memory_mib: spec.memory_mib / 2, ..spec };
    let ask = WriteAsk::ChangeVm { spec, seen: None };
    hosts.change(other, WriteRequest { id: "smaller".parse().expect("an id"), ask });
    hosts.until("it is changed", held);
    hosts.until("its end", |hosts| hosts.now_ms + 11_000 >= until_ms);
    hosts.until("its end", |hosts| hosts.now_ms >= until_ms);
    assert!(held(&hosts), "another machine may run it by the spec before");
    hosts.until("it is started", |hosts| starts(hosts, home));
    assert!(held(&hosts) && hosts.now_ms >= until_ms + 7_000, "stop time and margin");
    let order = hosts.host(home).member().expect("a member").state().vms[&web].order_id();
    hosts.machine(home).units = vec![ObservedUnit {
        name: web.clone(),
        state: ObservedState::Running,
        order: Some(order),
        main_pid: Some(7),
        status: None,
        ended: None,
    }];
    // What was refused before is tried again after a pause.
    hosts.pass(40_000);
    assert!(!held(&hosts));
}

#[test]
fn without_a_quorum_nothing_is_announced() {
    let (mut hosts, home, _) = with_a_vm();
    hosts.cut.insert(home);
    hosts.link_all();
    let before = until_ms(&hosts, home);
    let waiter = hosts.want(home, Want::Hold { for_ms: 120_000 });
    hosts.until("it is given up", |hosts| hosts.answers.contains_key(&waiter));
    assert_eq!(hosts.answers[&waiter], Answer::Held(HoldEnd::NotTaken));
    assert_eq!(until_ms(&hosts, home), before);
}

#[test]
fn a_disarmed_cluster_starts_nothing_elsewhere_until_it_is_armed_or_its_time_is_over() {
    let (mut hosts, home, other) = with_a_vm();
    let write = |id: &str, ask| WriteRequest { id: id.parse().expect("an id"), ask };
    for (nth, arms) in [("first", true), ("second", false)] {
        let home = (1..=3).find(|n| name(*n) == placed(&hosts, other)).unwrap_or(home);
        let asked = hosts.now_ms;
        let waiter = hosts.change(other, write(nth, WriteAsk::Disarm { for_ms: 60_000 }));
        hosts.until("it is disarmed", |hosts| hosts.answers.contains_key(&waiter));
        hosts.until("all have acknowledged it", |hosts| {
            (1..=3).all(|n| until_ms(hosts, n).is_some_and(|until_ms| until_ms + 1_000 > asked + 60_000))
        });
        hosts.cut.insert(home);
        hosts.link_all();
        hosts.pass(40_000);
        let asked_of = (1..=3).find(|n| *n != home).expect("another");
        assert_eq!(placed(&hosts, asked_of), name(home), "{nth}");
        if arms {
            hosts.change(asked_of, write("arms", WriteAsk::Arm));
            hosts.pass(10_000);
            assert_eq!(placed(&hosts, asked_of), name(home), "it cannot know that it is armed again");
        }
        let until_ms = until_ms(&hosts, home).expect("a lease");
        for _ in 0..4 {
            hosts.pass(10_000);
        }
        assert_ne!(placed(&hosts, asked_of), name(home), "{nth}: its lease ended at {until_ms}");
        hosts.cut.clear();
        hosts.link_all();
        hosts.pass(10_000);
    }
}
