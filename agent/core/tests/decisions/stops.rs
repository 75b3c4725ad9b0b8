//! VMs that stay stopped because their node says so: stopped by hand, or ended for good.

use blixard_core::VmRecord;
use blixard_core::planner::prepare::earlier_than;
use blixard_core::ports::{ObservedUnit, UnitEnd};
use blixard_core::reconciler::{
    Action, Memory, STABLE_MS, UnitsView, outdated_notes, reconcile, report, unexpected_ends,
};
use blixard_core::report::observed;
use blixard_model::formation::Origin;
use blixard_model::report::{NodeReport, ObservedState};
use blixard_model::wire::AgedReport;
use blixard_model::{
    ClusterId, ClusterVersion, Command, Desired, EndCause, NotedStop, OrderId, Outcome, Placement,
    RestartPolicy, StopCause, StopNote, VmSpec, VmStop, WriteAsk,
};

use crate::common::{Cluster, name, node, spec};
use crate::reconciler::{WALL_MS, unit, view, vm};

fn stopped(n: &str, generation: u64) -> Command {
    Command::NoteStopped { name: name("a"), node: node(n), generation, stop: BY_HAND }
}

/// The VM `a` on n1, made at index 2.
fn with_a() -> Cluster {
    let mut cluster = Cluster::of(1);
    cluster.create(spec("a"));
    cluster
}

#[test]
fn the_word_of_a_node_stops_that_placement_until_somebody_starts_it() {
    let mut c = with_a();
    let of_another = Outcome::unchanged(Some(node("n1")));
    assert_eq!(c.apply(stopped("n1", 1)), of_another, "of an earlier placement");
    assert_eq!(c.apply(stopped("n2", 2)), of_another, "of another node");
    let record = |c: &Cluster| c.state.vms[&name("a")].clone();
    assert_eq!((record(&c).desired, record(&c).stopped), (Desired::Running, None));
    assert_eq!(c.apply(stopped("n1", 2)), Outcome::done(Some(node("n1"))));
    let noted = NotedStop { node: node("n1"), stop: BY_HAND };
    assert_eq!((record(&c).desired, record(&c).stopped), (Desired::Stopped, Some(noted)));
    assert_eq!(c.apply(stopped("n1", 2)), of_another, "it is known");
    c.apply(Command::StartVm { name: name("a") });
    let started = record(&c);
    assert_eq!((started.desired, started.stopped), (Desired::Running, None));
    // The node says it once more, because it has not learned that it was heard: it has no say any more.
    assert_eq!(c.apply(stopped("n1", 2)), of_another);
    assert_eq!(record(&c).desired, Desired::Running);
    assert!(started.placement.generation > 2);
}

#[test]
fn who_was_stopped_or_deleted_by_the_cluster_is_so_whatever_its_node_says() {
    let mut c = with_a();
    c.apply(Command::StopVm { name: name("a") });
    c.apply(stopped("n1", 2));
    assert_eq!(c.state.vms[&name("a")].stopped, None);
    c.apply(Command::StartVm { name: name("a") });
    assert_eq!(c.state.vms[&name("a")].placement.generation, 2, "the usual start is of the same placement");
    c.apply(stopped("n1", 2));
    c.apply(Command::DeleteVm { name: name("a") });
    assert_eq!(c.state.vms[&name("a")].desired, Desired::Absent);
    c.apply(Command::ConfirmGone { name: name("a"), node: node("n1"), generation: 2 });
    assert!(c.state.vms.is_empty());
}

#[test]
fn a_vm_that_is_started_anew_has_an_order_of_the_cluster_that_it_is_in() {
    let mut c = with_a();
    c.apply(stopped("n1", 2));
    c.state.genesis.origin = Some(Origin { cluster_id: ClusterId::from_bytes([7; 16]), index: 7, nonce: 7 });
    c.apply(Command::StartVm { name: name("a") });
    let order = c.state.vms[&name("a")].order_id();
    assert_ne!(order.lineage, 0);
    assert_eq!(order.lineage, c.state.lineage());
}

#[test]
fn nobody_is_told_what_an_earlier_release_would_not_understand() {
    let mut c = with_a();
    c.state.version = ClusterVersion::LEASES;
    let create = |restart| {
        let spec = VmSpec { restart, ..spec("b") };
        WriteAsk::CreateVm { spec, desired: Desired::Running }
    };
    let told = WriteAsk::NoteStopped { name: name("a"), node: node("n1"), generation: 2, stop: BY_HAND };
    let waits = |c: &Cluster, ask: &WriteAsk| earlier_than(&c.state, ask.needs()).is_some();
    let cases = [
        (told, true),
        (create(RestartPolicy::Always), false),
        (create(RestartPolicy::OnFailure), true),
        (create(RestartPolicy::Never), true),
    ];
    for (ask, wanted) in &cases {
        assert_eq!(waits(&c, ask), *wanted, "{ask:?}");
    }
    c.state.version = ClusterVersion::STOPS_NOTED;
    assert!(cases.iter().all(|(ask, _)| !waits(&c, ask)));
}

