//! What changes who obeys leases: nodes that come, go and change what they offer, and the word of a node.

use blixard_model::{BootId, ClusterVersion, NodeName, Outcome, RaftId, Refusal};

use super::lease_table::LeaseHolder;
use super::{ClusterState, MemberRef, VmRecord};

impl ClusterState {
    /// Enforcement follows the nodes that there are; called after everything that may change them. It ends
    /// only when somebody wanted a node to run no VMs: one that lost its store is missing for a moment, and a
    /// node that is lost at that time could never say that it obeys leases in the next epoch.
    pub(crate) fn refresh_leases(&mut self, may_end: bool) {
        let is_candidate =
            |member: &MemberRef<'_>| !member.node.offer.witness && member.node.offer.capacity.is_some();
        let candidates = self.nodes.members().filter(is_candidate).count();
        let is_on = self.version >= ClusterVersion::LEASES && candidates > 1;
        if is_on && !self.leases.is_on {
            self.leases.epoch += 1;
            self.leases.is_on = true;
        }
        if is_on {
            self.leases.ends = false;
        } else if may_end {
            self.leases.ends = self.version >= ClusterVersion::HOLDS && self.is_waited_for();
            self.leases.is_on = self.leases.is_on && self.leases.ends;
        }
    }

    /// Enforcement was to end, and what it still went on for may be over.
    pub(super) fn refresh_leases_that_end(&mut self) {
        if self.leases.ends {
            self.refresh_leases(true);
        }
    }

    /// VMs of a node that was removed go elsewhere once its leases are over and another one has room, or are
    /// forgotten.
    fn is_waited_for(&self) -> bool {
        let waits = |vm: &VmRecord| {
            let holder = self.leases.holder(&vm.placement.node);
            let has_found_no_room = holder.is_some_and(|holder| holder.is_lost);
            let may_go = if has_found_no_room { self.may_move(vm) } else { vm.may_be_taken_over() };
            let is_away = |holder: &LeaseHolder| self.nodes.member(holder.raft_id).is_none();
            may_go && holder.is_some_and(is_away)
        };
        self.vms.values().any(waits)
    }

    /// A node says that it obeys leases.
    pub(super) fn enforce_lease(
        &mut self,
        index: u64,
        raft_id: RaftId,
        (boot_id, epoch): (BootId, u64),
    ) -> Result<Outcome, Refusal> {
        let name = match self.nodes.member(raft_id) {
            Some(member) => member.node.name.clone(),
            None => return Err(Refusal::Membership { why: format!("raft id {raft_id} is no member") }),
        };
        if !self.leases.is_on || epoch != self.leases.epoch {
            return Ok(Outcome::unchanged(Some(name)));
        }
        let before = self.leases.holders.get(&name);
        // The same store has booted since it obeyed leases: nothing of that boot runs.
        let is_reboot = before.is_some_and(|before| self.has_rebooted(before, (raft_id, boot_id)));
        let is_same = |before: &LeaseHolder| before.is_first && before.boot_id == boot_id;
        let is_first = is_reboot || before.is_none_or(is_same);
        let same = before.filter(|before| before.boot_id == boot_id);
        let since = same.map_or(index, |before| before.since);
        let hold = self.leases.hold_of(before.filter(|_| !is_reboot), (index, boot_id));
        let holder = LeaseHolder { raft_id, boot_id, since, epoch, is_first, is_lost: false, hold };
        if before == Some(&holder) {
            return Ok(Outcome::unchanged(Some(name)));
        }
        self.forget_holders();
        self.leases.holders.insert(name.clone(), holder);
        Ok(Outcome::done(Some(name)))
    }

    /// Whether a store obeyed leases at an earlier time of enforcement, in another boot of its machine.
    /// Without enforcement nothing tells a machine from its copy.
    fn has_rebooted(&self, before: &LeaseHolder, (raft_id, boot_id): (RaftId, BootId)) -> bool {
        let is_other = before.boot_id != boot_id && before.epoch != self.leases.epoch;
        self.version >= ClusterVersion::HOLDS && before.raft_id == raft_id && is_other
    }

    /// Keeps the table bounded: of a name that no node has and no VM is placed by, nothing is to be waited
    /// for.
    fn forget_holders(&mut self) {
        let (nodes, vms) = (&self.nodes, &self.vms);
        let is_known = |name: &NodeName| {
            nodes.member_by_name(name).is_some()
                || nodes.departed().any(|(_, node)| node.name == *name)
                || vms.values().any(|vm| vm.placement.node == *name)
        };
        self.leases.holders.retain(|name, _| is_known(name));
    }
}
