//! What a node does to its units.

use crate::common::{name, node, spec};
use blixard_core::VmRecord;
use blixard_core::ports::{ObservedUnit, UnitEnd};
use blixard_core::reconciler::{Action, Memory, STABLE_MS, UnitsView, reconcile, report, unexpected_ends};
use blixard_core::state::HeldSpec;
use blixard_model::report::{ObservedState, REASON_LEN_MAX};
use blixard_model::{
    BootId, ClusterId, Desired, LeaseFile, OnNodeLoss, OrderId, Placement, UnitStatus, VmSpec,
};

/// The machine's clock when the other one said 0.
pub(crate) const WALL_MS: u64 = 1_795_000_000_000;

pub(crate) fn vm(desired: Desired) -> VmRecord {
    let placement = Placement { node: node("n1"), generation: 7 };
    VmRecord { spec: spec("a"), desired, placement, revision: 0, lineage: 0, held: None, stopped: None }
}

pub(crate) fn unit(state: ObservedState) -> ObservedUnit {
    ObservedUnit {
        name: name("a"),
        state,
        order: Some(OrderId::new(7, 0)),
        main_pid: Some(1),
        status: None,
        ended: None,
    }
}

pub(crate) fn view<'a>(placed: &'a [&'a VmRecord], units: &'a [ObservedUnit], now_ms: u64) -> UnitsView<'a> {
    UnitsView {
        placed,
        units,
        unknown: &[],
        look: 0,
        lease: None,
        stopped: &[],
        up_to_date: true,
        now_ms,
        wall_ms: WALL_MS + now_ms,
    }
}

#[test]
fn each_difference_has_its_one_step() {
    use ObservedState::{Failed, Running, Starting, Stopped, Stopping};
    let a = || name("a");
    let cases = [
        (Desired::Running, None, Some(Action::Start(a()))),
        (Desired::Running, Some(Starting), None),
        (Desired::Running, Some(Running), None),
        (Desired::Running, Some(Stopping), None),
        (Desired::Running, Some(Stopped), Some(Action::Start(a()))),
        (Desired::Running, Some(Failed), Some(Action::Start(a()))),
        (Desired::Stopped, None, None),
        (Desired::Stopped, Some(Starting), Some(Action::Stop(a()))),
        (Desired::Stopped, Some(Running), Some(Action::Stop(a()))),
        (Desired::Stopped, Some(Stopping), None),
        (Desired::Stopped, Some(Failed), Some(Action::ResetFailed(a()))),
        (Desired::Absent, None, Some(Action::ConfirmGone(a()))),
        (Desired::Absent, Some(Running), Some(Action::Stop(a()))),
        (Desired::Absent, Some(Stopping), None),
        (Desired::Absent, Some(Stopped), Some(Action::ConfirmGone(a()))),
        (Desired::Absent, Some(Failed), Some(Action::ResetFailed(a()))),
    ];
    for (desired, state, wanted) in cases {
        let (vm, units) = (vm(desired), state.map(unit).into_iter().collect::<Vec<_>>());
        let actions = reconcile(&view(&[&vm], &units, 0), &mut Memory::default());
        assert_eq!(actions, wanted.into_iter().collect::<Vec<_>>(), "{desired:?} {state:?}");
    }
}

#[test]
fn a_changed_spec_is_confirmed_once_no_unit_can_run_by_an_earlier_one() {
    use ObservedState::{Failed, Running, Starting, Stopped, Stopping};
    let a = || name("a");
    let cases = [
        (Desired::Running, 9, Some(Running), Some(Action::ConfirmSpec(a()))),
        (Desired::Running, 9, Some(Starting), Some(Action::ConfirmSpec(a()))),
        (Desired::Running, 0, Some(Running), Some(Action::Stop(a()))),
        (Desired::Running, 0, Some(Stopping), None),
        (Desired::Running, 9, None, Some(Action::Start(a()))),
        (Desired::Stopped, 0, Some(Running), Some(Action::Stop(a()))),
        (Desired::Stopped, 0, Some(Stopping), None),
        (Desired::Stopped, 0, Some(Failed), Some(Action::ResetFailed(a()))),
        (Desired::Stopped, 0, Some(Stopped), Some(Action::ConfirmSpec(a()))),
        (Desired::Stopped, 0, None, Some(Action::ConfirmSpec(a()))),
        (Desired::Absent, 0, None, Some(Action::ConfirmGone(a()))),
    ];
    for (desired, revision, state, wanted) in cases {
        let vm = VmRecord { revision: 9, held: Some(HeldSpec::default()), ..vm(desired) };
        let order = Some(OrderId::new(7, revision));
        let units: Vec<_> = state.map(|state| ObservedUnit { order, ..unit(state) }).into_iter().collect();
        let actions = reconcile(&view(&[&vm], &units, 0), &mut Memory::default());
        assert_eq!(actions, wanted.into_iter().collect::<Vec<_>>(), "{desired:?} {revision} {state:?}");
    }
}

