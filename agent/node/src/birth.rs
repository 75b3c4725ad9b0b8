//! From a store to a running node.

use blixard_consensus::{Consensus, ConsensusConfig, Durable, Limits, NewError, genesis_snapshot};
use blixard_core::ClusterState;
use blixard_core::declared::DeclaredMember;
use blixard_core::genesis::cluster_id;
use blixard_model::{ClusterVersion, EndpointId, NodeName, RaftId};
use blixard_store::{ClusterMarker, OpenError, Store, WriteError};

use crate::forming::Birth;
use crate::machine::{StateMachine, encode_state};
use crate::replica::{Node, NodeConfig, Told, Waits};

/// What a store that is bound to a cluster holds.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its cluster and this node's place in it.
    pub marker: ClusterMarker,
    /// The log.
    pub durable: Durable,
}

impl Kept {
    /// What this store holds; none while it is bound to no cluster.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: &Store) -> Result<Option<Self>, OpenError> {
        let Some(marker) = store.cluster().cloned() else { return Ok(None) };
        Ok(Some(Self { marker, durable: store.load()? }))
    }
}

/// Why a store cannot be bound to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The genesis is of other nodes, or of another store of this one.
    #[error("the genesis does not hold this node")]
    NotInGenesis,
    /// The disk's; final.
    #[error("the store cannot be bound to the cluster")]
    Store(#[from] WriteError),
}

/// Why a node cannot resume.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The node was renamed.
    #[error(
        "node_name is {ours}, but the cluster knows this store as {theirs}, and what it runs is placed by \
         that name: set node_name back to {theirs}"
    )]
    Renamed {
        /// The configured name.
        ours: NodeName,
        /// The name in the store.
        theirs: NodeName,
    },
    /// Its content cannot be used.
    #[error(transparent)]
    Log(#[from] NewError),
}

/// Who resumes.
#[derive(Debug, Clone)]
pub struct Resume {
    /// The configured name.
    pub name: NodeName,
    /// The configured list of members.
    pub declared: Vec<DeclaredMember>,
    /// After how many ticks without a word a voter is replaced.
    pub voter_lost_ticks: u64,
    /// The newest version of a cluster that its release supports.
    pub supports: ClusterVersion,
    /// Differs in every run.
    pub incarnation: u64,
    /// When the log is cut.
    pub limits: Limits,
}

/// Binds an empty store to the cluster it was found to be in. One transaction: a crash leaves it empty or
/// bound.
///
/// # Errors
/// See [`BindError`].
pub fn bind(
    store: &mut Store,
    endpoint_id: EndpointId,
    name: &NodeName,
    birth: Birth,
) -> Result<(), BindError> {
    match birth {
        Birth::Formed(genesis) => {
            let state = ClusterState::new(genesis.clone());
            // One that was made of another cluster began with that one's state, and not with this.
            let member = state
                .member_by_endpoint(endpoint_id)
                .filter(|member| member.node.store_id == store.store_id() && genesis.origin.is_none())
                .ok_or(BindError::NotInGenesis)?;
            let voters: Vec<RaftId> = state.nodes.raft_ids().collect();
            let begin = genesis_snapshot(&voters, encode_state(&state));
            let marker = ClusterMarker {
                cluster_id: cluster_id(&genesis),
                genesis,
                raft_id: member.raft_id,
                node_name: name.clone(),
                contacts: Vec::new(),
            };
            store.bind(&marker, Some(begin))?;
        }
        Birth::Joined { cluster_id, genesis, raft_id, contacts } => {
            let node_name = name.clone();
            let marker = ClusterMarker { cluster_id, genesis, raft_id, node_name, contacts };
            store.bind(&marker, None)?;
        }
    }
    Ok(())
}

/// Resumes from what a bound store holds.
///
/// # Errors
/// See [`ResumeError`].
pub fn resume<P: Waits, R: Waits>(kept: Kept, who: Resume) -> Result<Node<P, R>, ResumeError> {
    let Kept { marker, durable } = kept;
    if marker.node_name != who.name {
        return Err(ResumeError::Renamed { ours: who.name, theirs: marker.node_name });
    }
    let consensus = ConsensusConfig {
        raft_id: marker.raft_id,
        incarnation: who.incarnation,
        seed: seed_of(&marker),
        limits: who.limits,
    };
    // A node that was admitted later begins with the birth state; the leader's snapshot replaces it.
    let machine = StateMachine::new(ClusterState::new(marker.genesis.clone()));
    let raft = Consensus::new(consensus, &durable, machine)?;
    let config = NodeConfig {
        cluster_id: marker.cluster_id,
        name: who.name,
        declared: who.declared,
        voter_lost_ticks: who.voter_lost_ticks,
        supports: who.supports,
    };
    // Of those who admitted it. Worth nothing once anything is applied.
    let told = Told { applied: 1, members: marker.contacts };
    Ok(Node::new(config, told, raft))
}

/// Election timeouts differ between clusters and nodes and are the same in every run.
fn seed_of(marker: &ClusterMarker) -> u64 {
    let bytes = marker.cluster_id.as_bytes();
    bytes.iter().fold(marker.raft_id.0, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte))
}
