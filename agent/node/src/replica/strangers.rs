//! Peers whose stores belong to another cluster: nothing is wrong with the network, and they never join.

use blixard_model::formation::{Genesis, Identity, Phase};
use blixard_model::{ClusterId, EndpointId, NodeName};

use super::Node;
use super::waiting::Waits;

/// What another cluster is to this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// Neither cluster was made of the other.
    None,
    /// This node's cluster was made of it.
    MadeOfIt,
    /// It was made of this node's cluster.
    MadeOfUs,
}

/// A peer that lately said that it belongs to another cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// The peer's endpoint id.
    pub endpoint_id: EndpointId,
    /// As it calls itself.
    pub name: NodeName,
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// What that one is to this node's.
    pub kinship: Kinship,
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// Who lately said that it belongs to another cluster.
    pub fn strangers(&self) -> Vec<Stranger> {
        let ours = self.config.cluster_id;
        let made_of = |genesis: &Genesis, id: ClusterId| {
            genesis.origin.as_ref().is_some_and(|origin| origin.cluster_id == id)
        };
        let own_genesis = &self.state().genesis;
        let stranger = |identity: &Identity| match &identity.phase {
            Phase::Formed { cluster_id, genesis, .. } if *cluster_id != ours => Some(Stranger {
                endpoint_id: identity.node.endpoint_id,
                name: identity.node.name.clone(),
                cluster_id: *cluster_id,
                kinship: match () {
                    () if made_of(own_genesis, *cluster_id) => Kinship::MadeOfIt,
                    () if made_of(genesis, ours) => Kinship::MadeOfUs,
                    () => Kinship::None,
                },
            }),
            Phase::Formed { .. } | Phase::Empty { .. } => None,
        };
        self.claims.identities().filter_map(stranger).collect()
    }
}
