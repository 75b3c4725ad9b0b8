//! Leases: the right of a node to run the VMs that may be failed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::boot::BootId;
use crate::id::{ClusterId, VmName};

/// Which grant of a lease it is: the leader of a term counts those that it gives to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrantId {
    /// The term of the leader that gave it.
    pub term: u64,
    /// Counted from 1, for each node.
    pub number: u64,
}

/// What a node's agent lets the supervisors of its VMs know, as JSON: how long its lease holds, and which VMs
/// may run under it. Nothing else allows a VM to run that needs a lease; no file is no lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseFile {
    /// The boot of the machine whose CLOCK_BOOTTIME `until_ms` is of. In another boot the file means nothing.
    pub boot_id: BootId,
    /// The cluster that placed the VMs.
    pub cluster_id: ClusterId,
    /// Until when the VMs may run, in milliseconds of CLOCK_BOOTTIME. None: without an end, because nobody
    /// may fail them over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// The newest grant that the node received: an agent that starts again shows it to the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// The VMs that may run here, each with the generation of its placement.
    pub vms: BTreeMap<VmName, u64>,
}