#[test]
fn a_changed_spec_with_which_nothing_starts_is_confirmed_while_the_start_pauses() {
    let vm = VmRecord { revision: 9, held: Some(HeldSpec::default()), ..vm(Desired::Running) };
    let mut memory = Memory::default();
    let (start, confirm) = ([Action::Start(name("a"))], [Action::ConfirmSpec(name("a"))]);
    assert_eq!(reconcile(&view(&[&vm], &[], 0), &mut memory), start);
    memory.note_failure(&name("a"), "exited 1", 0);
    assert_eq!(reconcile(&view(&[&vm], &[], 1), &mut memory), confirm);
    // Nobody leads: it pauses too, and is not forgotten when the start is tried meanwhile.
    memory.note_failed_action(&confirm[0], "no quorum", 1);
    memory.note_failed_action(&confirm[0], "no quorum", 2);
    assert_eq!(reconcile(&view(&[&vm], &[], 3), &mut memory), []);
    assert_eq!(reconcile(&view(&[&vm], &[], 1_000), &mut memory), start);
    memory.note_failure(&name("a"), "exited 1", 1_000);
    assert_eq!(reconcile(&view(&[&vm], &[], 1_001), &mut memory), []);
    assert_eq!(reconcile(&view(&[&vm], &[], 2_002), &mut memory), confirm);
    let released = VmRecord { held: None, ..vm };
    assert_eq!(reconcile(&view(&[&released], &[], 2_003), &mut memory), []);
}

#[test]
fn a_vm_that_may_not_be_failed_over_any_more_starts_once_the_lease_of_then_is_over() {
    // However often it was changed since.
    let failover = VmSpec { on_node_loss: Some(OnNodeLoss::Failover), ..spec("a") };
    let keep = VmSpec { on_node_loss: Some(OnNodeLoss::Keep), ..spec("a") };
    let held = Some(HeldSpec::of(&failover).and(&keep));
    let vm = VmRecord { revision: 9, held, ..vm(Desired::Running) };
    let placed = [&vm];
    // A new machine of its node's name: on the old one it may still run. Here nothing runs by the earlier
    // spec.
    let waits = view(&placed, &[], 0);
    assert_eq!(reconcile(&waits, &mut Memory::default()), [Action::ConfirmSpec(name("a"))]);
    let told = report(&waits, &Memory::default()).remove(0);
    let why = "it waits for a lease of its node";
    assert_eq!((told.state, told.reason.as_deref()), (ObservedState::Pending, Some(why)));
    let lease = LeaseFile {
        boot_id: BootId::from_bytes([1; 16]),
        cluster_id: ClusterId::from_bytes([2; 16]),
        until_ms: Some(1),
        grant: None,
        enforces: None,
        vms: [(name("a"), vm.placement.generation)].into(),
    };
    let granted = UnitsView { lease: Some(&lease), ..view(&placed, &[], 0) };
    assert_eq!(reconcile(&granted, &mut Memory::default()), [Action::Start(name("a"))]);
}

#[test]
fn a_unit_of_another_placement_is_stopped_and_then_started_as_wanted() {
    use ObservedState::{Failed, Running, Starting, Stopped, Stopping};
    let a = || name("a");
    let cases = [
        (Some(6), Starting, Some(Action::Stop(a()))),
        (Some(6), Running, Some(Action::Stop(a()))),
        (Some(8), Running, Some(Action::Stop(a()))),
        (Some(6), Stopping, None),
        (Some(6), Stopped, Some(Action::Start(a()))),
        (Some(6), Failed, Some(Action::Start(a()))),
        (Some(7), Running, None),
        // Started by a release that shows none: adopted by its name.
        (None, Running, None),
    ];
    for (generation, state, wanted) in cases {
        let order = generation.map(|generation| OrderId::new(generation, 0));
        let (vm, unit) = (vm(Desired::Running), ObservedUnit { order, ..unit(state) });
        let actions = reconcile(&view(&[&vm], &[unit], 0), &mut Memory::default());
        assert_eq!(actions, wanted.into_iter().collect::<Vec<_>>(), "{generation:?} {state:?}");
    }
    let (vm, unit) = (
        vm(Desired::Running),
        ObservedUnit { order: Some(OrderId::new(6, 0)), ..unit(ObservedState::Running) },
    );
    let told = report(&view(&[&vm], &[unit], 0), &Memory::default()).remove(0);
    assert_eq!(told.state, ObservedState::Stopping);
    assert!(told.reason.is_some_and(|reason| reason.contains("an earlier placement")));
}

