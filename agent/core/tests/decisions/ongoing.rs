//! What a node is doing to its units: one action for each VM, a few at once.

use blixard_core::VmRecord;
use blixard_core::ports::{ObservedUnit, UnitEnd};
use blixard_core::reconciler::{ACTIONS_MAX, Action, Ongoing, UnitsView};
use blixard_core::state::HeldSpec;
use blixard_model::report::ObservedState;
use blixard_model::{Desired, Placement};

use crate::common::{name, node, spec};

fn vms(count: usize, desired: Desired) -> Vec<VmRecord> {
    let record = |n: usize| VmRecord {
        spec: spec(&format!("vm{n:02}")),
        desired,
        placement: Placement { node: node("n1"), generation: 7 },
        revision: 0,
        lineage: 0,
        held: None,
        stopped: None,
    };
    (0..count).map(record).collect()
}

/// The units are asked for and listed at once.
fn begin(ongoing: &mut Ongoing, vms: &[VmRecord], units: &[ObservedUnit], now_ms: u64) -> Vec<Action> {
    let look = ongoing.note_asked();
    listed(ongoing, look, (vms, units), now_ms)
}

fn listed(
    ongoing: &mut Ongoing,
    look: u64,
    (vms, units): (&[VmRecord], &[ObservedUnit]),
    now_ms: u64,
) -> Vec<Action> {
    let placed: Vec<&VmRecord> = vms.iter().collect();
    ongoing.begin(&UnitsView { placed: &placed, units, look, now_ms, ..nothing() })
}

/// A node without VMs, whose log is up to date.
fn nothing() -> UnitsView<'static> {
    UnitsView {
        placed: &[],
        units: &[],
        unknown: &[],
        look: 0,
        lease: None,
        stopped: &[],
        up_to_date: true,
        now_ms: 0,
        wall_ms: 0,
    }
}

fn running(vm: &str) -> ObservedUnit {
    ObservedUnit {
        name: name(vm),
        state: ObservedState::Running,
        order: None,
        main_pid: Some(1),
        status: None,
        ended: None,
    }
}

#[test]
fn a_vm_that_something_is_done_to_is_left_alone() {
    let mut ongoing = Ongoing::default();
    let vms = vms(1, Desired::Running);
    let start = [Action::Start(name("vm00"))];
    assert_eq!(begin(&mut ongoing, &vms, &[], 0), start);
    assert_eq!(begin(&mut ongoing, &vms, &[], 1), [], "it is under way");
    // Nor is another action begun on it, when its end is wanted meanwhile and no unit is seen yet.
    let gone = self::vms(1, Desired::Absent);
    assert_eq!(begin(&mut ongoing, &gone, &[], 2), []);
    ongoing.note_done(&start[0], None, 3);
    assert_eq!(begin(&mut ongoing, &gone, &[], 3), [Action::ConfirmGone(name("vm00"))]);
}

#[test]
fn who_waits_for_a_changed_spec_to_be_noted_is_started_and_stopped_meanwhile() {
    let mut ongoing = Ongoing::default();
    let mut changed = vms(1, Desired::Running);
    changed[0].held = Some(HeldSpec::default());
    let confirm = [Action::ConfirmSpec(name("vm00"))];
    let unit = ObservedUnit { order: Some(changed[0].order_id()), ..running("vm00") };
    assert_eq!(begin(&mut ongoing, &changed, &[unit], 0), confirm);
    assert_eq!(begin(&mut ongoing, &changed, &[], 1), [Action::Start(name("vm00"))]);
    ongoing.note_done(&confirm[0], Some("no leader"), 2);
    assert_eq!(begin(&mut ongoing, &changed, &[], 3), [], "the start is under way");
}

