//! An agent for tests of the edges: a network without peers, and a host that waits for the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use blixard_consensus::Limits;
use blixard_model::{Capacity, ClusterVersion, LeaseTerms, NodeFacts, StoreId};
use blixard_net::{Net, NetConfig, NodeKey, RelayList};
use blixard_node::host::{Effect, Found, Host, HostConfig};
use blixard_store::{DirDisk, Store};
use tokio::sync::{mpsc, watch};

use super::clock;
use super::config::Config;
use super::context::{Agent, PeerWhereabouts, offer};
use super::metrics::Metrics;
use super::shell::{HostHandle, HostMessage, HostStanding, Look};

/// What a test has of a host task that does not run.
pub(crate) struct Idle {
    pub(crate) inbox: mpsc::Receiver<HostMessage>,
    pub(crate) host: Host,
    pub(crate) store: Store,
}

impl Idle {
    /// Takes what waits for the host, and answers what it answers at once.
    pub(crate) fn serve(&mut self) {
        let now = clock::moment(clock::boot_id().expect("a boot"));
        let mut waiters = BTreeMap::new();
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                HostMessage::Input(input) => self.host.handle(now, input).expect("goes on"),
                HostMessage::Wanted(waiter, input, reply) => {
                    waiters.insert(waiter, reply);
                    self.host.handle(now, input).expect("goes on");
                }
                HostMessage::Look(look) => look(&Look { host: &self.host, now, store: self.store.stats() }),
                HostMessage::PeerAsked(..) | HostMessage::JoinAsked(..) | HostMessage::Stop => {}
            }
        }
        for effect in self.host.turn(now).expect("goes on") {
            if let Effect::Answer { waiter, answer } = effect
                && let Some(reply) = waiters.remove(&waiter)
            {
                reply.send(answer).expect("awaited");
            }
        }
    }
}

/// Node n1 of cluster `lab`, which waits for a ticket. To be called inside a runtime.
pub(crate) fn agent(dir: &Path) -> (Agent, Idle) {
    let path = dir.join("config.toml");
    let text = format!("node_name = \"n1\"\ncluster_name = \"lab\"\njoin = true\ndata_dir = {dir:?}\n");
    std::fs::write(&path, text).expect("written");
    let config = Config::load(&path).expect("valid");
    let key = NodeKey::generate();
    let endpoint_id = key.endpoint_id();
    let net = NetConfig {
        key,
        bind: "127.0.0.1:0".parse().expect("address"),
        cluster_name: config.cluster_name.clone(),
        relays: RelayList::default(),
        relay_ca: None,
    };
    let (net, _incoming) = Net::start(net).expect("started");
    let (store_id, capacity) = (StoreId::from_bytes([1; 16]), Capacity { cpus: 1, memory_mib: 1 });
    let store = Store::open(&DirDisk::new(dir), endpoint_id, &config.cluster_name, store_id).expect("opened");
    let host = HostConfig {
        node: NodeFacts {
            name: config.node_name.clone(),
            endpoint_id,
            store_id,
            offer: offer(&config, capacity, &net, Vec::new()),
        },
        cluster_name: config.cluster_name.clone(),
        declared: Vec::new(),
        joins: true,
        needs: None,
        ticket: None,
        written: Vec::new(),
        voter_lost_ticks: 1_800,
        supports: ClusterVersion::NEWEST,
        lease_terms: LeaseTerms::DEFAULT,
        lease: None.into(),
        limits: Limits::default(),
        incarnation: 1,
    };
    let host =
        Host::new(host, Found::default(), clock::moment(clock::boot_id().expect("a boot"))).expect("begins");
    let (sender, inbox) = mpsc::channel(1);
    let standing = watch::Sender::new(HostStanding::of(&host));
    let metrics = Metrics::default();
    let handle = HostHandle::new(sender, standing.subscribe(), metrics.inbox_dropped.clone());
    let peers = PeerWhereabouts::default();
    let shuts_down = AtomicBool::new(false);
    let agent =
        Agent { config, endpoint_id, store_id, capacity, net, metrics, host: handle, peers, shuts_down };
    (agent, Idle { inbox, host, store })
}
