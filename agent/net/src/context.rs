//! The state that the network tasks of one node share. It is dropped with the last of these tasks, and the
//! UDP socket with it.

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
    /// This node's endpoint id.
    pub(crate) local: EndpointId,
    /// Random id of this run of the node.
    pub(crate) incarnation: u64,
    pub(crate) cluster_name: ClusterName,
    /// The current endpoint, if there is one.
    pub(crate) transport: Arc<Transport>,
    /// The relays of this node's own list.
    pub(crate) relays: Arc<Relays>,
    pub(crate) peers: Arc<Peers>,
    /// Inbound connections that have not said hello yet.
    pub(crate) half_open: Arc<HalfOpen>,
    /// The joins of this node, and whether they are served.
    pub(crate) joins: Arc<Joins>,
    /// The queue to the application.
    pub(crate) incoming: mpsc::Sender<Incoming>,
    /// One permit for each byte of Raft messages that the application may hold.
    pub(crate) incoming_room: Arc<Semaphore>,
    /// One permit for each byte of snapshots that all peers together may have here.
    pub(crate) snapshot_room: Arc<Semaphore>,
    pub(crate) links: watch::Sender<Links>,
    /// True while this node stands aside: another agent with its key was there first.
    pub(crate) aside: watch::Sender<bool>,
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the node stops; this ends every task.
    pub(crate) cancel: CancellationToken,
}

impl Context {
    /// Seed for the jitter of one wait. Nodes that failed together shall not come back together, even if the
    /// random source gives nothing at that moment.
    pub(crate) fn jitter_seed(&self) -> u64 {
        getrandom::u64().unwrap_or(self.incarnation)
    }
}
