//! Why a member leaves, and what becomes of what was placed on it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, InvalidId, NodeName, RaftId};

/// Most removed nodes that the state remembers; beyond it the one removed first is forgotten.
pub const REMOVED_MAX: usize = 1_024;

/// Why a raft id leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Removal {
    /// Its store is lost; its node is admitted anew when it is still listed.
    #[default]
    LostStore,
    /// An operator removed the node: it is not let in again, listed or not, unless it has a ticket.
    Operator {
        /// What becomes of the VMs placed there; without it there must be none.
        #[serde(default)]
        vms: Option<VmsFate>,
    },
}

/// What becomes of the VMs on a node that will not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmsFate {
    /// They are forgotten: names, disks and reservations are free at once. For whoever knows that the machine
    /// is off: it may still run them.
    Delete,
    /// They are forgotten once the node certainly runs none of them, because its leases are over. It is
    /// refused where one of them needs no lease. From version 4 of the cluster on.
    Retire,
    /// They stay as they are, `unknown`, until a node of that name takes them up again or they are deleted.
    Keep,
}

/// A node that an operator removed, or gave up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RemovedNode {
    /// The name it had.
    pub name: NodeName,
    /// The raft id it had last.
    pub raft_id: RaftId,
    /// It was given up with its whole cluster, by a recovery or a restore, and not sent away: when it is
    /// listed it is admitted again, with an empty store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub given_up: bool,
}

/// From which cluster a node was removed, and under which raft id: what its members tell it when it comes
/// back. As text: `CLUSTER:RAFT`, the cluster in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RemovedFrom {
    /// From which cluster.
    pub cluster_id: ClusterId,
    /// The raft id it had last.
    pub raft_id: RaftId,
}

impl fmt::Display for RemovedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.cluster_id, self.raft_id)
    }
}

impl FromStr for RemovedFrom {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let wrong = || InvalidId::new("removal", "is a cluster's id, a colon and a raft id", text);
        let (cluster_id, raft_id) = text.split_once(':').ok_or_else(wrong)?;
        let raft_id = raft_id.parse().map(RaftId).map_err(|_| wrong())?;
        Ok(Self { cluster_id: cluster_id.parse()?, raft_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_is_said_in_one_word() {
        let said = RemovedFrom { cluster_id: ClusterId::from_bytes([0xab; 16]), raft_id: RaftId(u64::MAX) };
        assert_eq!(said.to_string().parse(), Ok(said));
        for wrong in
            ["", ":", "7", "ab:7", "abababababababababababababababab:", "abababababababababababababababab:x"]
        {
            assert!(wrong.parse::<RemovedFrom>().is_err(), "{wrong}");
        }
    }
}
