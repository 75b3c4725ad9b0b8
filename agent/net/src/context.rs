//! What the tasks of one endpoint share. Dropped with the last of them, and the UDP socket with it.

use std::sync::Arc;

use blixard_model::{ClusterName, EndpointId};
use iroh::Endpoint;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::net::Incoming;
use crate::peers::Peers;
use crate::state::Links;

#[derive(Debug)]
pub(crate) struct Context {
    /// This node.
    pub(crate) local: EndpointId,
    /// Random id of this run.
    pub(crate) incarnation: u64,
    pub(crate) cluster_name: ClusterName,
    pub(crate) endpoint: Endpoint,
    pub(crate) peers: Arc<Peers>,
    /// To the application.
    pub(crate) incoming: mpsc::Sender<Incoming>,
    /// Bytes of Raft messages that the application may hold.
    pub(crate) incoming_room: Arc<Semaphore>,
    /// Snapshots that may arrive at a time.
    pub(crate) snapshot_room: Semaphore,
    pub(crate) links: watch::Sender<Links>,
    pub(crate) tracker: TaskTracker,
    /// Ends everything.
    pub(crate) cancel: CancellationToken,
}
