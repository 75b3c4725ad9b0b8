//! What the invariants look at.

use blixard_consensus::RaftStatus;
use blixard_core::ClusterState;

use crate::world::parts::mirror::Mirror;

/// A node right after its turn.
pub(crate) struct SeenNode<'a> {
    pub(crate) machine: usize,
    /// Which run of the agent.
    pub(crate) run: u64,
    pub(crate) raft: RaftStatus,
    pub(crate) state: &'a ClusterState,
    pub(crate) mirror: &'a Mirror,
    /// Proposals and reads that wait.
    pub(crate) waiting: (usize, usize),
    /// Lowest index written in this turn.
    pub(crate) written_from: Option<u64>,
}