#[test]
fn a_unit_with_an_earlier_revision_of_the_spec_is_stopped_and_then_started_as_changed() {
    use ObservedState::{Running, Starting, Stopped};
    let a = || name("a");
    let shows = |generation, revision| Some(OrderId::new(generation, revision));
    let cases = [
        (9, shows(7, 0), Starting, Some(Action::Stop(a()))),
        (9, shows(7, 0), Running, Some(Action::Stop(a()))),
        (9, shows(7, 8), Running, Some(Action::Stop(a()))),
        (9, shows(7, 9), Running, None),
        (9, shows(6, 9), Running, Some(Action::Stop(a()))),
        (9, shows(7, 0), Stopped, Some(Action::Start(a()))),
        // A release that shows no order started it, and knew no spec but the first.
        (9, None, Running, Some(Action::Stop(a()))),
        (0, None, Running, None),
    ];
    for (revision, order, state, wanted) in cases {
        let vm = VmRecord { revision, ..vm(Desired::Running) };
        let unit = ObservedUnit { order, ..unit(state) };
        let actions = reconcile(&view(&[&vm], std::slice::from_ref(&unit), 0), &mut Memory::default());
        assert_eq!(actions, wanted.into_iter().collect::<Vec<_>>(), "{revision} {order:?} {state:?}");
        // What shall not run is stopped by its name, whatever order it obeys.
        let stopped = VmRecord { desired: Desired::Stopped, ..vm };
        let actions = reconcile(&view(&[&stopped], &[unit], 0), &mut Memory::default());
        assert_eq!(actions.is_empty(), state == Stopped);
    }
    let vm = VmRecord { revision: 9, ..vm(Desired::Running) };
    let told = report(&view(&[&vm], &[unit(Running)], 0), &Memory::default()).remove(0);
    assert_eq!(told.state, ObservedState::Stopping);
    assert!(told.reason.is_some_and(|reason| reason.contains("its spec as it was before")));
}

#[test]
fn a_changed_spec_is_tried_at_once_whatever_failed_before() {
    let (wrong, mut memory) = (vm(Desired::Running), Memory::default());
    reconcile(&view(&[&wrong], &[], 0), &mut memory);
    for _ in 0..9 {
        memory.note_failure(&name("a"), "exited 1", 1_000);
    }
    assert_eq!(reconcile(&view(&[&wrong], &[], 2_000), &mut memory), []);
    let right = VmRecord { revision: 9, ..wrong };
    let placed = [&right];
    let changed = view(&placed, &[], 2_000);
    assert_eq!(reconcile(&changed, &mut memory), [Action::Start(name("a"))]);
    let told = report(&changed, &memory).remove(0);
    assert_eq!((told.state, told.reason), (ObservedState::Pending, None));
}

#[test]
fn a_unit_that_nobody_wants_is_stopped() {
    let actions = reconcile(&view(&[], &[unit(ObservedState::Running)], 0), &mut Memory::default());
    assert_eq!(actions, [Action::Stop(name("a"))]);
}

#[test]
fn a_unit_of_a_vm_that_nobody_knows_is_told_of_before_it_is_stopped() {
    let (units, unknown) = ([unit(ObservedState::Running)], [name("a")]);
    let mut memory = Memory::default();
    let look = |memory: &mut Memory, unknown, now_ms| {
        let actions = reconcile(&UnitsView { unknown, ..view(&[], &units, now_ms) }, memory);
        (actions, memory.unknown().map(|(name, at_ms)| (name.to_string(), at_ms)).collect::<Vec<_>>())
    };
    let told = vec![("a".to_owned(), 15_000)];
    assert_eq!(look(&mut memory, &unknown, 5_000), (vec![], told.clone()));
    assert_eq!(look(&mut memory, &unknown, 14_999), (vec![], told.clone()));
    assert_eq!(look(&mut memory, &unknown, 15_000), (vec![Action::Stop(name("a"))], told));
    // One that is placed elsewhere, or gets there meanwhile, is stopped at once.
    assert_eq!(look(&mut memory, &[], 15_001), (vec![Action::Stop(name("a"))], vec![]));
    // One that ended and is started again is told of anew.
    assert_eq!(look(&mut memory, &unknown, 20_000).0, []);
}

