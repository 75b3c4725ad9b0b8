//! Who may talk to this node: the list of peers, which is at once the allow-list and the way to each peer's
//! task.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use blixard_model::EndpointId;
use iroh::endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::close::Close;
use crate::hello::Hello;
use crate::key;
use crate::limits::REFUSALS_LOGGED_MAX;
use crate::queue::RaftQueue;
use crate::snapshot::SnapshotJob;
use crate::snapshot_room::SnapshotRoom;
use crate::stats::{PeerCounters, PeerStats, RefusedCounters};

/// A connection that said hello and waits for the peer's task to accept it.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) connection: Connection,
    pub(crate) hello: Hello,
    /// The task's verdict; the sender dropped means that it ended.
    pub(crate) verdict: oneshot::Sender<Result<(), Close>>,
}

/// The connection of the moment, shared by the peer's task (which alone sets it) and those who send.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Option<Connection>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, connection: Option<Connection>) {
        *self.lock() = connection;
    }

    pub(crate) fn get(&self) -> Option<Connection> {
        self.lock().clone()
    }

    pub(crate) fn is_up(&self) -> bool {
        self.lock().is_some()
    }
}

/// The way to a peer's task.
#[derive(Debug, Clone)]
pub(crate) struct PeerHandle {
    pub(crate) addresses: Arc<watch::Sender<Vec<SocketAddr>>>,
    pub(crate) inbox: mpsc::Sender<Inbound>,
    pub(crate) raft: RaftQueue,
    pub(crate) snapshots: mpsc::Sender<SnapshotJob>,
    /// For the peer's snapshots that arrive here.
    pub(crate) snapshot_room: Arc<SnapshotRoom>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) cancel: CancellationToken,
    pub(crate) counters: Arc<PeerCounters>,
    /// The task itself, for tests that let it die.
    #[cfg(test)]
    pub(crate) task: tokio::task::AbortHandle,
}

impl PeerHandle {
    /// New addresses are dialled at once when the link is down.
    pub(crate) fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        self.addresses.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses;
            changed
        });
    }

    /// The counts, with the queue's fill of this moment.
    pub(crate) fn stats(&self) -> PeerStats {
        let (queue_messages, queue_bytes) = self.raft.fill();
        PeerStats { queue_messages, queue_bytes, ..self.counters.snapshot() }
    }

    /// Ends the peer's task and its connection, at once.
    pub(crate) fn cut_off(&self) {
        self.cancel.cancel();
        if let Some(connection) = self.slot.get() {
            Close::Removed.apply(&connection);
        }
    }
}

/// The list of peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    list: RwLock<BTreeMap<EndpointId, PeerHandle>>,
    refusals: Mutex<BTreeSet<(EndpointId, String)>>,
    /// Inbound connections refused.
    pub(crate) refused: RefusedCounters,
}

impl Peers {
    pub(crate) fn get(&self, id: &EndpointId) -> Option<PeerHandle> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn contains(&self, id: &EndpointId) -> bool {
        self.list.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// The counts of every peer.
    pub(crate) fn stats(&self) -> BTreeMap<EndpointId, PeerStats> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|(id, peer)| (*id, peer.stats())).collect()
    }

    /// Changes the list under its lock. When members come or go, refusals are logged anew.
    pub(crate) fn change(&self, change: impl FnOnce(&mut BTreeMap<EndpointId, PeerHandle>)) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let before: Vec<EndpointId> = list.keys().copied().collect();
        change(&mut list);
        if !list.keys().eq(&before) {
            self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Logs a refusal once for each endpoint and reason. Endpoint ids cost nothing to make: beyond a number
    /// of them nothing more is logged, so that a stranger can not fill the journal.
    pub(crate) fn log_refusal(&self, id: EndpointId, why: &str) {
        let mut logged = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < REFUSALS_LOGGED_MAX && logged.insert((id, why.to_owned())) {
            tracing::warn!(PEER = %id.short(), "connection of {id} refused: {why}");
        }
    }
}

/// The first gate: right after the handshake proved the other side's key, before any of its bytes are read.
#[derive(Debug)]
pub(crate) struct Gate(pub(crate) Arc<Peers>);

impl EndpointHooks for Gate {
    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        let id = key::endpoint_id(connection.remote_id());
        if self.0.contains(&id) {
            return AfterHandshakeOutcome::Accept;
        }
        let close = Close::NotListed;
        self.0.refused.not_listed.add(1);
        self.0.log_refusal(id, "not in the list of members");
        AfterHandshakeOutcome::Reject { error_code: close.code(), reason: close.text().as_bytes().to_vec() }
    }
}