#[test]
fn a_changed_spec_is_told_once_although_the_log_here_is_behind() {
    let mut ongoing = Ongoing::default();
    let mut changed = vms(1, Desired::Stopped);
    changed[0].held = Some(HeldSpec::default());
    let confirm = [Action::ConfirmSpec(name("vm00"))];
    assert_eq!(begin(&mut ongoing, &changed, &[], 0), confirm);
    ongoing.note_done(&confirm[0], Some("no leader"), 0);
    assert_eq!(begin(&mut ongoing, &changed, &[], 1_000), confirm, "it was not told");
    ongoing.note_done(&confirm[0], None, 1_000);
    assert_eq!(begin(&mut ongoing, &changed, &[], 1_001), []);
    changed[0].revision = 9;
    assert_eq!(begin(&mut ongoing, &changed, &[], 1_002), confirm, "it was changed once more");
}

#[test]
fn the_end_of_a_confirmation_leaves_the_failure_of_another_action_alone() {
    let mut ongoing = Ongoing::default();
    let mut changed = vms(1, Desired::Running);
    changed[0].held = Some(HeldSpec::default());
    let unit = [ObservedUnit { order: Some(changed[0].order_id()), ..running("vm00") }];
    let confirm = begin(&mut ongoing, &changed, &unit, 0);
    changed[0].desired = Desired::Stopped;
    let stop = begin(&mut ongoing, &changed, &unit, 1);
    assert_eq!(stop, [Action::Stop(name("vm00"))]);
    assert!(ongoing.note_done(&stop[0], Some("timed out"), 2));
    assert!(!ongoing.note_done(&confirm[0], Some("no quorum"), 3), "nobody is told of it");
    assert_eq!(begin(&mut ongoing, &changed, &unit, 4), [], "the stop still pauses");
    assert_eq!(begin(&mut ongoing, &changed, &unit, 1_002), stop);
}

#[test]
fn nothing_is_confirmed_by_a_look_that_may_be_older_than_what_was_done() {
    let mut ongoing = Ongoing::default();
    let [start, confirm] = [Action::Start(name("vm00")), Action::ConfirmGone(name("vm00"))];
    assert_eq!(begin(&mut ongoing, &vms(1, Desired::Running), &[], 0).len(), 1);
    // The units are asked for, the start ends, and only then comes the answer, which does not show the unit.
    let early = ongoing.note_asked();
    ongoing.note_done(&start, None, 3);
    let gone = vms(1, Desired::Absent);
    assert_eq!(listed(&mut ongoing, early, (&gone, &[]), 4), []);
    // Nor is it the last word when they were asked for once more meanwhile.
    let mut ongoing = Ongoing::default();
    assert_eq!(begin(&mut ongoing, &vms(1, Desired::Running), &[], 0).len(), 1);
    let early = ongoing.note_asked();
    ongoing.note_done(&start, None, 3);
    let late = ongoing.note_asked();
    assert_eq!(listed(&mut ongoing, early, (&gone, &[]), 4), []);
    assert_eq!(listed(&mut ongoing, late, (&gone, &[running("vm00")]), 4), [Action::Stop(name("vm00"))]);
    let mut ongoing = Ongoing::default();
    assert_eq!(begin(&mut ongoing, &vms(1, Desired::Running), &[], 0).len(), 1);
    ongoing.note_done(&start, None, 3);
    assert_eq!(begin(&mut ongoing, &gone, &[], 5), [confirm]);
}

#[test]
fn no_more_than_the_most_are_under_way() {
    let mut ongoing = Ongoing::default();
    let vms = vms(ACTIONS_MAX + 3, Desired::Running);
    let first = begin(&mut ongoing, &vms, &[], 0);
    assert_eq!(first.len(), ACTIONS_MAX);
    assert_eq!(begin(&mut ongoing, &vms, &[], 1), []);
    ongoing.note_done(&first[0], Some("exited 1"), 1);
    ongoing.note_done(&first[1], Some("exited 1"), 1);
    // As many as ended, and those that have not been begun yet: the others pause.
    let next = begin(&mut ongoing, &vms, &[], 2);
    let names: Vec<String> = next.iter().map(|action| action.vm().to_string()).collect();
    assert_eq!(names, [format!("vm{ACTIONS_MAX:02}"), format!("vm{:02}", ACTIONS_MAX + 1)]);
}

