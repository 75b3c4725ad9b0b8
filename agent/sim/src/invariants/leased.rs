//! No guest that needs a lease runs on when the time is over that leases allow for its end, by the
//! hypervisors' own truth: its supervisor ends it, or the service manager does.

use blixard_model::{LeaseTerms, VmName};

use crate::world::parts::machine::SimMachine;

/// Checks a guest, which may run or not.
pub(crate) fn check(machine: &SimMachine, vm: &VmName, terms: LeaseTerms, now_us: u64) -> Result<(), String> {
    let Some(unit) = machine.hypervisor.units().get(vm) else { return Ok(()) };
    let Some(process) = &unit.process else { return Ok(()) };
    // By what it is, and not by what its order asks for.
    if unit.spec.as_ref().is_some_and(|spec| spec.fails_over()) && process.need.is_none() {
        return Err(format!("{vm} may be failed over, and its order on {} asks for no lease", machine.name));
    }
    if process.need.is_none() || !unit.guest_runs() || machine.is_asleep_or_just_woken(now_us) {
        return Ok(());
    }
    let granted_ms = machine.lease.granted_ms(vm, unit.order.generation);
    let (until_ms, now_ms) = (granted_ms.saturating_add(terms.stop_ms), machine.boot_ms(now_us));
    if now_ms <= until_ms {
        return Ok(());
    }
    let name = &machine.name;
    Err(format!("{vm} runs on {name} at {now_ms} ms, and could run until {granted_ms} ms by its lease"))
}
