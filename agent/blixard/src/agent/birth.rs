//! From a store to a running consensus task.

use anyhow::Context as _;
use blixard_consensus::{Consensus, ConsensusConfig, genesis_snapshot};
use blixard_core::ClusterState;
use blixard_core::formation::cluster_id;
use blixard_model::RaftId;
use blixard_model::formation::Genesis;
use blixard_store::{ClusterMarker, Store};
use tokio::sync::{mpsc, watch};

use super::context::{Agent, Phase, Running};
use super::formation::Birth;
use super::handle::{ConsensusHandle, INBOX_MAX};
use super::machine::{StateMachine, encode_state};
use super::owner::{OwnerTask, first_summary};
use super::random;

/// Binds an empty store to the cluster it was found to be in. One transaction: a crash leaves it empty or
/// bound.
///
/// # Errors
/// The store's, or a genesis without this node.
pub(crate) fn bind(agent: &Agent, store: &mut Store, birth: Birth) -> anyhow::Result<()> {
    match birth {
        Birth::Formed(genesis) => {
            let state = ClusterState::new(genesis.clone());
            let member = state
                .member_by_endpoint(agent.endpoint_id)
                .filter(|member| member.store_id == agent.store_id)
                .context("the genesis does not hold this node")?;
            let voters: Vec<RaftId> = state.members.keys().copied().collect();
            let begin = genesis_snapshot(&voters, encode_state(&state));
            let marker = ClusterMarker {
                cluster_id: cluster_id(&genesis),
                genesis,
                raft_id: member.raft_id,
                node_name: agent.name().clone(),
            };
            store.bind(&marker, Some(begin))?;
            let id = marker.cluster_id;
            tracing::info!(CLUSTER = %id, raft_id = %marker.raft_id, "cluster {id} formed");
        }
        Birth::Joined { cluster_id, genesis, raft_id } => {
            let marker = ClusterMarker { cluster_id, genesis, raft_id, node_name: agent.name().clone() };
            store.bind(&marker, None)?;
            tracing::info!(
                CLUSTER = %cluster_id,
                %raft_id,
                "admitted to cluster {cluster_id} under raft id {raft_id}, waiting for its state"
            );
        }
    }
    Ok(())
}

/// Resumes from a bound store and shows the running node to everybody.
///
/// # Errors
/// The store's content can not be used.
pub(crate) fn resume(agent: &Agent, store: Store) -> anyhow::Result<OwnerTask> {
    let marker = store.cluster().cloned().context("the store is bound to no cluster")?;
    anyhow::ensure!(
        marker.node_name == *agent.name(),
        "node_name is {}, but the cluster knows this store as {}, and what it runs is placed by that name: \
         set node_name back to {}",
        agent.name(),
        marker.node_name,
        marker.node_name,
    );
    let durable = store.load()?;
    let genesis: Genesis = marker.genesis.clone();
    let config =
        ConsensusConfig { raft_id: marker.raft_id, incarnation: random::u64(), seed: seed_of(&marker) };
    // A node that was admitted later begins with the birth state; the leader's snapshot replaces it.
    let machine = StateMachine(ClusterState::new(genesis.clone()));
    let raft = Consensus::new(config, &durable, machine, store)?;
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let summary = watch::Sender::new(first_summary(&raft));
    let consensus = ConsensusHandle::new(sender, summary.subscribe());
    agent.phase.send_replace(Phase::Running(Running { cluster_id: marker.cluster_id, genesis, consensus }));
    Ok(OwnerTask {
        raft,
        cluster_id: marker.cluster_id,
        name: agent.name().clone(),
        declared: agent.declared.clone(),
        net: agent.net.clone(),
        links: agent.net.links(),
        inbox,
        summary,
    })
}

/// Election timeouts differ between clusters and nodes and are the same in every run.
fn seed_of(marker: &ClusterMarker) -> u64 {
    let bytes = marker.cluster_id.as_bytes();
    bytes.iter().fold(marker.raft_id.0, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte))
}
