//! A deleted VM never returns: no unit starts for a placement that the cluster has agreed to be gone, and its
//! name is free for another one only when no unit of it lives anywhere.

use std::collections::{BTreeMap, BTreeSet};

use blixard_core::ClusterState;
use blixard_model::{Command, VmName};

use super::canon::AppliedCommand;
use crate::world::parts::machine::SimMachine;

#[derive(Debug, Default)]
pub(crate) struct Deleted {
    placed: BTreeMap<VmName, u64>,
    gone: BTreeSet<(VmName, u64)>,
}

impl Deleted {
    /// A command was applied: what it did to the VM it names.
    pub(crate) fn applied(
        &mut self,
        (state, machines, now_us): (&ClusterState, &[SimMachine], u64),
        applied: Option<&AppliedCommand>,
    ) -> Result<(), String> {
        let name = match applied.map(|applied| &applied.request.command) {
            Some(Command::CreateVm { spec, .. }) => &spec.name,
            Some(Command::ConfirmGone { name, .. }) => name,
            _ => return Ok(()),
        };
        let now = state.vms.get(name).map(|vm| vm.placement.generation);
        let before = self.placed.get(name).copied();
        if let Some(generation) = before.filter(|_| now != before) {
            self.gone.insert((name.clone(), generation));
            self.placed.remove(name);
        }
        let Some(generation) = now else { return nowhere(machines, name, now_us) };
        self.placed.insert(name.clone(), generation);
        if self.gone.contains(&(name.clone(), generation)) {
            return Err(format!("the placement of {name} at generation {generation} came back"));
        }
        Ok(())
    }

    pub(crate) fn is_gone(&self, name: &VmName, generation: u64) -> bool {
        self.gone.contains(&(name.clone(), generation))
    }

    pub(crate) fn unit_starts(
        &self,
        (machine, name, generation): &(usize, VmName, u64),
    ) -> Result<(), String> {
        if self.gone.contains(&(name.clone(), *generation)) {
            return Err(format!("n{} starts {name} of generation {generation}, deleted before", machine + 1));
        }
        Ok(())
    }
}

/// By the hypervisors' own truth.
fn nowhere(machines: &[SimMachine], name: &VmName, now_us: u64) -> Result<(), String> {
    for (id, machine) in machines.iter().enumerate() {
        if machine.guest_runs(name, now_us) {
            return Err(format!("the name {name} is free, and a unit of it lives on n{}", id + 1));
        }
    }
    Ok(())
}
