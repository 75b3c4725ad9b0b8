//! A VM runs at most once, by the hypervisors' own truth: those of machines whose agent is dead included.

use blixard_model::VmName;

use crate::world::parts::machine::SimMachine;

pub(crate) fn check(machines: &[SimMachine], unit: &(usize, VmName, u64)) -> Result<(), String> {
    let (starts_on, name, _) = unit;
    for (id, machine) in machines.iter().enumerate().filter(|(id, _)| id != starts_on) {
        if machine.hypervisor.units().get(name).is_some_and(|unit| unit.lives()) {
            return Err(format!("VM {name} starts on n{} and lives on n{}", starts_on + 1, id + 1));
        }
    }
    Ok(())
}
