//! What identifies a cluster: the digest of what it was born from.

use blixard_model::ClusterId;
use blixard_model::formation::Genesis;

/// The id of the cluster that a genesis gives birth to.
pub fn cluster_id(genesis: &Genesis) -> ClusterId {
    let text = serde_json::to_vec(genesis).unwrap_or_default();
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(&text).as_bytes()[..16]);
    ClusterId::from_bytes(id)
}
