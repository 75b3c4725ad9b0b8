//! Why a member leaves, and what becomes of what was placed on it.

use serde::{Deserialize, Serialize};

use crate::id::{NodeName, RaftId};
use crate::member::is_false;

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
    /// They are forgotten: names, disks and reservations are free.
    Delete,
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
    #[serde(default, skip_serializing_if = "is_false")]
    pub given_up: bool,
}
