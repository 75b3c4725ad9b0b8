//! From a store to a running consensus task.

use anyhow::Context as _;
use blixard_consensus::{Limits, TICK_MS};
use blixard_node::birth::{self, Resume};
use blixard_node::forming::Birth;
use blixard_store::Store;
use tokio::sync::{mpsc, watch};

use super::context::{Agent, Phase, Running};
use super::handle::{ConsensusHandle, INBOX_MAX};
use super::owner::OwnerTask;
use super::{random, was_in};

/// Binds an empty store to the cluster it was found to be in. One transaction: a crash leaves it empty or
/// bound.
///
/// # Errors
/// The store's, or a genesis without this node.
pub(crate) fn bind(agent: &Agent, store: &mut Store, birth: Birth) -> anyhow::Result<()> {
    let formed = matches!(birth, Birth::Formed(_));
    birth::bind(store, agent.endpoint_id, agent.name(), birth)?;
    let marker = store.cluster().context("the store is bound to no cluster")?;
    let (id, raft_id) = (marker.cluster_id, marker.raft_id);
    if formed {
        tracing::info!(CLUSTER = %id, %raft_id, "cluster {id} formed");
    } else {
        tracing::info!(
            CLUSTER = %id,
            %raft_id,
            "admitted to cluster {id} under raft id {raft_id}, waiting for its state"
        );
    }
    Ok(())
}

/// Resumes from a bound store and shows the running node to everybody.
///
/// # Errors
/// The store's content can not be used.
pub(crate) fn resume(agent: &Agent, store: Store) -> anyhow::Result<OwnerTask> {
    let marker = store.cluster().cloned().context("the store is bound to no cluster")?;
    let who = Resume {
        name: agent.name().clone(),
        declared: agent.declared.clone(),
        incarnation: random::u64(),
        limits: Limits::default(),
        voter_lost_ticks: u64::from(agent.config.voter_lost_after_s) * 1_000 / TICK_MS,
    };
    let node = birth::resume(store, who, |store| store)?;
    was_in::keep(&agent.config.data_dir, was_in::record().as_deref(), marker.cluster_id);
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let summary = watch::Sender::new(blixard_node::Summary::clone(node.summary()));
    let consensus = ConsensusHandle::new(sender, summary.subscribe(), agent.metrics.inbox_dropped.clone());
    let running = Running { cluster_id: marker.cluster_id, genesis: marker.genesis, consensus };
    agent.phase.send_replace(Phase::Running(running));
    let mut links = agent.net.links();
    links.mark_changed();
    Ok(OwnerTask { node, net: agent.net.clone(), links, inbox, summary, metrics: agent.metrics.clone() })
}
