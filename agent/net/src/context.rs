//! What the tasks of one node share. Dropped with the last of them, and the UDP socket with it.

use std::sync::Arc;

use blixard_model::{ClusterName, EndpointId};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::half_open::HalfOpen;
use crate::admission::peers::Peers;
use crate::incoming::Incoming;
use crate::join::desk::Joins;
use crate::socket::relays::Relays;
use crate::socket::transport::Transport;
use crate::state::Links;

#[derive(Debug)]
pub(crate) struct Context {
    /// This node.
    pub(crate) local: EndpointId,
    /// Random id of this run.
    pub(crate) incarnation: u64,
    pub(crate) cluster_name: ClusterName,
    /// The endpoint, while there is one.
    pub(crate) transport: Arc<Transport>,
    /// This node's own relays.
    pub(crate) relays: Arc<Relays>,
    pub(crate) peers: Arc<Peers>,
    /// Inbound connections that have not said hello yet.
    pub(crate) half_open: Arc<HalfOpen>,
    /// Nodes that ask to be let in.
    pub(crate) joins: Arc<Joins>,
    /// To the application.
    pub(crate) incoming: mpsc::Sender<Incoming>,
    /// Bytes of Raft messages that the application may hold.
    pub(crate) incoming_room: Arc<Semaphore>,
    /// Bytes of snapshots of all peers.
    pub(crate) snapshot_room: Arc<Semaphore>,
    pub(crate) links: watch::Sender<Links>,
    /// Another agent runs with this node's key and was there first.
    pub(crate) aside: watch::Sender<bool>,
    pub(crate) tracker: TaskTracker,
    /// Ends everything.
    pub(crate) cancel: CancellationToken,
}

impl Context {
    /// For the jitter of one wait. Nodes that fell together do not come back together, also without a random
    /// source at that moment.
    pub(crate) fn jitter_seed(&self) -> u64 {
        getrandom::u64().unwrap_or(self.incarnation)
    }
}
