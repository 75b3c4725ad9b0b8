//! The units that live on one machine have room beside each other, and none writes a disk of another one, by
//! the hypervisors' own truth.

use blixard_model::{Capacity, VmName, VmSpec};

use crate::world::parts::hypervisor::Unit;
use crate::world::parts::machine::SimMachine;

/// Checks a unit that starts beside those that live on its machine, which may take this together. A unit of a
/// VM that was deleted when its node was lost is left for a moment before it is stopped: its guest runs no
/// more, and what else there is of it takes no room that counts.
pub(crate) fn check(
    machine: &SimMachine,
    starts: &VmName,
    (offered, is_known): (Capacity, impl Fn(&VmName) -> bool),
) -> Result<(), String> {
    let living = || {
        let lease = machine.lease.file.as_ref();
        let units = machine.hypervisor.units().iter();
        let counts = |name: &VmName, unit: &Unit| is_known(name) || unit.guest_runs();
        let units = units.filter(move |(name, unit)| unit.takes_room(name, lease) && counts(name, unit));
        units.filter_map(|(name, unit)| unit.spec.as_ref().map(|spec| (name, spec)))
    };
    let Some((_, spec)) = living().find(|(name, _)| *name == starts) else { return Ok(()) };
    if let Some((other, path)) = living()
        .filter(|(name, _)| *name != starts)
        .find_map(|(name, other)| Some((name, written_by_both(spec, other)?)))
    {
        return Err(format!("{} starts {starts} with {path}, with which {other} lives there", machine.name));
    }
    let cpus: u32 = living().map(|(_, spec)| spec.cpus).sum();
    let memory_mib: u64 = living().map(|(_, spec)| spec.reserved_memory_mib()).sum();
    if cpus > offered.cpus || memory_mib > offered.memory_mib {
        let name = &machine.name;
        let lives: Vec<String> = living().map(|(name, _)| name.to_string()).collect();
        let lives = lives.join(", ");
        return Err(format!(
            "{name} starts {starts}: {cpus} cpus and {memory_mib} MiB of {offered:?} ({lives})"
        ));
    }
    Ok(())
}

/// A disk that both have and one may write.
fn written_by_both<'a>(one: &'a VmSpec, other: &VmSpec) -> Option<&'a str> {
    let of_other = |path: &str| other.disks.iter().find(|disk| disk.path == path);
    let clash = |disk: &&blixard_model::Disk| {
        of_other(&disk.path).is_some_and(|other| !(disk.read_only && other.read_only))
    };
    one.disks.iter().find(clash).map(|disk| disk.path.as_str())
}