#[test]
fn a_failure_is_noted_with_its_reason_and_paused_for() {
    let mut ongoing = Ongoing::default();
    let vms = vms(1, Desired::Running);
    let actions = begin(&mut ongoing, &vms, &[], 10_000);
    ongoing.note_done(&actions[0], Some("exited 1"), 10_000);
    assert_eq!(begin(&mut ongoing, &vms, &[], 10_999), []);
    let placed: Vec<&VmRecord> = vms.iter().collect();
    let view = UnitsView { placed: &placed, units: &[], look: 0, now_ms: 10_999, ..nothing() };
    assert_eq!(ongoing.report(&view)[0].reason.as_deref(), Some("exited 1 (next try in 1 s)"));
    assert_eq!(begin(&mut ongoing, &vms, &[], 11_000), actions);
}

#[test]
fn a_start_that_succeeded_is_not_paused_for() {
    let mut ongoing = Ongoing::default();
    let vms = vms(1, Desired::Running);
    let actions = begin(&mut ongoing, &vms, &[], 0);
    ongoing.note_done(&actions[0], None, 1);
    assert_eq!(begin(&mut ongoing, &vms, &[], 1), actions, "its unit does not show: it is started again");
}

#[test]
fn an_end_is_unexpected_only_when_nothing_is_done_to_the_vm() {
    let mut ongoing = Ongoing::default();
    let (on, off) = (vms(1, Desired::Running), vms(1, Desired::Stopped));
    let placed: Vec<&VmRecord> = on.iter().collect();
    let ended = UnitsView { placed: &placed, units: &[], look: 0, now_ms: 5, ..nothing() };
    assert_eq!(begin(&mut ongoing, &on, &[running("vm00")], 0), []);
    assert_eq!(ongoing.unexpected_ends(&ended), [(name("vm00"), None)]);

    // It is being stopped, and wanted again before that ended.
    let stop = begin(&mut ongoing, &off, &[running("vm00")], 1);
    assert_eq!(stop, [Action::Stop(name("vm00"))]);
    begin(&mut ongoing, &on, &[running("vm00")], 2);
    assert_eq!(ongoing.unexpected_ends(&ended), []);
    ongoing.note_done(&stop[0], None, 3);
    assert_eq!(ongoing.unexpected_ends(&ended), [], "a stop that was asked for is no failure");
}

#[test]
fn deletions_that_wait_for_a_leader_and_slow_stops_keep_no_vm_from_being_started() {
    let mut ongoing = Ongoing::default();
    let mut all = vms(3 * ACTIONS_MAX, Desired::Absent);
    let stopped = ACTIONS_MAX..2 * ACTIONS_MAX;
    let units: Vec<ObservedUnit> = stopped.map(|n| running(&format!("vm{n:02}"))).collect();
    let started = &mut all[2 * ACTIONS_MAX..];
    started.iter_mut().for_each(|vm| vm.desired = Desired::Running);
    let begun = begin(&mut ongoing, &all, &units, 0);
    let of = |is: fn(&Action) -> bool| begun.iter().filter(|action| is(action)).count();
    assert_eq!(of(|action| matches!(action, Action::ConfirmGone(_))), ACTIONS_MAX);
    assert_eq!(of(|action| matches!(action, Action::Stop(_))), ACTIONS_MAX);
    assert_eq!(of(|action| matches!(action, Action::Start(_))), ACTIONS_MAX);
}

