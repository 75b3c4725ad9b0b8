//! The members of the cluster.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NodeName, RaftId, StoreId};
use crate::relay::RelayUrl;

/// Most members of one cluster.
pub const MEMBERS_MAX: usize = 256;
/// Most addresses kept of one member.
pub const ADDRESSES_MAX: usize = 8;

/// A node in the Raft configuration, as the log knows it: everything there is to know of it, so that whoever
/// applies the log ends with the same table.
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
    /// The relay it may be reached through, if it uses one: a hint as well.
    #[serde(default)]
    pub relay_url: Option<RelayUrl>,
    /// Its part in the quorum; in the table of the members always what Raft's configuration says.
    pub role: Role,
    /// The resources that it offers to VMs; none until it has registered them.
    #[serde(default)]
    pub capacity: Option<Capacity>,
    /// Votes and keeps the log, and is never given a VM.
    #[serde(default, skip_serializing_if = "is_false")]
    pub witness: bool,
}

/// For fields that older versions do not know and that are left out where they say nothing.
pub(crate) fn is_false(value: &bool) -> bool {
    !value
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

/// What a node offers to VMs: its resources less its reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// Virtual cpus.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}
