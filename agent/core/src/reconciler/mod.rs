//! What a node does to its units so that they become what the log wants.
//!
//! ```text
//!   desired    unit                      action
//!   running    starting, running         -
//!              the same, by the order of another placement or another revision of the spec:
//!              stop, then start as wanted
//!              stopping                  wait
//!              stopped, failed, none     start (after a pause that grows with each failure)
//!   stopped    starting, running         stop
//!              failed                    forget the failure
//!   absent     starting, running         stop
//!              failed                    forget the failure
//!              stopped, none             confirm to the cluster that it is gone
//!   running    starting or running as wanted, or a start that failed and pauses, while the log holds what an
//!              earlier spec took: confirm to the cluster that no unit runs by it
//!   stopped    stopped, none, while the log holds that: the same
//!   not ours   starting, running         stop (it was deleted or taken over while this node was away)
//!
//!   running, but stopped by hand, or ended and not to be started again (`rest.rs`):
//!              starting, running         stop
//!              stopped, failed, none     confirm to the cluster that it stays stopped
//! ```
//!
//! A VM that may be failed over is started only while this node has a lease, and so is one that might be so
//! by an earlier spec which a unit may still run by.
//!
//! Each action that failed is tried again after a pause that grows with each failure.
//!
//! Nothing is done before the node has once read the log up to date since its agent started: an old log may
//! want what was deleted long ago, or not know what was made since. What was stopped by hand is stopped all
//! the same.

mod action;
mod memory;
mod ongoing;
mod rest;
mod view;

use std::collections::BTreeMap;

use blixard_model::report::{ObservedState, VmReport};
use blixard_model::{Desired, UnitStatus, VmName, VmStop, mutant};

use crate::lease::permits;
use crate::ports::ObservedUnit;
use crate::state::VmRecord;

pub use action::{Action, ActionKind};
pub use memory::{Memory, STABLE_MS};
pub use ongoing::{ACTIONS_MAX, Ongoing};
pub use rest::outdated_notes;
pub use view::UnitsView;

use view::unit_of;

/// The ends that were not asked for: VMs seen running before that run no more while they should, and how they
/// ended as far as the service manager still knows.
pub fn unexpected_ends(view: &UnitsView<'_>, memory: &Memory) -> Vec<(VmName, Option<String>)> {
    view.placed
        .iter()
        .filter(|vm| vm.desired == Desired::Running && memory.was_running(&vm.spec.name))
        .filter(|vm| !rest::is_stopped_by_hand(view, vm))
        .filter_map(|vm| match unit_of(view.units, &vm.spec.name) {
            None => Some((vm.spec.name.clone(), None)),
            Some(unit) => matches!(unit.state, ObservedState::Stopped | ObservedState::Failed)
                .then(|| (unit.name.clone(), unit.ended.as_ref().map(|end| end.why.clone()))),
        })
        .collect()
}

