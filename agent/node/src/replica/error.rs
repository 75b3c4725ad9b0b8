//! Why a node must end.

use blixard_consensus::PumpError;
use blixard_model::RaftId;

/// Why a node must end. What is on disk is what counts.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The log holds what this version cannot apply.
    #[error(transparent)]
    Pump(#[from] PumpError),
    /// The disk went back in time: an older copy was put in its place, or it forgot what it had synced.
    #[error(
        "this node's disk went back in time: the leader knows that it had stored the log up to {stored}, it \
         holds {holds}. It counts as lost: stop blixard.service, move store.redb out of the data directory \
         and start it again; the cluster admits this node anew, under a new raft id"
    )]
    RolledBack {
        /// What this node had acknowledged to have stored.
        stored: u64,
        /// Its last index.
        holds: u64,
    },
    /// An operator removed this node.
    #[error("this node (raft id {raft_id}) was removed from the cluster")]
    Removed {
        /// The raft id that it had.
        raft_id: RaftId,
    },
    /// The store is one that the cluster has let go: it was lost, and an old copy came back.
    #[error(
        "this node's store takes part as raft id {raft_id}, which has left the cluster for good: the store \
         was lost or removed before. It counts as lost: stop blixard.service, move store.redb out of the \
         data directory and start it again; the cluster admits this node anew, under a new raft id"
    )]
    Left {
        /// The raft id that it has.
        raft_id: RaftId,
    },
}
