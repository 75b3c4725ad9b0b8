//! What a node's report of its VMs is worth.

use blixard_model::Desired;
use blixard_model::report::ObservedState;
use blixard_model::wire::AgedReport;

use crate::state::VmRecord;

/// A report older than this, in milliseconds, says nothing about now.
pub const REPORT_FRESH_MS: u64 = 5_000;

/// Whether a report is young enough to be believed, and systemd's own word.
pub fn is_fresh(aged: &AgedReport) -> bool {
    aged.age_ms <= REPORT_FRESH_MS && aged.report.problem.is_none()
}

/// What a VM does, as far as its node's last report tells, and why if there is something to say. A report
/// that is too old, or without systemd's word, tells nothing about now: then the VM may run or not.
pub fn observed(vm: &VmRecord, aged: Option<&AgedReport>) -> (ObservedState, Option<String>) {
    let node = &vm.placement.node;
    let seen = aged.and_then(|aged| aged.report.vms.iter().find(|seen| seen.name == vm.spec.name));
    let fresh = aged.is_some_and(is_fresh);
    let silence = match aged {
        _ if fresh => None,
        Some(aged) => Some(match &aged.report.problem {
            Some(problem) => format!("{node}: {problem}"),
            None => format!("{node} has not reported for {} s", aged.age_ms / 1_000),
        }),
        None => Some(format!("{node} has not reported yet")),
    };
    let state = match (vm.desired, seen) {
        (Desired::Absent, _) => ObservedState::Deleting,
        _ if !fresh => ObservedState::Unknown,
        (Desired::Running, Some(seen)) if seen.revision != vm.revision => {
            let why = format!("{node} has not taken up yet that its spec was changed");
            return (ObservedState::Pending, Some(why));
        }
        (_, Some(seen)) => seen.state,
        (_, None) => ObservedState::Pending,
    };
    // Whoever does not know why it is not wanted to run learns it here.
    let stopped = vm.stopped.as_ref().filter(|_| fresh && vm.desired == Desired::Stopped);
    let told = seen.and_then(|seen| seen.reason.clone());
    let told = told.or_else(|| stopped.map(|stopped| stopped.words(&vm.spec.name)));
    (state, silence.or(told))
}
