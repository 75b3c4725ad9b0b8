//! Nodes renew their leases, and one that cannot loses its VMs to others when its leases are over.

use blixard_model::{LeaseTerms, NodeName, VmName};

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
