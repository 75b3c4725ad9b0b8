//! VMs that are stopped on their own node, and what happens to units beside the agent.

use blixard_core::ports::{ObservedUnit, UnitEnd};
use blixard_core::reconciler::Action;
use blixard_model::report::ObservedState;
use blixard_model::{
    ClusterVersion, Desired, EndCause, OrderId, RestartPolicy, StopCause, UnitStatus, VmName, WriteAsk,
    WriteRequest,
};
use blixard_node::host::{Answer, HostConfig, Input, StopRefusal, Want};

use super::hosts::{Hosts, config};
use super::reason;
use crate::group::{create, name};

fn web() -> VmName {
    "web".parse().expect("a name")
}

/// The VM `web`, which runs on `n`.
fn running_on(hosts: &mut Hosts, n: u8, restart: RestartPolicy) -> OrderId {
    let mut request = create("web", Some(n));
    if let WriteAsk::CreateVm { spec, .. } = &mut request.ask {
        spec.restart = restart;
    }
    let made = hosts.change(n, request);
    hosts.until("it is made", |hosts| hosts.answers.contains_key(&made));
    hosts.until("it is started", |hosts| hosts.machines[&n].begun.contains(&Action::Start(web())));
    let order = hosts.host(n).member().expect("a member").state().vms[&web()].order_id();
    hosts.machine(n).units = vec![unit(order)];
    hosts.give(n, Input::UnitsChanged);
    hosts.pass(100);
    hosts.machine(n).begun.clear();
    order
}

fn unit(order: OrderId) -> ObservedUnit {
    ObservedUnit {
        name: web(),
        state: ObservedState::Running,
        order: Some(order),
        main_pid: Some(7),
        status: Some(UnitStatus::Running),
        ended: None,
    }
}

/// Somebody stops it on this node.
fn stop_here(hosts: &mut Hosts, n: u8) -> Result<(), StopRefusal> {
    let waiter = hosts.want(n, Want::StopHere(web()));
    match hosts.answers.remove(&waiter) {
        Some(Answer::StopTaken(taken)) => taken,
        other => panic!("{other:?}"),
    }
}

/// Whether it was told to stop and nothing else; again and again, as its unit goes on.
fn is_stopped_only(hosts: &Hosts, n: u8) -> bool {
    let begun = &hosts.machines[&n].begun;
    !begun.is_empty() && begun.iter().all(|action| *action == Action::Stop(web()))
}

fn starts(hosts: &Hosts, n: u8) -> usize {
    hosts.machines[&n].begun.iter().filter(|action| **action == Action::Start(web())).count()
}

#[test]
fn a_stop_by_hand_on_a_node_that_is_cut_off_survives_a_restart_and_the_heal_until_somebody_starts_it() {
    let mut hosts = Hosts::formed(3);
    let (leader, n) = (hosts.leader(), if hosts.leader() == 1 { 2 } else { 1 });
    running_on(&mut hosts, n, RestartPolicy::Always);
    hosts.cut.insert(n);
    hosts.link_all();
    hosts.pass(3_000);
    assert_eq!(stop_here(&mut hosts, n), Ok(()));
    assert_eq!(hosts.machines[&n].stopped.len(), 1, "it is on disk before it is answered");
    hosts.pass(100);
    assert!(is_stopped_only(&hosts, n), "{:?}", hosts.machines[&n].begun);
    hosts.machine(n).units.clear();
    hosts.pass(20_000);
    assert_eq!(starts(&hosts, n), 0);
    hosts.restart(n, config(n, 3));
    hosts.pass(5_000);
    hosts.cut.clear();
    hosts.link_all();
    let state = |hosts: &Hosts| hosts.host(leader).member().expect("a member").state().vms[&web()].clone();
    hosts.until("the cluster knows", |hosts| state(hosts).desired == Desired::Stopped);
    let stopped = state(&hosts).stopped.expect("it says why");
    assert_eq!((stopped.node, stopped.stop.cause), (name(n), StopCause::ByHand));
    hosts.until("nothing is kept", |hosts| hosts.machines[&n].stopped.is_empty());
    hosts.pass(10_000);
    assert_eq!(starts(&hosts, n), 0);
    let ask = WriteAsk::StartVm { name: web() };
    hosts.change(leader, WriteRequest { id: "start-web".parse().expect("a request id"), ask });
    hosts.until("it is started", |hosts| starts(hosts, n) == 1);
    assert_eq!(state(&hosts).stopped, None);
}

#[test]
fn a_stop_by_hand_needs_no_quorum_since_the_agent_started_either() {
    let mut hosts = Hosts::formed(3);
    let n = hosts.leader();
    running_on(&mut hosts, n, RestartPolicy::Always);
    hosts.cut.insert(n);
    hosts.restart(n, config(n, 3));
    hosts.pass(3_000);
    assert_eq!(hosts.machines[&n].begun, [], "the log here may be old");
    assert_eq!(stop_here(&mut hosts, n), Ok(()));
    hosts.pass(100);
    assert!(is_stopped_only(&hosts, n), "{:?}", hosts.machines[&n].begun);
    hosts.machine(n).units.clear();
    hosts.give(n, Input::UnitsChanged);
    hosts.pass(100);
    let report = hosts.host(n).member().expect("a member").own_report().vms[0].clone();
    assert_eq!(report.state, ObservedState::Stopped);
    assert_eq!(report.reason, Some(format!("stopped by hand on {}", name(n))));
}