#[test]
fn a_vm_that_stays_stopped_says_why_and_what_starts_it() {
    let mut c = with_a();
    c.apply(stopped("n1", 2));
    let record = c.state.vms[&name("a")].clone();
    let placed = [&record];
    let vms = report(&view(&placed, &[], 0), &Memory::default());
    let node_report = NodeReport { node: node("n1"), vms, problem: None, fences: None };
    let aged = AgedReport { report: node_report, age_ms: 0 };
    let (state, reason) = observed(&record, Some(&aged));
    let why = "stopped by hand on n1; `blixard vm start a` starts it";
    assert_eq!((state, reason.as_deref()), (ObservedState::Stopped, Some(why)));
}

fn note(generation: u64) -> StopNote {
    StopNote { name: name("a"), generation, at_unix_ms: 5 }
}

const BY_HAND: VmStop = VmStop { cause: StopCause::ByHand, at_unix_ms: 5 };

#[test]
fn what_was_stopped_by_hand_is_stopped_and_told_and_not_started() {
    use ObservedState::{Failed, Running, Starting, Stopped, Stopping};
    let stop = || Some(Action::Stop(name("a")));
    let told = || Some(Action::ConfirmStop(name("a"), BY_HAND));
    let start = || Some(Action::Start(name("a")));
    let cases = [
        (7, Some(Starting), stop(), ObservedState::Stopping),
        (7, Some(Running), stop(), ObservedState::Stopping),
        (7, Some(Stopping), None, ObservedState::Stopping),
        (7, Some(Stopped), told(), ObservedState::Stopped),
        (7, Some(Failed), told(), ObservedState::Stopped),
        (7, None, told(), ObservedState::Stopped),
        // Of another placement it says nothing.
        (6, None, start(), ObservedState::Pending),
        (8, Some(Running), None, ObservedState::Running),
    ];
    for (generation, state, wanted, seen) in cases {
        let (vm, notes) = (vm(Desired::Running), [note(generation)]);
        let units: Vec<_> = state.map(unit).into_iter().collect();
        let placed = [&vm];
        let view = UnitsView { stopped: &notes, ..view(&placed, &units, 0) };
        let mut memory = Memory::default();
        assert_eq!(reconcile(&view, &mut memory), wanted.into_iter().collect::<Vec<_>>(), "{state:?}");
        let told = report(&view, &memory).remove(0);
        assert_eq!(told.state, seen, "{generation} {state:?}");
        let by_hand = told.reason.is_some_and(|reason| reason == "stopped by hand on n1");
        assert_eq!(by_hand, generation == 7, "{generation} {state:?}");
    }
}

#[test]
fn what_was_stopped_by_hand_is_stopped_also_while_the_log_is_old() {
    let (vm, notes) = (vm(Desired::Running), [note(7)]);
    let placed = [&vm];
    let stop = [Action::Stop(name("a"))];
    let shows = |order| [ObservedUnit { order, ..unit(ObservedState::Running) }];
    let steps = |placed: &[&VmRecord], units: &[ObservedUnit]| {
        let view = UnitsView { stopped: &notes, up_to_date: false, ..view(placed, units, 0) };
        assert_eq!(outdated_notes(&view), [], "nobody knows yet");
        reconcile(&view, &mut Memory::default())
    };
    let generation = |generation| Some(OrderId::new(generation, 3));
    assert_eq!(steps(&placed, &shows(generation(7))), stop);
    assert_eq!(steps(&[], &shows(generation(7))), stop, "the log does not know of it yet");
    assert_eq!(steps(&placed, &shows(None)), stop, "by the log's word which placement it is");
    assert_eq!(steps(&placed, &shows(generation(6))), []);
    assert_eq!(steps(&placed, &[]), [], "nobody could be told");
}

#[test]
fn the_end_of_what_was_stopped_by_hand_is_no_failure() {
    let (vm, notes, mut memory) = (vm(Desired::Running), [note(7)], Memory::default());
    let placed = [&vm];
    reconcile(&view(&placed, &[unit(ObservedState::Running)], 0), &mut memory);
    assert!(memory.was_running(&name("a")));
    let stopped = UnitsView { stopped: &notes, ..view(&placed, &[], 1) };
    assert_eq!(unexpected_ends(&stopped, &memory), []);
}

