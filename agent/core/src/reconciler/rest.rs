//! Which VMs stay stopped on this node although the log wants them to run: those that somebody stopped here
//! by hand, and those that ended and whose restart policy leaves it at that.

use blixard_model::report::ObservedState;
use blixard_model::{Desired, StopCause, StopNote, VmStop, mutant};

use super::view::{UnitsView, unit_of};
use crate::ports::ObservedUnit;
use crate::state::VmRecord;

/// Why a VM that the log wants to run stays stopped.
pub(super) fn stop_of(view: &UnitsView<'_>, vm: &VmRecord) -> Option<VmStop> {
    if vm.desired != Desired::Running {
        return None;
    }
    by_hand(view, vm).or_else(|| ended(view, vm))
}

/// Whether somebody stopped this placement by hand. An end of it is what was asked for.
pub(super) fn is_stopped_by_hand(view: &UnitsView<'_>, vm: &VmRecord) -> bool {
    by_hand(view, vm).is_some()
}

fn by_hand(view: &UnitsView<'_>, vm: &VmRecord) -> Option<VmStop> {
    let (name, generation) = (&vm.spec.name, vm.placement.generation);
    let is_of = |note: &&StopNote| note.name == *name && (note.generation == generation || any_placement());
    let note = view.stopped.iter().find(is_of)?;
    Some(VmStop { cause: StopCause::ByHand, at_unix_ms: note.at_unix_ms })
}

fn any_placement() -> bool {
    mutant::lives("stopped-by-hand-for-ever")
}

/// The unit still shows how it ended. One that ran by another order says nothing of this one.
fn ended(view: &UnitsView<'_>, vm: &VmRecord) -> Option<VmStop> {
    let unit = unit_of(view.units, &vm.spec.name).filter(|unit| unit.state == ObservedState::Failed)?;
    let end = unit.ended.as_ref().filter(|_| unit.order == Some(vm.order_id()))?;
    let cause = end.cause.filter(|cause| !vm.spec.restart.restarts_after(*cause))?;
    Some(VmStop { cause: StopCause::Ended(cause), at_unix_ms: end.at_unix_ms.unwrap_or(view.wall_ms) })
}

/// Whether this unit runs although its placement was stopped by hand. By its own word of which placement it
/// is; the log here may be old.
pub(super) fn is_to_stop(view: &UnitsView<'_>, unit: &ObservedUnit) -> bool {
    let placed = view.placed.iter().find(|vm| vm.spec.name == unit.name);
    let placed = placed.map_or(0, |vm| vm.placement.generation);
    let generation = unit.order.map_or(placed, |order| order.generation);
    let lives = matches!(unit.state, ObservedState::Starting | ObservedState::Running);
    lives && view.stopped.iter().any(|note| note.is_of(&unit.name, generation))
}

/// The notes that are of no use any more: the log knows of the stop or of another placement. None while the
/// log here may be old.
pub fn outdated_notes(view: &UnitsView<'_>) -> Vec<StopNote> {
    if !view.up_to_date {
        return Vec::new();
    }
    let is_wanted = |note: &StopNote| {
        let of = |vm: &&&VmRecord| note.is_of(&vm.spec.name, vm.placement.generation);
        view.placed.iter().find(of).is_some_and(|vm| vm.desired == Desired::Running)
    };
    view.stopped.iter().filter(|note| !is_wanted(note)).cloned().collect()
}

/// Why a VM that the log wants to run stays stopped, in words.
pub(super) fn words(vm: &VmRecord, unit: Option<&ObservedUnit>, stop: VmStop) -> String {
    match stop.cause {
        StopCause::ByHand => format!("stopped by hand on {}", vm.placement.node),
        StopCause::Ended(cause) => {
            let end = unit.and_then(|unit| unit.ended.as_ref());
            let why = end.map_or_else(|| cause.to_string(), |end| end.why.clone());
            format!("{why}; its restart policy is {}", vm.spec.restart)
        }
    }
}
