//! No node applies what its release does not support.

use super::seen::SeenNode;
use crate::world::parts::machine::SimMachine;

pub(crate) fn check(seen: &SeenNode<'_>, machines: &[SimMachine]) -> Result<(), String> {
    let (machine, version) = (&machines[seen.machine], seen.state.version);
    if version <= machine.supports {
        return Ok(());
    }
    let (name, supports) = (&machine.name, machine.supports);
    Err(format!("{name} applied version {version} of its cluster, and supports {supports}"))
}
