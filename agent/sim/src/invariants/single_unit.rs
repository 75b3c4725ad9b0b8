//! A VM runs at most once, by the hypervisors' own truth: those of machines whose agent is dead included.

use blixard_model::VmName;

use crate::world::parts::machine::SimMachine;

/// Checks a guest that begins to run, by the machine and its name.
pub(crate) fn check(machines: &[SimMachine], unit: &(usize, VmName), now_us: u64) -> Result<(), String> {
    let (starts_on, name) = unit;
    for (id, machine) in machines.iter().enumerate().filter(|(id, _)| id != starts_on) {
        if machine.guest_runs(name, now_us) {
            let begins = match *starts_on {
                usize::MAX => "was given to another node".to_owned(),
                other => format!("begins to run on n{}", other + 1),
            };
            return Err(format!("VM {name} {begins}, and runs on n{}", id + 1));
        }
    }
    Ok(())
}
