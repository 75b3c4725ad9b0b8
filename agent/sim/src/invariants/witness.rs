//! A witness is never given a VM.

use blixard_core::ClusterState;
use blixard_model::Command;

use super::canon::AppliedCommand;

pub(crate) fn check(state: &ClusterState, applied: Option<&AppliedCommand>) -> Result<(), String> {
    let Some(Command::CreateVm { spec, .. }) = applied.map(|applied| &applied.request.command) else {
        return Ok(());
    };
    // One that was placed before its node became a witness stays.
    let changed = applied.is_some_and(|applied| applied.changed);
    let Some(vm) = state.vms.get(&spec.name).filter(|_| changed) else { return Ok(()) };
    match state.member_by_name(&vm.placement.node).filter(|member| member.node.offer.witness) {
        Some(witness) => Err(format!("VM {} was placed on {}, a witness", spec.name, witness.node.name)),
        None => Ok(()),
    }
}
