//! Reservations stay within what each node offers, at every applied index. A node may come to offer less than
//! is reserved there: what runs goes on, and nothing more is placed.

use std::collections::BTreeMap;

use blixard_core::ClusterState;
use blixard_model::NodeName;

/// How much more than it offers is reserved on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Excess {
    cpus: u32,
    memory_mib: u64,
}

/// What was reserved beyond the offers, after the last entry.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    excess: BTreeMap<NodeName, Excess>,
}

impl Reservations {
    /// The state after an entry, which changed what the nodes offer or did not.
    pub(crate) fn check(&mut self, state: &ClusterState, offers_changed: bool) -> Result<(), String> {
        let mut now = BTreeMap::new();
        for member in state.nodes.members() {
            let name = member.node.name;
            let (reserved, _) = state.reserved(name);
            let offered = member.node.offer.capacity.unwrap_or_default();
            let excess = Excess {
                cpus: reserved.cpus.saturating_sub(offered.cpus),
                memory_mib: reserved.memory_mib.saturating_sub(offered.memory_mib),
            };
            let before = self.excess.get(name).copied().unwrap_or_default();
            let grew = excess.cpus > before.cpus || excess.memory_mib > before.memory_mib;
            if grew && !offers_changed {
                return Err(format!("{name} offers {offered:?}, reserved are {reserved:?}"));
            }
            if excess != Excess::default() {
                now.insert(name.clone(), excess);
            }
        }
        self.excess = now;
        Ok(())
    }
}