#[test]
fn nothing_is_done_on_an_old_log() {
    let stale = UnitsView {
        placed: &[],
        units: &[unit(ObservedState::Running)],
        unknown: &[],
        look: 0,
        lease: None,
        stopped: &[],
        up_to_date: false,
        now_ms: 0,
        wall_ms: 0,
    };
    assert_eq!(reconcile(&stale, &mut Memory::default()), []);
    let vm = vm(Desired::Running);
    let placed = [&vm];
    let stale = UnitsView { up_to_date: false, ..view(&placed, &[], 0) };
    assert_eq!(reconcile(&stale, &mut Memory::default()), []);
    let told = report(&stale, &Memory::default()).remove(0);
    let why = "it waits until its node has read the log since it started, which takes a quorum";
    assert_eq!((told.state, told.reason.as_deref()), (ObservedState::Pending, Some(why)));
}

#[test]
fn failures_are_tried_again_after_growing_pauses() {
    let (vm, mut memory) = (vm(Desired::Running), Memory::default());
    memory.note_failure(&name("a"), "exited 1", 10_000);
    assert_eq!(reconcile(&view(&[&vm], &[], 10_999), &mut memory), []);
    assert_eq!(reconcile(&view(&[&vm], &[], 11_000), &mut memory), [Action::Start(name("a"))]);
    memory.note_failure(&name("a"), "exited 1", 11_000);
    assert_eq!(reconcile(&view(&[&vm], &[], 12_999), &mut memory), []);
    assert_eq!(reconcile(&view(&[&vm], &[], 13_000), &mut memory), [Action::Start(name("a"))]);
}

#[test]
fn a_vm_that_ran_long_enough_starts_counting_anew() {
    let (vm, mut memory) = (vm(Desired::Running), Memory::default());
    for _ in 0..5 {
        memory.note_failure(&name("a"), "exited 1", 0);
    }
    let units = [unit(ObservedState::Running)];
    reconcile(&view(&[&vm], &units, 100_000), &mut memory);
    reconcile(&view(&[&vm], &units, 100_000 + STABLE_MS), &mut memory);
    memory.note_failure(&name("a"), "exited 1", 200_000);
    assert_eq!(reconcile(&view(&[&vm], &[], 201_000), &mut memory), [Action::Start(name("a"))]);
}

#[test]
fn an_end_nobody_asked_for_is_noticed_once() {
    let (vm, mut memory) = (vm(Desired::Running), Memory::default());
    assert!(unexpected_ends(&view(&[&vm], &[], 0), &memory).is_empty(), "never seen running");
    reconcile(&view(&[&vm], &[unit(ObservedState::Running)], 0), &mut memory);
    assert_eq!(unexpected_ends(&view(&[&vm], &[], 1), &memory), [(name("a"), None)]);
    let mut failed = unit(ObservedState::Failed);
    failed.ended = Some(UnitEnd::in_words("exited 1"));
    assert_eq!(unexpected_ends(&view(&[&vm], &[failed], 1), &memory), [(name("a"), Some("exited 1".into()))]);
    memory.note_failure(&name("a"), "exited 1", 1);
    assert!(unexpected_ends(&view(&[&vm], &[], 2), &memory).is_empty());
}

#[test]
fn a_stop_that_was_asked_for_is_no_failure() {
    let mut memory = Memory::default();
    let running = [unit(ObservedState::Running)];
    let (on, off) = (vm(Desired::Running), vm(Desired::Stopped));
    reconcile(&view(&[&on], &running, 0), &mut memory);
    // Stopped and started again: both the log's turn and the end of the action take the memory away.
    reconcile(&view(&[&off], &running, 1), &mut memory);
    assert!(unexpected_ends(&view(&[&on], &[], 2), &memory).is_empty());
    // Started again while it still stops.
    reconcile(&view(&[&on], &running, 3), &mut memory);
    memory.note_stopped(&name("a"));
    assert!(unexpected_ends(&view(&[&on], &[], 4), &memory).is_empty());
    assert_eq!(reconcile(&view(&[&on], &[], 4), &mut memory), [Action::Start(name("a"))]);
}

