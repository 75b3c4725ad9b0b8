//! The tables and the records in them. Records are JSON: fields are added, none is given another meaning.

use blixard_model::formation::Genesis;
use blixard_model::{ClusterId, Contact, EndpointId, NodeName, RaftId, StoreId};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

/// The newest format this version knows.
pub(crate) const FORMAT: u32 = 1;

/// Single records by name.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Log entries by index.
pub(crate) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// The snapshot by index; one at a time.
pub(crate) const SNAPSHOT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("snapshot");

pub(crate) const KEY_IDENTITY: &str = "identity";
pub(crate) const KEY_CLUSTER: &str = "cluster";
pub(crate) const KEY_PROMISE: &str = "promise";
pub(crate) const KEY_REMOVED: &str = "removed";
pub(crate) const KEY_HARD_STATE: &str = "hard_state";

/// Whose disk this is; written when the file is made, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdentityRecord {
    pub(crate) format: u32,
    pub(crate) endpoint_id: EndpointId,
    pub(crate) store_id: StoreId,
}

/// Which cluster this store belongs to; written once, together with the first log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMarker {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// How it was born.
    pub genesis: Genesis,
    /// This store's place in it.
    pub raft_id: RaftId,
    /// The node's name in it. Placements are by name, so a node keeps its name.
    pub node_name: NodeName,
    /// The members that are asked for the state, by a node that was admitted with a ticket: until it has the
    /// state it knows no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<Contact>,
}