#[test]
fn an_action_that_is_wanted_again_comes_after_those_that_have_waited() {
    let mut ongoing = Ongoing::default();
    let vms = vms(ACTIONS_MAX + 2, Desired::Absent);
    let first = begin(&mut ongoing, &vms, &[], 0);
    ongoing.note_done(&first[0], None, 50);
    // The first of all names is wanted again, and its place goes to who has waited.
    let waited = [ACTIONS_MAX, ACTIONS_MAX + 1].map(|n| Action::ConfirmGone(name(&format!("vm{n:02}"))));
    assert_eq!(begin(&mut ongoing, &vms, &[], 50), waited[..1]);
    ongoing.note_done(&waited[0], None, 100);
    assert_eq!(begin(&mut ongoing, &vms, &[], 100), waited[1..]);
    ongoing.note_done(&waited[1], None, 150);
    assert_eq!(begin(&mut ongoing, &vms, &[], 150), first[..1], "in turn");
}

/// What is told of the only VM.
fn reason(ongoing: &Ongoing, vm: &VmRecord, units: &[ObservedUnit], now_ms: u64) -> Option<String> {
    let view = UnitsView { placed: &[vm], units, look: 0, now_ms, ..nothing() };
    ongoing.report(&view).remove(0).reason
}

#[test]
fn every_action_that_fails_is_paced_and_its_failure_is_the_reason() {
    let failed = ObservedUnit { state: ObservedState::Failed, ..running("vm00") };
    let cases = [
        (Desired::Stopped, vec![running("vm00")], "it cannot be stopped: access denied"),
        (Desired::Absent, vec![running("vm00")], "it cannot be stopped: access denied"),
        (Desired::Stopped, vec![failed], "its failed unit cannot be reset: access denied"),
        (Desired::Absent, Vec::new(), "it is gone, but the cluster cannot be told: access denied"),
        (Desired::Running, Vec::new(), "access denied"),
    ];
    for (desired, units, why) in cases {
        let (mut ongoing, vms) = (Ongoing::default(), vms(1, desired));
        let first = begin(&mut ongoing, &vms, &units, 0);
        assert!(ongoing.note_done(&first[0], Some("access denied"), 0), "{why}");
        assert_eq!(begin(&mut ongoing, &vms, &units, 999), [], "{why}");
        let told = reason(&ongoing, &vms[0], &units, 999);
        assert_eq!(told, Some(format!("{why} (next try in 1 s)")));
        assert_eq!(begin(&mut ongoing, &vms, &units, 1_000), first, "{why}");
        assert!(!ongoing.note_done(&first[0], Some("access denied"), 1_000), "told once: {why}");
        assert_eq!(begin(&mut ongoing, &vms, &units, 2_999), [], "the pause grows: {why}");
        assert_eq!(begin(&mut ongoing, &vms, &units, 3_000), first, "{why}");
        assert!(ongoing.note_done(&first[0], Some("timed out"), 3_000), "another failure: {why}");
    }
}

#[test]
fn what_is_wanted_instead_of_an_action_that_failed_does_not_wait_for_it() {
    let (mut ongoing, units) = (Ongoing::default(), [running("vm00")]);
    let gone = vms(1, Desired::Absent);
    let stop = begin(&mut ongoing, &gone, &units, 0);
    ongoing.note_done(&stop[0], Some("timed out"), 0);
    // It ended all the same.
    let confirm = [Action::ConfirmGone(name("vm00"))];
    assert_eq!(begin(&mut ongoing, &gone, &[], 1), confirm);
    assert_eq!(reason(&ongoing, &gone[0], &[], 1), None);
    // And a leader that is there again is told at once.
    ongoing.note_done(&confirm[0], Some("no quorum"), 1);
    assert_eq!(begin(&mut ongoing, &gone, &[], 2), []);
    ongoing.note_leader();
    assert_eq!(begin(&mut ongoing, &gone, &[], 2), confirm);
}

