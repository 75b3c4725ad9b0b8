//! The members as the configuration of a node lists them: who may form a cluster, and whom it lets in.

use std::net::SocketAddr;

use blixard_model::{EndpointId, NodeFacts, NodeName, Offer};

/// A member as the configuration lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredMember {
    /// Its name.
    pub name: NodeName,
    /// Its identity.
    pub endpoint_id: EndpointId,
    /// Where it is.
    pub addresses: Vec<SocketAddr>,
}

impl DeclaredMember {
    /// The node as it is let in: who and where it is, the list says, and the rest the node itself.
    pub fn let_in(&self, said: &NodeFacts) -> NodeFacts {
        NodeFacts {
            name: self.name.clone(),
            endpoint_id: self.endpoint_id,
            store_id: said.store_id,
            offer: Offer { addresses: self.addresses.clone(), ..said.offer.clone() },
        }
    }
}