#[test]
fn a_stop_by_hand_that_cannot_be_kept_or_is_of_nobody_is_refused_and_nothing_is_stopped() {
    let mut hosts = Hosts::formed(1);
    assert_eq!(stop_here(&mut hosts, 1), Err(StopRefusal::NotHere(web())));
    running_on(&mut hosts, 1, RestartPolicy::Always);
    hosts.machine(1).keeps_fail = Some("No space left on device");
    let why = "No space left on device".to_owned();
    assert_eq!(stop_here(&mut hosts, 1), Err(StopRefusal::NotKept { vm: web(), why }));
    hosts.pass(3_000);
    assert_eq!(hosts.machines[&1].begun, []);
}

#[test]
fn what_was_stopped_while_the_agent_was_away_is_no_failure_and_is_told() {
    let mut hosts = Hosts::formed(1);
    let order = running_on(&mut hosts, 1, RestartPolicy::Always);
    hosts.pass(2_500);
    // As `blixard local stop` does it without the agent: first the note, then the stop.
    let note = blixard_model::StopNote { name: web(), generation: order.generation, at_unix_ms: 5 };
    hosts.machine(1).stopped.push(note);
    hosts.machine(1).units.clear();
    hosts.give(1, Input::UnitsChanged);
    hosts.pass(3_000);
    assert_eq!((starts(&hosts, 1), hosts.machines[&1].consoles.len()), (0, 0));
    let vm = hosts.host(1).member().expect("a member").state().vms[&web()].clone();
    assert_eq!((vm.desired, vm.stopped.map(|stopped| stopped.stop.at_unix_ms)), (Desired::Stopped, Some(5)));
}

#[test]
fn a_cluster_of_an_earlier_version_is_told_once_it_would_understand() {
    let earlier = |n| HostConfig { supports: ClusterVersion::LEASES, ..config(n, 1) };
    let mut hosts = Hosts::formed_as(1, earlier);
    running_on(&mut hosts, 1, RestartPolicy::Always);
    assert_eq!(stop_here(&mut hosts, 1), Ok(()));
    hosts.machine(1).units.clear();
    hosts.pass(3_000);
    let said = reason(&hosts);
    assert!(said.starts_with("stopped by hand on n1; the cluster cannot be told: "), "{said}");
    hosts.restart(1, config(1, 1));
    let known = |hosts: &Hosts| {
        let vm = hosts.host(1).member().expect("a member").state().vms[&web()].clone();
        vm.stopped.is_some()
    };
    hosts.until("the version is raised and it is told", known);
    assert_eq!(starts(&hosts, 1), 0);
}

#[test]
fn a_vm_that_is_never_restarted_stays_stopped_and_the_cluster_knows_why() {
    let mut hosts = Hosts::formed(1);
    let order = running_on(&mut hosts, 1, RestartPolicy::Never);
    let why = "the guest shut itself down".to_owned();
    let ended = UnitEnd { why, cause: Some(EndCause::GuestShutDown), at_unix_ms: Some(9) };
    let failed = ObservedUnit { state: ObservedState::Failed, ended: Some(ended), ..unit(order) };
    hosts.machine(1).units = vec![failed];
    hosts.give(1, Input::UnitsChanged);
    hosts.pass(5_000);
    assert_eq!(starts(&hosts, 1), 0);
    let vm = hosts.host(1).member().expect("a member").state().vms[&web()].clone();
    let stopped = vm.stopped.expect("it is known").stop;
    assert_eq!(stopped.cause, StopCause::Ended(EndCause::GuestShutDown));
    assert_eq!((vm.desired, stopped.at_unix_ms), (Desired::Stopped, 9));
    assert!(hosts.machines[&1].begun.contains(&Action::ResetFailed(web())), "the log has it now");
}

/// What changes a unit beside the agent: with systemd's signal, and when that is lost.
#[test]
fn what_happens_to_a_unit_is_seen_in_a_tenth_of_a_second_and_without_a_signal_in_two_seconds() {
    let mut hosts = Hosts::formed(1);
    let order = running_on(&mut hosts, 1, RestartPolicy::Always);
    let says = |status| vec![ObservedUnit { status: Some(status), ..unit(order) }];
    let seen_after_ms = |hosts: &mut Hosts, wanted: &str| {
        let since = hosts.now_ms;
        hosts.until("it is seen", |hosts| reason(hosts) == wanted);
        hosts.now_ms - since
    };
    let full = "disk0 /srv/a.raw: No space left on device";
    hosts.machine(1).units = says(UnitStatus::Paused(full.to_owned()));
    hosts.give(1, Input::UnitsChanged);
    assert!(seen_after_ms(&mut hosts, full) <= 100);
    hosts.machine(1).units = says(UnitStatus::NotAnswering("for long".to_owned()));
    let late_ms = seen_after_ms(&mut hosts, "not answering: for long");
    assert!(late_ms <= 2_050, "{late_ms} ms");
    // A unit that is gone, as with `systemctl stop` or `kill`: noticed, and started again a second later.
    hosts.machine(1).units.clear();
    let since = hosts.now_ms;
    hosts.until("it is started again", |hosts| starts(hosts, 1) == 1);
    assert!(hosts.now_ms - since <= 5_000, "{} ms", hosts.now_ms - since);
}
