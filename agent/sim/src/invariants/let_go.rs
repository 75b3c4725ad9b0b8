//! Who is whole is not let go: a member is removed only once its machine has another store than the member's.

use blixard_model::Member;

use crate::world::parts::machine::SimMachine;

pub(crate) fn check(machines: &[SimMachine], removed: &Member) -> Result<(), String> {
    let machine = machines.iter().find(|machine| machine.endpoint_id == removed.node.endpoint_id);
    match machine.filter(|machine| machine.store_id == Some(removed.node.store_id)) {
        Some(machine) => Err(format!("{} has the store of raft id {}", machine.name, removed.raft_id)),
        None => Ok(()),
    }
}