#[test]
fn a_cluster_that_cannot_be_told_of_a_stop_by_hand_is_told_later() {
    let (vm, notes, mut memory) = (vm(Desired::Running), [note(7)], Memory::default());
    let placed = [&vm];
    let at = |now_ms| UnitsView { stopped: &notes, ..view(&placed, &[], now_ms) };
    let confirm = [Action::ConfirmStop(name("a"), BY_HAND)];
    assert_eq!(reconcile(&at(0), &mut memory), confirm);
    memory.note_failed_action(&confirm[0], "no quorum", 0);
    assert_eq!(reconcile(&at(1), &mut memory), []);
    let told = report(&at(1), &memory).remove(0);
    let reason = "stopped by hand on n1; the cluster cannot be told: no quorum (next try in 1 s)";
    assert_eq!((told.state, told.reason.as_deref()), (ObservedState::Stopped, Some(reason)));
    assert_eq!(reconcile(&at(1_001), &mut memory), confirm);
    memory.note_failed_action(&confirm[0], "no quorum", 1_001);
    memory.hurry_confirmations();
    assert_eq!(reconcile(&at(1_002), &mut memory), confirm, "there is a leader");
}

#[test]
fn a_note_is_of_no_use_once_the_log_knows_or_the_vm_is_placed_anew() {
    let outdated = |placed: &[&VmRecord]| {
        let notes = [note(7)];
        outdated_notes(&UnitsView { stopped: &notes, ..view(placed, &[], 0) }).len()
    };
    assert_eq!(outdated(&[&vm(Desired::Running)]), 0);
    assert_eq!(outdated(&[&vm(Desired::Stopped)]), 1, "the cluster knows, or somebody stopped it besides");
    assert_eq!(outdated(&[&vm(Desired::Absent)]), 1);
    assert_eq!(outdated(&[]), 1, "another node has it");
    let anew = Placement { node: node("n1"), generation: 8 };
    assert_eq!(outdated(&[&VmRecord { placement: anew, ..vm(Desired::Running) }]), 1);
}

#[test]
fn a_vm_that_ended_is_started_again_as_its_policy_says() {
    use EndCause::{GuestPanicked, GuestShutDown};
    use RestartPolicy::{Always, Never, OnFailure};
    let right = Some(OrderId::new(7, 0));
    let cases = [
        (Always, Some(GuestShutDown), right, true),
        (OnFailure, Some(GuestShutDown), right, false),
        (OnFailure, Some(GuestPanicked), right, true),
        (Never, Some(GuestPanicked), right, false),
        // It never ran, or the end of its lease ended it: that is not its end.
        (Never, None, right, true),
        // It is another VM that ended.
        (Never, Some(GuestShutDown), Some(OrderId::new(6, 0)), true),
        (Never, Some(GuestShutDown), Some(OrderId::new(7, 3)), true),
        (Never, Some(GuestShutDown), None, true),
    ];
    for (restart, cause, order, starts) in cases {
        let mut vm = vm(Desired::Running);
        vm.spec.restart = restart;
        let ended = UnitEnd { why: "it ended so".to_owned(), cause, at_unix_ms: Some(9) };
        let unit = ObservedUnit { order, ended: Some(ended), ..unit(ObservedState::Failed) };
        let (placed, units) = ([&vm], [unit]);
        let view = view(&placed, &units, 0);
        let wanted = match cause.filter(|_| !starts) {
            None => Action::Start(name("a")),
            Some(cause) => {
                let reason = report(&view, &Memory::default()).remove(0).reason.unwrap_or_default();
                assert_eq!(reason, format!("it ended so; its restart policy is {restart}"));
                Action::ConfirmStop(name("a"), VmStop { cause: StopCause::Ended(cause), at_unix_ms: 9 })
            }
        };
        assert_eq!(reconcile(&view, &mut Memory::default()), [wanted], "{restart} {cause:?} {order:?}");
    }
}

#[test]
fn the_last_end_is_told_with_its_time_and_its_count_is_forgotten_after_a_while() {
    let (vm, mut memory) = (vm(Desired::Running), Memory::default());
    let placed = [&vm];
    let running = [unit(ObservedState::Running)];
    reconcile(&view(&placed, &running, 1_000), &mut memory);
    memory.note_failure(&name("a"), "the guest panicked", 1_500);
    memory.note_failure(&name("a"), "the guest panicked again", 2_500);
    let end = report(&view(&placed, &[], 3_000), &memory).remove(0).last_end.expect("it ended");
    assert_eq!(
        (end.why.as_str(), end.at_unix_ms, end.failures),
        ("the guest panicked again", WALL_MS + 2_500, 2)
    );
    reconcile(&view(&placed, &running, 4_000), &mut memory);
    reconcile(&view(&placed, &running, 4_000 + STABLE_MS), &mut memory);
    let told = report(&view(&placed, &running, 4_000 + STABLE_MS), &memory).remove(0);
    assert_eq!((told.state, told.reason), (ObservedState::Running, None));
    assert_eq!(told.last_end.map(|end| end.failures), Some(0));
}
