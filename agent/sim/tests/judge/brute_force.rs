//! Every order of a small history, tried with the true VM: a third opinion that shares no search with the
//! judge.

use std::collections::BTreeSet;

use blixard_sim::judge::{ClientAction, ClientAnswer, History, Operation};

use super::reference::Vm;

pub(crate) fn is_linearizable(history: &History) -> bool {
    let all: Vec<&Operation> = history.operations.iter().collect();
    goes_on(&all, &BTreeSet::from([Vm::Absent]))
}

/// Whether what remains can follow where one of these is there.
fn goes_on(remaining: &[&Operation], vms: &BTreeSet<Vm>) -> bool {
    if remaining.iter().all(|operation| operation.ended.is_none()) {
        return true;
    }
    (0..remaining.len()).any(|next| {
        let operation = remaining[next];
        let comes_too_early = |other: &&&Operation| other.ended.is_some_and(|(end, _)| end < operation.began);
        if remaining.iter().any(|other| comes_too_early(&other)) {
            return false;
        }
        let after = after(vms, operation);
        let mut others = remaining.to_vec();
        others.remove(next);
        !after.is_empty() && goes_on(&others, &after)
    })
}

/// What may be there afterwards, if it was answered as it was; a deleted VM may have gone before.
fn after(vms: &BTreeSet<Vm>, operation: &Operation) -> BTreeSet<Vm> {
    let gone = vms.contains(&Vm::Deleting).then_some(Vm::Absent);
    let before = vms.iter().copied().chain(gone);
    let answered = before.filter_map(|vm| match operation.ended {
        Some((_, ClientAnswer::NoRoom)) if matches!(operation.action, ClientAction::Create(_)) => Some(vm),
        // What the spec was before, and what there is room for, is not kept here.
        Some((_, ClientAnswer::Done | ClientAnswer::Unchanged | ClientAnswer::NoRoom))
            if operation.action == ClientAction::Change =>
        {
            matches!(vm, Vm::Running | Vm::Stopped).then_some(vm)
        }
        Some((_, ClientAnswer::NoRoom)) if operation.action == ClientAction::Delete => {
            matches!(vm, Vm::Running | Vm::Stopped).then_some(vm)
        }
        Some((_, ClientAnswer::NoRoom)) => None,
        Some((_, told)) => {
            let (answer, after) = vm.act(operation.action);
            (answer == told).then_some(after)
        }
        None => Some(vm.act(operation.action).1),
    });
    answered.collect()
}
