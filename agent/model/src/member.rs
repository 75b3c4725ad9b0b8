//! Who belongs to the cluster.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NodeName, RaftId, StoreId};

/// Most addresses kept of one member.
pub const ADDRESSES_MAX: usize = 8;

/// A node in the Raft configuration, as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Raft's name for this node and store.
    pub raft_id: RaftId,
    /// The node's name.
    pub name: NodeName,
    /// The identity that its handshakes prove.
    pub endpoint_id: EndpointId,
    /// The store that holds its vote and log.
    pub store_id: StoreId,
    /// Where it may be reached: hints, never identity.
    pub addresses: Vec<SocketAddr>,
}

/// A member's part in the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Counted in the quorum.
    Voter,
    /// Replicated to, not counted.
    Learner,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
        })
    }
}

/// One step of the membership; carried inside the Raft configuration change, so that it can not be lost
/// beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MembershipChange {
    /// A node is replicated to, under a raft id that was never used.
    AddLearner {
        /// Who.
        member: Member,
    },
    /// A learner that has caught up votes from now on.
    Promote {
        /// Who.
        raft_id: RaftId,
    },
    /// A raft id leaves for ever (its node may come back under a new one).
    Remove {
        /// Who.
        raft_id: RaftId,
    },
}

/// What a node offers to VMs: its resources less its reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// Virtual cpus.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}
