//! Reservations stay within what each node offers, at every applied index.

use blixard_core::ClusterState;

pub(crate) fn check(state: &ClusterState) -> Result<(), String> {
    for member in state.nodes.members() {
        let (reserved, _) = state.reserved(member.node.name);
        let offered = member.node.offer.capacity.unwrap_or_default();
        if reserved.cpus > offered.cpus || reserved.memory_mib > offered.memory_mib {
            return Err(format!("{} offers {offered:?}, reserved are {reserved:?}", member.node.name));
        }
    }
    Ok(())
}
