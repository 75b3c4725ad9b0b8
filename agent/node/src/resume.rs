//! A node goes on from what its bound store holds.

use blixard_consensus::{Consensus, ConsensusConfig, Limits, NewError};
use blixard_core::ClusterState;
use blixard_core::declared::DeclaredMember;
use blixard_model::{ClusterVersion, NodeName};
use blixard_store::ClusterMarker;

use crate::host::disk::Kept;
use crate::machine::StateMachine;
use crate::replica::{Node, NodeConfig, Told, Waits};

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
