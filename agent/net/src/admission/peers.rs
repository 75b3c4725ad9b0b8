//! Who may talk to this node: the list of peers, which is both the allow-list and the way to each peer's
//! task; and the endpoints that were removed from the cluster, which are never let in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use blixard_model::EndpointId;
use iroh::endpoint::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::admission::half_open::ConnectionSource;
use crate::limits::REFUSALS_LOGGED_MAX;
use crate::link::hello::Hello;
use crate::link::queue::RaftQueue;
use crate::link::shares::StreamShares;
use crate::link::snapshot::SnapshotJob;
use crate::link::snapshot_room::SnapshotRoom;
use crate::link::whereabouts::Whereabouts;
use crate::stats::{PeerCounters, PeerStats, RefusedCounters};
use crate::wire::close::Close;

/// A connection that said hello and waits for the peer's task to accept it.
#[derive(Debug)]
pub(crate) struct GreetedConnection {
    pub(crate) connection: Connection,
    pub(crate) hello: Hello,
    /// Where the task sends its verdict. If the task drops it, the task has ended.
    pub(crate) verdict: oneshot::Sender<Result<(), Close>>,
}

/// The current connection, shared by the peer's task, which alone sets it, and those who send.
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

    /// Runs `act`, unless `cancel` is cancelled because the peer was cut off. Holds the lock meanwhile, so
    /// [`PeerHandle::cut_off`] waits until `act` has ended.
    pub(crate) fn unless_cancelled<T>(
        &self,
        cancel: &CancellationToken,
        act: impl FnOnce() -> T,
    ) -> Option<T> {
        let _held = self.lock();
        (!cancel.is_cancelled()).then(act)
    }
}

/// The handle to a peer's task.
#[derive(Debug, Clone)]
pub(crate) struct PeerHandle {
    pub(crate) whereabouts: Arc<watch::Sender<Whereabouts>>,
    pub(crate) inbox: mpsc::Sender<GreetedConnection>,
    pub(crate) raft: RaftQueue,
    pub(crate) snapshots: mpsc::Sender<SnapshotJob>,
    /// Room for snapshots of this peer that arrive here.
    pub(crate) snapshot_room: Arc<SnapshotRoom>,
    /// The limits on streams to and from the peer.
    pub(crate) shares: Arc<StreamShares>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) cancel: CancellationToken,
    /// What the peer is told when it is cut off; set before `cancel`.
    pub(crate) parting: Arc<OnceLock<Close>>,
    pub(crate) counters: Arc<PeerCounters>,
    /// The task itself, for tests that abort it.
    #[cfg(test)]
    pub(crate) task: tokio::task::AbortHandle,
}

impl PeerHandle {
    /// Sets where the peer may be dialled. If that is new and the link is down, the peer is dialled at once.
    pub(crate) fn set_whereabouts(&self, whereabouts: Whereabouts) {
        self.whereabouts.send_if_modified(|known| {
            let changed = *known != whereabouts;
            *known = whereabouts;
            changed
        });
    }

    /// The counts, with the current fill of the queue.
    pub(crate) fn stats(&self) -> PeerStats {
        let (queue_messages, queue_bytes) = self.raft.fill();
        PeerStats { queue_messages, queue_bytes, ..self.counters.snapshot() }
    }

    /// Ends the peer's task and its connection at once: after this, nothing of the peer reaches the
    /// application.
    pub(crate) fn cut_off(&self, close: Close) {
        // The task may close the connection first; the peer gets the same reason from both. Nobody else sets
        // it.
        let close = self.parting.get_or_init(|| close);
        self.cancel.cancel();
        // Waits for a delivery that is under way.
        if let Some(connection) = self.slot.get() {
            close.apply(&connection);
        }
    }
}

/// The list of peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    list: RwLock<List>,
    refusals: Mutex<LoggedRefusals>,
    /// Inbound connections refused.
    pub(crate) refused: RefusedCounters,
}

/// Refusals that were logged. Peers and strangers have a limit each, so that strangers cannot hide the
/// refusal of a peer.
#[derive(Debug, Default)]
struct LoggedRefusals {
    peers: BTreeSet<(EndpointId, String)>,
    strangers: BTreeSet<(EndpointId, String)>,
}

#[derive(Debug, Default)]
struct List {
    peers: BTreeMap<EndpointId, PeerHandle>,
    /// Endpoints that the cluster removed, with a text about each of them. None of them is a peer.
    removed: BTreeMap<EndpointId, String>,
}