/// Decides the next steps. Idempotent: the same view gives the same steps, and a step done makes its reason
/// vanish.
pub fn reconcile(view: &UnitsView<'_>, memory: &mut Memory) -> Vec<Action> {
    memory.note_clocks(view.now_ms, view.wall_ms);
    // What shall not run has nothing to remember: its end is no failure.
    let shall_run =
        |name: &VmName| view.placed.iter().any(|vm| vm.spec.name == *name && vm.desired == Desired::Running);
    memory.retain_runs(shall_run);
    for vm in view.placed.iter().filter(|vm| vm.desired == Desired::Running) {
        memory.note_order(&vm.spec.name, vm.order_id());
    }
    for unit in view.units.iter().filter(|unit| unit.state == ObservedState::Running) {
        if shall_run(&unit.name) {
            memory.note_running(&unit.name, view.now_ms);
        }
    }
    if !view.up_to_date && !mutant::lives("acts-on-old-log") {
        let by_hand = view.units.iter().filter(|unit| rest::is_to_stop(view, unit));
        let stops = by_hand.map(|unit| Action::Stop(unit.name.clone()));
        return stops.filter(|action| memory.may_begin(action, view.now_ms)).collect();
    }
    let ours = view.placed.iter().filter_map(|vm| {
        let unit = unit_of(view.units, &vm.spec.name);
        match rest::stop_of(view, vm) {
            Some(stop) => step_to_rest(vm, unit, stop),
            None => step(vm, unit),
        }
    });
    let strangers: Vec<&VmName> = view
        .units
        .iter()
        .filter(|unit| !view.placed.iter().any(|vm| vm.spec.name == unit.name))
        .filter(|unit| matches!(unit.state, ObservedState::Starting | ObservedState::Running))
        .map(|unit| &unit.name)
        .filter(|_| !mutant::lives("strangers-left-running"))
        .collect();
    memory.note_unknown(strangers.iter().copied().filter(|name| view.unknown.contains(name)), view.now_ms);
    let strangers = strangers.into_iter().filter(|name| !memory.is_left_for_now(name, view.now_ms));
    let wanted: Vec<Action> = ours.chain(strangers.map(|name| Action::Stop(name.clone()))).collect();
    let kinds: BTreeMap<&VmName, ActionKind> =
        wanted.iter().map(|action| (action.vm(), action.kind())).collect();
    memory.retain_failed(|name, kind| match kinds.get(name) {
        // A start that pauses leaves the time to say that no unit runs by an earlier spec.
        Some(ActionKind::Start) => kind == ActionKind::ConfirmSpec,
        Some(wanted) => *wanted == kind,
        // A stop that failed may have begun all the same.
        None => unit_of(view.units, name).is_some_and(|unit| unit.state == ObservedState::Stopping),
    });
    let may_begin = |action: &Action| memory.may_begin(action, view.now_ms);
    let (mut begin, pause): (Vec<Action>, Vec<Action>) =
        wanted.into_iter().partition(|action| may_begin(action) && !waits_for_lease(view, action));
    let holds = |name: &VmName| view.placed.iter().any(|vm| vm.spec.name == *name && vm.held.is_some());
    let confirm = |action: Action| match action {
        Action::Start(name) if holds(&name) => Some(Action::ConfirmSpec(name)),
        _ => None,
    };
    let confirmed = pause.into_iter().filter_map(confirm);
    begin.extend(confirmed.filter(may_begin));
    begin
}

/// Whether it is the start of a VM that needs a lease which this node has not.
fn waits_for_lease(view: &UnitsView<'_>, action: &Action) -> bool {
    let Action::Start(name) = action else { return false };
    let vm = view.placed.iter().find(|vm| vm.spec.name == *name);
    vm.is_some_and(|vm| lacks_lease(view, vm))
}

/// Whether a start has to wait for a lease: also where the VM was one that may be failed over and somebody
/// changed that. On another machine of this name a unit may still run under the lease of then, and this one
/// gets none before that is over.
fn lacks_lease(view: &UnitsView<'_>, vm: &VmRecord) -> bool {
    let permitted = permits(view.lease, view.now_ms, &vm.spec.name, vm.placement.generation);
    let is_leased = match mutant::lives("kept-at-once") {
        true => vm.spec.fails_over(),
        false => vm.may_run_under_a_lease(),
    };
    is_leased && !permitted
}

/// Whether the unit runs by another order than the one that is wanted: that of another placement of the name,
/// or of the spec as it was before. A unit that shows no order is taken for the wanted one by its name, while
/// the spec is the one that the VM was made with: releases that show none know no other.
fn obeys_another_order(vm: &VmRecord, unit: &ObservedUnit) -> bool {
    let wanted = vm.order_id();
    match unit.order {
        Some(order) if order.generation != wanted.generation => !mutant::lives("other-generation-kept"),
        Some(order) => order != wanted && !mutant::lives("other-revision-kept"),
        None => wanted.revision != 0,
    }
}

/// The step of a VM that stays stopped, for this reason.
fn step_to_rest(vm: &VmRecord, unit: Option<&ObservedUnit>, stop: VmStop) -> Option<Action> {
    let name = vm.spec.name.clone();
    match unit.map_or(ObservedState::Stopped, |unit| unit.state) {
        ObservedState::Starting | ObservedState::Running => Some(Action::Stop(name)),
        ObservedState::Stopped | ObservedState::Failed => Some(Action::ConfirmStop(name, stop)),
        _ => None,
    }
}

