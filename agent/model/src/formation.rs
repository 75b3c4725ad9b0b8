//! How nodes without a cluster find that they are one.

use serde::{Deserialize, Serialize};

use crate::contact::Contact;
use crate::id::{ClusterId, ClusterName, RaftId};
use crate::node::NodeFacts;
use crate::version::ClusterVersion;

/// What a cluster is born from. Every declared voter computes it from what the others answered; the cluster
/// id is its digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Genesis {
    /// The configured name.
    pub cluster_name: ClusterName,
    /// The first voters, sorted by endpoint id: the first has raft id 1, and so on.
    pub voters: Vec<NodeFacts>,
    /// The cluster that it was made of; none if it was formed from empty stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The version that the cluster begins with: the newest that all its first voters support.
    #[serde(default, skip_serializing_if = "ClusterVersion::is_first")]
    pub version: ClusterVersion,
}

/// The cluster that another one was made of, by a recovery or from a backup. Its members cannot meet those
/// of the new one: the cluster ids differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The id of that cluster.
    pub cluster_id: ClusterId,
    /// How much of its log the new one begins with.
    pub index: u64,
    /// Random: two that are made of the same state are two.
    pub nonce: u64,
}

/// What a node says of itself to another: the question and the answer of the formation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who it is, and what it offers. The endpoint id equals the one its handshake proved.
    #[serde(flatten)]
    pub node: NodeFacts,
    /// The newest version of a cluster that its release supports.
    #[serde(default, skip_serializing_if = "ClusterVersion::is_first")]
    pub supports: ClusterVersion,
    /// Whether it belongs to a cluster.
    pub phase: Phase,
}

/// Whether a node's store belongs to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The store is empty.
    Empty {
        /// The genesis it durably promised to form, if all others promise the same.
        #[serde(default)]
        promise: Option<Genesis>,
    },
    /// The store belongs to a cluster.
    Formed {
        /// The id of that cluster.
        cluster_id: ClusterId,
        /// How it was born.
        genesis: Genesis,
        /// The speaker's place in it.
        #[serde(default)]
        raft_id: Option<RaftId>,
        /// The asker's place in it, if its endpoint id *and* store id are known there.
        #[serde(default)]
        your_raft_id: Option<RaftId>,
        /// The asker's place is known to be gone for ever: its raft id was given and is no member's.
        #[serde(default)]
        you_left: bool,
        /// An operator removed the asker's node.
        #[serde(default)]
        you_were_removed: bool,
        /// How much of the log the speaker has applied.
        #[serde(default)]
        applied: u64,
        /// The members and where they are, for an asker that is one and behind: whoever leads may be on no
        /// list of its own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<Contact>,
    },
}
