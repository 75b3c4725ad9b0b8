//! What becomes of the VMs of a node that is lost.

use blixard_model::{Desired, NodeName, Outcome, Placement, VmName, mutant};

use super::{ClusterState, LeaseHolder, VmRecord};
use crate::planner::placement;

impl VmRecord {
    /// Whether another node may take it over now, if it has the disks. One of which a unit may still run by
    /// an earlier spec may not: that spec may have asked for no lease.
    pub(super) fn may_be_taken_over(&self) -> bool {
        let is_leased = self.held.as_ref().is_none_or(|held| held.leased);
        self.spec.fails_over() && (is_leased || mutant::lives("taken-over-unconfirmed"))
    }
}

impl ClusterState {
    /// The leader has waited until a node certainly runs no VM that may be failed over. Those go to the
    /// eligible nodes as far as they have room; those that were to be deleted are gone. It has waited for
    /// what the log said up to the entry `seen`.
    pub(super) fn node_lost(
        &mut self,
        index: u64,
        node: &NodeName,
        (eligible, seen): (&[NodeName], Option<u64>),
    ) -> Outcome {
        let is_news =
            |since: u64| seen.is_some_and(|seen| since > seen) && !mutant::lives("late-hold-not-seen");
        let has_taken = |holder: &LeaseHolder| holder.hold.is_some_and(|hold| is_news(hold.since));
        if self.leases.holder(node).is_none_or(has_taken) || self.leases.disarmed.is_some() {
            return Outcome::unchanged(Some(node.clone()));
        }
        let eligible: Vec<NodeName> = eligible.iter().filter(|other| *other != node).cloned().collect();
        let mut changed = false;
        for name in self.taken_from(node) {
            changed |= self.take_over(index, &name, &eligible);
        }
        if let Some(holder) = self.leases.holders.get_mut(node) {
            changed |= !holder.is_lost;
            holder.is_lost = true;
            holder.hold = None;
        }
        let node = Some(node.clone());
        if changed { Outcome::done(node) } else { Outcome::unchanged(node) }
    }

    /// The VMs of a node that other nodes may take over, by name.
    pub fn taken_from(&self, node: &NodeName) -> Vec<VmName> {
        let movable = self.placed_on(node).filter(|vm| self.may_move(vm));
        movable.map(|vm| vm.spec.name.clone()).collect()
    }

    /// Whether any VM of a lost node could go to one of these now.
    pub fn would_move(&self, node: &NodeName, eligible: &[NodeName]) -> bool {
        let goes = |vm: &VmRecord| {
            vm.desired == Desired::Absent || placement::choose(self, &vm.spec, eligible).is_ok()
        };
        self.placed_on(node).any(|vm| self.may_move(vm) && goes(vm))
    }

    pub(super) fn may_move(&self, vm: &VmRecord) -> bool {
        vm.may_be_taken_over() && self.disks_can_move(vm)
    }

    fn take_over(&mut self, index: u64, name: &VmName, eligible: &[NodeName]) -> bool {
        let Some(vm) = self.vms.get(name) else { return false };
        if vm.desired == Desired::Absent {
            return self.vms.remove(name).is_some();
        }
        let Ok(node) = placement::choose(self, &vm.spec, eligible) else { return false };
        let lineage = self.lineage();
        match self.vms.get_mut(name) {
            Some(vm) => {
                vm.lineage = lineage;
                let generation = match mutant::lives("taken-over-by-the-same-order") {
                    true => vm.placement.generation,
                    false => index,
                };
                vm.placement = Placement { node, generation };
                // No unit runs by any of its specs any more.
                vm.held = None;
                true
            }
            None => false,
        }
    }
}