#[test]
fn the_report_says_what_is_and_why() {
    let mut memory = Memory::default();
    let states = |desired, state: Option<ObservedState>, memory: &Memory| {
        let (vm, units) = (vm(desired), state.map(unit).into_iter().collect::<Vec<_>>());
        report(&view(&[&vm], &units, 1_000), memory).remove(0)
    };
    let pending = states(Desired::Running, None, &memory);
    assert_eq!((pending.state, pending.reason), (ObservedState::Pending, None));
    assert_eq!(states(Desired::Running, Some(ObservedState::Running), &memory).main_pid, Some(1));
    assert_eq!(states(Desired::Stopped, Some(ObservedState::Failed), &memory).state, ObservedState::Stopped);
    assert_eq!(states(Desired::Absent, None, &memory).state, ObservedState::Deleting);
    memory.note_failure(&name("a"), "exited 1: no such file", 1_000);
    let failed = states(Desired::Running, None, &memory);
    assert_eq!(failed.state, ObservedState::Failed);
    assert_eq!(failed.reason.as_deref(), Some("exited 1: no such file (next try in 1 s)"));
}

#[test]
fn a_vm_that_failed_again_says_how_often_and_when_it_is_tried_again_however_long_the_reason() {
    let (vm, mut memory) = (vm(Desired::Running), Memory::default());
    let told =
        |memory: &Memory| report(&view(&[&vm], &[], 1_000), memory).remove(0).reason.expect("a reason");
    memory.note_failure(&name("a"), "timed out", 1_000);
    memory.note_failure(&name("a"), "exited 1", 1_000);
    memory.note_failure(&name("a"), "exited 1", 1_000);
    assert_eq!(told(&memory), "3 times in a row, the last time: exited 1 (next try in 4 s)");
    memory.note_console(&name("a"), &["é".repeat(REASON_LEN_MAX)]);
    let long = told(&memory);
    assert!(long.starts_with("3 times in a row, the last time: exited 1: éé"), "{long}");
    assert!(long.ends_with("é (next try in 4 s)"), "{long}");
    assert!((REASON_LEN_MAX - 1..=REASON_LEN_MAX).contains(&long.len()), "{}", long.len());
}

#[test]
fn the_report_says_what_the_supervisor_says_of_a_vm_that_runs() {
    let (vm, memory) = (vm(Desired::Running), Memory::default());
    let told = |status: Option<UnitStatus>| {
        let units = [ObservedUnit { status, ..unit(ObservedState::Running) }];
        let report = report(&view(&[&vm], &units, 1_000), &memory).remove(0);
        (report.state, report.reason)
    };
    let full = || "disk0 /srv/a.raw: No space left on device".to_owned();
    assert_eq!(told(Some(UnitStatus::Paused(full()))), (ObservedState::Paused, Some(full())));
    let silent = UnitStatus::NotAnswering("the hypervisor has said nothing".to_owned());
    assert_eq!(told(Some(silent.clone())), (ObservedState::Running, Some(silent.to_string())));
    for status in [None, Some(UnitStatus::Running)] {
        assert_eq!(told(status), (ObservedState::Running, None));
    }
    // The unit of one that needs a lease counts as started before its guest runs.
    assert_eq!(told(Some(UnitStatus::Starting)), (ObservedState::Starting, None));
    let waits = UnitStatus::Waiting("for a lease: there is none".to_owned());
    let why = "it waits for a lease: there is none".to_owned();
    assert_eq!(told(Some(waits)), (ObservedState::Starting, Some(why)));
    // A guest that stands still is left as it is: the supervisor lets it go on.
    let units = [ObservedUnit { status: Some(UnitStatus::Paused(full())), ..unit(ObservedState::Running) }];
    assert_eq!(reconcile(&view(&[&vm], &units, 0), &mut Memory::default()), []);
}

#[test]
fn a_vm_that_ends_again_and_again_says_so_while_it_runs_until_it_has_run_for_a_while() {
    let (vm, mut memory) = (vm(Desired::Running), Memory::default());
    let units = [unit(ObservedState::Running)];
    let reason_at = |now_ms, memory: &mut Memory| {
        reconcile(&view(&[&vm], &units, now_ms), memory);
        report(&view(&[&vm], &units, now_ms), memory).remove(0).reason
    };
    memory.note_failure(&name("a"), "the guest restarted itself", 0);
    assert_eq!(reason_at(1_000, &mut memory), None, "once is no loop");
    memory.note_failure(&name("a"), "the guest restarted itself", 15_000);
    let words =
        "crash-looping: it ended or failed 2 times in a row; the last time: the guest restarted itself";
    assert_eq!(reason_at(20_000, &mut memory).as_deref(), Some(words));
    assert_eq!(reason_at(20_000 + STABLE_MS, &mut memory), None);
}
