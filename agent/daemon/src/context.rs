//! What the agent's tasks share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use blixard_model::{Capacity, Contact, EndpointId, NodeName, Offer, StoreId};
use blixard_net::{IpFamilies, Net, PeerConfig};
use tokio::sync::Notify;

use super::addresses;
use super::config::{Config, NodeRole};
use super::metrics::Metrics;
use super::shell::handle::HostHandle;

/// Shared by all tasks of one agent; holds no decision.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) endpoint_id: EndpointId,
    pub(crate) store_id: StoreId,
    pub(crate) capacity: Capacity,
    pub(crate) net: Net,
    pub(crate) metrics: Metrics,
    pub(crate) host: HostHandle,
    pub(crate) peers: PeerWhereabouts,
    /// The machine shuts down: its units end beside the agent, and none is started any more.
    pub(crate) shuts_down: AtomicBool,
}

/// What the tasks know of the peers beside the network's own list.
#[derive(Debug, Default)]
pub(crate) struct PeerWhereabouts {
    /// Where the peers are: from which of its own addresses this machine reaches them.
    addresses: Mutex<Vec<SocketAddr>>,
    /// The peers, or where they are, changed.
    pub(crate) changed: Notify,
}

impl Agent {
    pub(crate) fn name(&self) -> &NodeName {
        &self.config.node_name
    }

    /// The names of the peers: the members', and of the others as they are listed.
    pub(crate) async fn peer_names(&self) -> BTreeMap<EndpointId, NodeName> {
        let listed = self.config.declared().into_iter();
        let mut names: BTreeMap<_, _> = listed.map(|member| (member.endpoint_id, member.name)).collect();
        let look = self.host.look_at_member(|member| {
            let members = member.state().nodes.members();
            members.map(|member| (member.node.endpoint_id, member.node.name.clone())).collect::<Vec<_>>()
        });
        // The list still names them when the host has no cluster, is behind or on its way out.
        names.extend(look.await.unwrap_or_default());
        names
    }

    /// What this machine offers, and where it is reached.
    pub(crate) fn offer(&self) -> Offer {
        let peers = self.peers.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        offer(&self.config, self.capacity, &self.net, peers)
    }

    /// Sets the peers that the network admits and keeps links with: these, and the listed nodes if they are
    /// peers as well; and the nodes that it tells that they were removed. A listed node's relay is unknown
    /// until the node registers it; until then this node's own is tried.
    pub(crate) fn set_peers(
        &self,
        contacts: Vec<Contact>,
        listed: bool,
        removed: BTreeMap<EndpointId, String>,
    ) {
        let known: BTreeSet<EndpointId> = contacts.iter().map(|contact| contact.endpoint_id).collect();
        let declared = self.config.declared().into_iter().filter(|_| listed).map(|member| PeerConfig {
            endpoint_id: member.endpoint_id,
            addresses: member.addresses,
            relay_url: self.net.home_relay().filter(|_| !known.contains(&member.endpoint_id)),
        });
        let contacts = contacts.into_iter().map(|contact| PeerConfig {
            endpoint_id: contact.endpoint_id,
            addresses: contact.addresses,
            relay_url: contact.relay_url,
        });
        let peers: Vec<PeerConfig> = declared.chain(contacts).collect();
        let others = peers.iter().filter(|peer| peer.endpoint_id != self.endpoint_id);
        let addresses = others.flat_map(|peer| peer.addresses.clone()).collect();
        *self.peers.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
        self.net.set_peers(peers, removed);
        self.peers.changed.notify_one();
    }
}

/// What a machine offers, and where it is reached; `peers` are those that it is to be reached by.
pub(crate) fn offer(config: &Config, capacity: Capacity, net: &Net, peers: Vec<SocketAddr>) -> Offer {
    let listen = config.listen();
    // While nothing is listened on, what is to be.
    let heard = net.families().unwrap_or_else(|| IpFamilies::heard_at(listen.ip()));
    Offer {
        witness: config.role == NodeRole::Witness,
        capacity: Some(capacity),
        addresses: addresses::offered(&config.own_addresses(), (listen, heard), peers),
        relay_url: net.home_relay(),
        shared_dirs: config.shared_dirs().into_iter().collect(),
    }
}