#[test]
fn an_action_that_went_well_is_not_paced_for_what_failed_before() {
    let (mut ongoing, units) = (Ongoing::default(), [running("vm00")]);
    let off = vms(1, Desired::Stopped);
    let stop = begin(&mut ongoing, &off, &units, 0);
    ongoing.note_done(&stop[0], Some("timed out"), 0);
    assert_eq!(begin(&mut ongoing, &off, &units, 1_000), stop);
    ongoing.note_done(&stop[0], None, 1_000);
    assert_eq!(begin(&mut ongoing, &off, &units, 1_001), stop, "somebody started it behind our back");
    assert!(ongoing.note_done(&stop[0], Some("timed out"), 1_001));
    assert_eq!(begin(&mut ongoing, &off, &units, 2_001), stop, "the first failure again");
}

#[test]
fn a_vm_that_ended_before_anybody_saw_it_run_has_ended_all_the_same() {
    let mut ongoing = Ongoing::default();
    let vms = vms(1, Desired::Running);
    let start = begin(&mut ongoing, &vms, &[], 0);
    // The units are asked for before the start ends: that look shows nothing of the run.
    let early = ongoing.note_asked();
    ongoing.note_done(&start[0], None, 3);
    let placed: Vec<&VmRecord> = vms.iter().collect();
    let failed = ObservedUnit {
        state: ObservedState::Failed,
        ended: Some(UnitEnd::in_words("the guest restarted itself")),
        ..running("vm00")
    };
    let units = [failed];
    let view = |look, units| UnitsView { placed: &placed, units, look, now_ms: 4, ..nothing() };
    assert_eq!(ongoing.unexpected_ends(&view(early, &[])), []);
    let late = ongoing.note_asked();
    let ends = ongoing.unexpected_ends(&view(late, &units));
    assert_eq!(ends, [(name("vm00"), Some("the guest restarted itself".to_owned()))]);
    ongoing.note_end(&name("vm00"), "the guest restarted itself", 4);
    assert_eq!(begin(&mut ongoing, &vms, &units, 5), [], "it is started again after a pause");
    assert_eq!(begin(&mut ongoing, &vms, &units, 1_004), start);
}

#[test]
fn a_stop_supersedes_a_start_and_what_comes_of_that_is_forgotten() {
    let starting = [ObservedUnit { state: ObservedState::Starting, ..running("vm00") }];
    let stop = [Action::Stop(name("vm00"))];
    // The start ends before the stop, or after it; as failed, or well.
    for start_first in [true, false] {
        for failure in [None, Some("a stop came before it ran")] {
            let mut ongoing = Ongoing::default();
            let (on, off) = (vms(1, Desired::Running), vms(1, Desired::Stopped));
            let start = begin(&mut ongoing, &on, &[], 0);
            assert_eq!(begin(&mut ongoing, &on, &starting, 1), []);
            assert_eq!(begin(&mut ongoing, &off, &starting, 2), stop, "it does not wait");
            assert_eq!(begin(&mut ongoing, &off, &starting, 3), [], "once");
            // It is wanted again before either has ended.
            assert_eq!(begin(&mut ongoing, &on, &[], 4), []);
            let (start, stop) = (start.as_slice(), stop.as_slice());
            let (first, second) = if start_first { (start, stop) } else { (stop, start) };
            let failed = |of: &[Action]| failure.filter(|_| of == start);
            assert!(!ongoing.note_done(&first[0], failed(first), 5), "nobody is told of it");
            assert_eq!(begin(&mut ongoing, &on, &[], 6), [], "the other has not ended");
            assert!(!ongoing.note_done(&second[0], failed(second), 7));
            let look = ongoing.note_asked();
            let placed: Vec<&VmRecord> = on.iter().collect();
            let view = UnitsView { placed: &placed, units: &[], look, now_ms: 8, ..nothing() };
            assert_eq!(ongoing.unexpected_ends(&view), [], "it never ran");
            assert_eq!(ongoing.begin(&view), start, "without a pause");
        }
    }
}
