//! Which nodes run VMs that may be failed over only under a lease, as the log knows it.
//!
//! A node is known here by its name, because VMs are placed by name: a machine that takes the name of another
//! one must not take up its VMs while that one may still run them.

use std::collections::BTreeMap;

use blixard_model::vm::is_zero;
use blixard_model::{BootId, NodeName, Outcome, RaftId, Refusal};
use serde::{Deserialize, Serialize};

use super::ClusterState;

/// Whether leases are enforced, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LeaseTable {
    /// There are at least two nodes that VMs can be placed on. With one there is nowhere else to go: then no
    /// VM is stopped because its node has no lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_on: bool,
    /// How often enforcement has begun. What a node said in an earlier time of it does not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// What each node said last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holders: BTreeMap<NodeName, LeaseHolder>,
}

/// A node that obeys leases.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseHolder {
    /// The store that said so.
    pub raft_id: RaftId,
    /// The boot of its machine. Another one gets no lease before this one's is over.
    pub boot_id: BootId,
    /// The log index at which it came to be this boot: whoever was granted a lease later has waited for the one
    /// before.
    pub since: u64,
    /// The time of enforcement that it speaks of.
    pub epoch: u64,
    /// No other boot has ever obeyed leases under this name: there is nobody to wait for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_first: bool,
    /// It was lost since, and has not said anew that it obeys leases.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_lost: bool,
}

impl LeaseTable {
    /// Whether it says nothing at all: a snapshot leaves it out then.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The node of this name, if it obeys leases in the present time of enforcement.
    pub fn holder(&self, node: &NodeName) -> Option<&LeaseHolder> {
        self.holders.get(node).filter(|holder| self.is_on && holder.epoch == self.epoch)
    }

    /// Whether this store, in this boot, may be granted a lease as far as the log knows.
    pub fn may_hold(&self, node: &NodeName, raft_id: RaftId, boot_id: BootId) -> Option<&LeaseHolder> {
        let is_it =
            |holder: &&LeaseHolder| !holder.is_lost && holder.raft_id == raft_id && holder.boot_id == boot_id;
        self.holder(node).filter(is_it)
    }
}

impl ClusterState {
    /// Enforcement follows the nodes that there are; called after everything that may change them. It ends only
    /// when somebody wanted a node to run no VMs: one that lost its store is missing for a moment, and a node
    /// that is lost at that time could never say that it obeys leases in the next epoch.
    pub(crate) fn refresh_leases(&mut self, may_end: bool) {
        let is_candidate = |member: &super::MemberRef<'_>| {
            !member.node.offer.witness && member.node.offer.capacity.is_some()
        };
        let candidates = self.nodes.members().filter(is_candidate).count();
        let is_on = self.version >= blixard_model::ClusterVersion::LEASES && candidates > 1;
        if is_on && !self.leases.is_on {
            self.leases.epoch += 1;
            self.leases.is_on = true;
        } else if may_end {
            self.leases.is_on = is_on;
        }
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
        let is_first = before.is_none_or(|before| before.is_first && before.boot_id == boot_id);
        let same = before.filter(|before| before.boot_id == boot_id);
        let since = same.map_or(index, |before| before.since);
        let holder = LeaseHolder { raft_id, boot_id, since, epoch, is_first, is_lost: false };
        if before == Some(&holder) {
            return Ok(Outcome::unchanged(Some(name)));
        }
        self.forget_holders();
        self.leases.holders.insert(name.clone(), holder);
        Ok(Outcome::done(Some(name)))
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
