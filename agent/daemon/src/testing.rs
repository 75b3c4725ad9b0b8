//! An agent for tests of single tasks: a network without peers, and a consensus task that is not there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use blixard_consensus::RaftRole;
use blixard_model::api::RetryKind;
use blixard_model::formation::Genesis;
use blixard_model::wire::{Contact, MembersAsk, ProgressReport};
use blixard_model::{Capacity, ClusterId, EndpointId, RaftId, StoreId};
use blixard_net::{Net, NetConfig, NodeKey, RelayList};
use blixard_node::{Stranger, Summary};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};
use tokio::time::interval;

use super::config::Config;
use super::context::{Agent, AgentParts, Phase, Running};
use super::handle::{ConsensusHandle, Input, Seldom};
use super::retries::Retrying;

/// Node n1 of cluster `lab`, which waits for the others. To be called inside a runtime.
pub(crate) fn agent(dir: &Path) -> Agent {
    let path = dir.join("config.toml");
    std::fs::write(&path, "node_name = \"n1\"\ncluster_name = \"lab\"\n").expect("written");
    let config = Config::load(&path).expect("valid");
    let key = NodeKey::generate();
    let endpoint_id = key.endpoint_id();
    let bind = "127.0.0.1:0".parse().expect("address");
    let net = NetConfig {
        key,
        bind,
        cluster_name: config.cluster_name.clone(),
        relays: RelayList::default(),
        relay_ca: None,
    };
    let (net, _incoming) = Net::start(net).expect("started");
    let (store_id, capacity) = (StoreId::from_bytes([1; 16]), Capacity { cpus: 1, memory_mib: 1 });
    Agent::new(AgentParts { config, endpoint_id, store_id, capacity, net, promise: None, was_in: None })
}

/// What a member knows whose leader this is.
pub(crate) fn summary(leader: Option<EndpointId>) -> Summary {
    Summary {
        joinable: false,
        raft_id: RaftId(1),
        role: RaftRole::Follower,
        leads: false,
        leader: leader.map(|id| ("n2".parse().expect("name"), id)),
        term: 1,
        applied: 1,
        is_member: true,
        membership_version: 1,
    }
}

/// A consensus task that looks at nothing, with room for one input: its handle, its inbox, its summary.
pub(crate) fn consensus(
    leader: Option<EndpointId>,
) -> (ConsensusHandle, mpsc::Receiver<Input>, watch::Sender<Summary>) {
    let (sender, inbox) = mpsc::channel(1);
    let (said, heard) = watch::channel(summary(leader));
    (ConsensusHandle::new(sender, heard, Counter::default()), inbox, said)
}

/// A node of which nothing is seldom looked at.
pub(crate) struct Nothing;

impl Seldom for Nothing {
    fn peers(&self) -> Vec<Contact> {
        Vec::new()
    }

    fn kept_out(&self) -> BTreeMap<EndpointId, RaftId> {
        BTreeMap::new()
    }

    fn vouches(&self) -> Vec<MembersAsk> {
        Vec::new()
    }

    fn strangers(&self) -> Vec<Stranger> {
        Vec::new()
    }

    fn progress_report(&self) -> Option<ProgressReport> {
        None
    }
}

/// Makes the agent one that runs in a cluster.
pub(crate) fn run(agent: &Agent, consensus: ConsensusHandle) {
    let genesis = Genesis { cluster_name: "lab".parse().expect("name"), voters: Vec::new(), origin: None };
    let cluster_id = ClusterId::from_bytes([1; 16]);
    agent.phase.send_replace(Phase::Running(Running { cluster_id, genesis, consensus }));
}

/// What `status` shows of these retries once it is so. For tests with a clock of their own.
pub(crate) async fn shown(
    agent: &Agent,
    what: RetryKind,
    is_so: impl Fn(Option<&Retrying>) -> bool,
) -> Option<Retrying> {
    let mut looks = interval(Duration::from_millis(50));
    for _ in 0..1_000 {
        looks.tick().await;
        let found = agent.retries.list(&agent.net).into_iter().find(|retrying| retrying.what == what);
        if is_so(found.as_ref()) {
            return found;
        }
    }
    panic!("it never is");
}
