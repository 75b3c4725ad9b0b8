//! Which nodes run VMs that may be failed over only under a lease, as the log knows it.
//!
//! A node is known here by its name, because VMs are placed by name: a machine that takes the name of another
//! one must not take up its VMs while that one may still run them.

use std::collections::BTreeMap;

use blixard_model::vm::is_zero;
use blixard_model::{BootId, LeaseTermsChoice, NodeName, RaftId};
use serde::{Deserialize, Serialize};

/// Whether leases are enforced, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LeaseTable {
    /// There are at least two nodes that VMs can be placed on. With one there is nowhere else to go: then no
    /// VM is stopped because its node has no lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_on: bool,
    /// It is to end as soon as nobody waits any more for the leases of a node that was removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends: bool,
    /// How often enforcement has begun. What a node said in an earlier time of it does not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// What each node said last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub holders: BTreeMap<NodeName, LeaseHolder>,
    /// The terms that somebody chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<LeaseTermsChoice>,
    /// The longest lease that terms before these allowed, in milliseconds; 0 if they never changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub longest_ms: u64,
    /// Since when and until when no VM is started elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disarmed: Option<DisarmedCluster>,
}

/// A time in which no VM is started elsewhere because its node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DisarmedCluster {
    /// The index of the entry that began it.
    pub since: u64,
    /// How long it was to be, in milliseconds.
    pub for_ms: u64,
    /// When it is over by the clock of the leader that began it, in milliseconds since the Unix epoch.
    pub until_unix_ms: u64,
}

/// How long leases of a node may be, beyond the cluster's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseHold {
    /// The index of the entry that it came with.
    pub since: u64,
    /// The boot that may have such a lease.
    pub boot_id: BootId,
    /// How long it is, in milliseconds.
    pub length_ms: u64,
    /// When it begins by that boot's CLOCK_BOOTTIME, in milliseconds, if the node announced it. None: the
    /// terms were longer before, and it may have a lease of then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins_ms: Option<u64>,
}

impl LeaseHold {
    /// Until when the node may run its VMs by this, in milliseconds of its CLOCK_BOOTTIME.
    pub fn until_ms(&self) -> Option<u64> {
        self.begins_ms.map(|begins_ms| begins_ms.saturating_add(self.length_ms))
    }
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
    /// A lease that it may have, and that is longer than those which are granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<LeaseHold>,
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