impl Peers {
    fn read(&self) -> RwLockReadGuard<'_, List> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, id: &EndpointId) -> Option<PeerHandle> {
        self.read().peers.get(id).cloned()
    }

    /// Whether an endpoint may talk to this node.
    ///
    /// # Errors
    /// What to close its connection with, when it may not.
    pub(crate) fn check(&self, id: &EndpointId) -> Result<(), Close> {
        let list = self.read();
        match list.removed.get(id) {
            Some(word) => Err(Close::Left(word.clone())),
            None if list.peers.contains_key(id) => Ok(()),
            None => Err(Close::NotListed),
        }
    }

    /// Whether the list of peers gives this address, or holds this key.
    pub(crate) fn are_at(&self, source: ConnectionSource) -> bool {
        let list = self.read();
        match source {
            ConnectionSource::Address(ip) => {
                list.peers.values().any(|peer| peer.whereabouts.borrow().has(ip))
            }
            ConnectionSource::Relay(id) => list.peers.contains_key(&id),
            ConnectionSource::Unknown => false,
        }
    }

    /// The counts of every peer.
    pub(crate) fn stats(&self) -> BTreeMap<EndpointId, PeerStats> {
        self.read().peers.iter().map(|(id, peer)| (*id, peer.stats())).collect()
    }

    /// Changes the list under its lock. When peers were added or taken off, refusals that were logged before
    /// may be logged again.
    pub(crate) fn change(&self, change: impl FnOnce(&mut BTreeMap<EndpointId, PeerHandle>)) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        self.change_locked(&mut list, change);
    }

    /// Like [`Peers::change`], but sets the removed endpoints under the same lock. The change must leave none
    /// of them in the list.
    pub(crate) fn replace(
        &self,
        removed: BTreeMap<EndpointId, String>,
        change: impl FnOnce(&mut BTreeMap<EndpointId, PeerHandle>),
    ) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.removed = removed;
        self.change_locked(&mut list, change);
    }

    fn change_locked(&self, list: &mut List, change: impl FnOnce(&mut BTreeMap<EndpointId, PeerHandle>)) {
        let before: Vec<EndpointId> = list.peers.keys().copied().collect();
        change(&mut list.peers);
        if !list.peers.keys().eq(&before) {
            *self.refusals.lock().unwrap_or_else(PoisonError::into_inner) = LoggedRefusals::default();
        }
    }

    /// Logs a refusal, once for each endpoint and reason. Anybody can make any number of endpoint ids, so
    /// nothing more is logged beyond [`REFUSALS_LOGGED_MAX`] refusals: a stranger cannot fill the journal.
    pub(crate) fn log_refusal(&self, id: EndpointId, why: &str) {
        let is_peer = self.read().peers.contains_key(&id);
        let mut logged = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = if is_peer { &mut logged.peers } else { &mut logged.strangers };
        if logged.len() < REFUSALS_LOGGED_MAX && logged.insert((id, why.to_owned())) {
            tracing::warn!(PEER = %id.short(), "connection of {id} refused: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CapturedLog, pair};

    #[tokio::test]
    async fn refusals_of_strangers_do_not_keep_refusals_of_peers_out_of_the_log() {
        let (log, _guard) = CapturedLog::start();
        let (a, b) = pair().await;
        let before = log.lines("WARN").len();
        let peers = a.net.peers();
        for n in 0..=255 {
            peers.log_refusal(EndpointId::from_bytes([n; 32]), "not in the list of members");
        }
        assert_eq!(log.lines("WARN").len(), before + REFUSALS_LOGGED_MAX);
        for _ in 0..2 {
            peers.log_refusal(b.net.endpoint_id(), "another cluster");
        }
        assert_eq!(log.lines("WARN").len(), before + REFUSALS_LOGGED_MAX + 1, "once");
    }

    #[test]
    fn cutting_a_peer_off_waits_for_a_delivery_under_way_and_none_follows() {
        let (slot, cancel) = (Slot::default(), CancellationToken::new());
        // A delivery under way holds the lock that `cut_off` takes after it has cancelled.
        assert_eq!(slot.unless_cancelled(&cancel, || slot.0.try_lock().is_err()), Some(true));
        cancel.cancel();
        assert_eq!(slot.unless_cancelled(&cancel, || true), None);
        assert!(!slot.is_up());
    }
}