fn step(vm: &VmRecord, unit: Option<&ObservedUnit>) -> Option<Action> {
    let name = vm.spec.name.clone();
    let state = unit.map_or(ObservedState::Stopped, |unit| unit.state);
    let is_other = unit.is_some_and(|unit| obeys_another_order(vm, unit));
    match (vm.desired, state) {
        (Desired::Running, ObservedState::Starting | ObservedState::Running) if is_other => {
            Some(Action::Stop(name))
        }
        (_, ObservedState::Stopping) => None,
        (Desired::Running, ObservedState::Stopped | ObservedState::Failed) => Some(Action::Start(name)),
        (Desired::Running, ObservedState::Starting | ObservedState::Running) if vm.held.is_some() => {
            Some(Action::ConfirmSpec(name))
        }
        (Desired::Running, _) => None,
        (Desired::Stopped | Desired::Absent, ObservedState::Starting | ObservedState::Running) => {
            Some(Action::Stop(name))
        }
        (Desired::Stopped | Desired::Absent, ObservedState::Failed) => Some(Action::ResetFailed(name)),
        (Desired::Absent, ObservedState::Stopped) => Some(Action::ConfirmGone(name)),
        (Desired::Stopped, ObservedState::Stopped) if vm.held.is_some() => Some(Action::ConfirmSpec(name)),
        (Desired::Stopped | Desired::Absent, _) => None,
    }
}

/// What this node tells the leader of its VMs.
pub fn report(view: &UnitsView<'_>, memory: &Memory) -> Vec<VmReport> {
    view.placed.iter().map(|vm| report_vm(vm, unit_of(view.units, &vm.spec.name), memory, view)).collect()
}

fn report_vm(vm: &VmRecord, unit: Option<&ObservedUnit>, memory: &Memory, view: &UnitsView<'_>) -> VmReport {
    let name = vm.spec.name.clone();
    let observed = unit.map_or(ObservedState::Stopped, |unit| unit.state);
    let main_pid = unit.and_then(|unit| unit.main_pid);
    let failing = memory.failing(&name, view.now_ms);
    let idle = matches!(observed, ObservedState::Stopped | ObservedState::Failed);
    let last_end = memory.last_end(&name);
    if let Some(stop) = rest::stop_of(view, vm) {
        let state = if idle { ObservedState::Stopped } else { ObservedState::Stopping };
        let why = rest::words(vm, unit, stop);
        let reason = Some(failing.map_or_else(|| why.clone(), |failing| format!("{why}; {failing}")));
        return VmReport { name, state, main_pid, revision: vm.revision, reason, last_end };
    }
    let (state, reason) = match vm.desired {
        Desired::Running if idle => match memory.failed(&name, view.now_ms) {
            Some(failed) => (ObservedState::Failed, Some(failed)),
            None if !view.up_to_date => {
                let why = "it waits until its node has read the log since it started, which takes a quorum";
                (ObservedState::Pending, Some(why.to_owned()))
            }
            None if lacks_lease(view, vm) => {
                let why = "it waits for a lease of its node";
                (ObservedState::Pending, Some(why.to_owned()))
            }
            None => (ObservedState::Pending, None),
        },
        Desired::Running if unit.is_some_and(|unit| obeys_another_order(vm, unit)) => {
            let earlier =
                unit.and_then(|unit| unit.order).filter(|order| order.generation != vm.placement.generation);
            let why = match earlier {
                Some(_) => "it runs by the order of an earlier placement: stopped, then started as wanted",
                None => "it runs by its spec as it was before: stopped, then started as changed",
            };
            let why = failing.map_or_else(|| why.to_owned(), |failing| format!("{why}; {failing}"));
            (ObservedState::Stopping, Some(why))
        }
        Desired::Running if observed == ObservedState::Running => {
            match unit.and_then(|unit| unit.status.as_ref()) {
                Some(UnitStatus::Paused(why)) => (ObservedState::Paused, Some(why.clone())),
                Some(status @ UnitStatus::NotAnswering(_)) => (observed, Some(status.to_string())),
                // The unit of one that needs a lease counts as started a moment before its guest runs.
                Some(UnitStatus::Starting) => (ObservedState::Starting, None),
                Some(UnitStatus::Waiting(why)) => (ObservedState::Starting, Some(format!("it waits {why}"))),
                _ => (observed, memory.crash_looping(&name)),
            }
        }
        Desired::Running => (observed, memory.why_not_running(&name)),
        Desired::Stopped if idle => (ObservedState::Stopped, failing),
        Desired::Stopped => (observed, failing),
        Desired::Absent => (ObservedState::Deleting, failing),
    };
    VmReport { name, state, main_pid, revision: vm.revision, reason, last_end }
}
