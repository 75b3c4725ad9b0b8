//! Which nodes run VMs that may be failed over only under a lease, as the log knows it.
//!
//! A node is known here by its name, because VMs are placed by name: a machine that takes the name of another
//! one must not take up its VMs while that one may still run them.

use std::collections::BTreeMap;

use blixard_model::vm::is_zero;
use blixard_model::{BootId, NodeName, RaftId};
use serde::{Deserialize, Serialize};

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
    /// The log index at which it came to be this boot: whoever was granted a lease later has waited for the
    /// one before.
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
