//! The members of the cluster.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::RaftId;
use crate::node::NodeFacts;

/// Most members of one cluster.
pub const MEMBERS_MAX: usize = 256;

/// A node in the Raft configuration, as the log knows it: everything there is to know of it, so that whoever
/// applies the log ends with the same table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Raft's name for this node and store.
    pub raft_id: RaftId,
    /// Who it is, and what it offers.
    #[serde(flatten)]
    pub node: NodeFacts,
    /// Its part in the quorum; in the table of the members always what Raft's configuration says.
    pub role: Role,
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
