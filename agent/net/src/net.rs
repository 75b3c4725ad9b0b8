//! The handle: what the rest of the agent sees of the network.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use blixard_model::{ClusterId, ClusterName, Contact, EndpointId, RelayUrl};
use bytes::Bytes;
use iroh::endpoint::Connection;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::admission::half_open::HalfOpen;
use crate::admission::peers::Peers;
use crate::context::Context;
use crate::incoming::Incoming;
use crate::join::ask::{self as join_ask, JoinError};
use crate::join::desk::Joins;
use crate::join::serve::JoinProtocol;
use crate::key::NodeKey;
use crate::limits::{
    CLOSE_TIMEOUT, INCOMING_QUEUE_MAX, INCOMING_RAFT_BYTES_MAX, REMOVED_MAX, REMOVED_WORD_LEN_MAX,
};
use crate::link::greet::LinkProtocol;
use crate::link::peer_keeper::{self, Lasting};
use crate::link::queue::SendOutcome;
use crate::link::request::{self, NotSent, RequestError, ResponseStream};
use crate::link::shares::StreamShares;
use crate::link::snapshot::{self, SnapshotDelivery, SnapshotError};
use crate::link::snapshot_room;
use crate::link::whereabouts::Whereabouts;
use crate::socket::families::IpFamilies;
use crate::socket::keeper;
use crate::socket::protocol::Protocols;
use crate::socket::relay_list::{RelayCa, RelayList};
use crate::socket::relays::Relays;
use crate::socket::transport::{Transport, TransportState};
use crate::state::{DownReason, LinkState, Links};
use crate::stats::{Counter, NetStats};
use crate::wire::close::Close;

/// What [`Net::start`] needs.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// This node's identity.
    pub key: NodeKey,
    /// The UDP address to listen on. Port 0 means any free port. An unspecified address (`0.0.0.0` or `::`)
    /// means every IP family that the machine has.
    pub bind: SocketAddr,
    /// The cluster's name. A connection whose hello gives another name is refused.
    pub cluster_name: ClusterName,
    /// The relays that this node uses; it uses no others. If the list is empty, nothing is relayed.
    pub relays: RelayList,
    /// The authorities that must vouch for the relays' certificates; `None` means the public authorities.
    pub relay_ca: Option<RelayCa>,
}

/// A node to keep a link with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// The peer's identity.
    pub endpoint_id: EndpointId,
    /// Addresses at which the peer may be reached; all of them are tried at once.
    pub addresses: Vec<SocketAddr>,
    /// The relay at which the peer says it is found. If that relay is in this node's own list, all relays of
    /// the list are tried beside the addresses; otherwise it is not used. With neither an address nor a
    /// listed relay, this node does not dial but waits for the peer to dial.
    pub relay_url: Option<RelayUrl>,
}

/// Why no [`Net`] could be started. A fault that may go away by itself, such as an address in use, is no
/// error here but a state: see [`Net::transport`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source gives nothing: {cause}")]
pub struct NetStartError {
    /// The cause.
    pub cause: String,
}

/// Handle to the node's network. Clones refer to the same network. When the last clone is dropped, everything
/// ends, but without waiting until the peers are told as [`Net::close`] does: a peer may notice only by the
/// idle timeout.
#[derive(Debug, Clone)]
pub struct Net {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    local: EndpointId,
    relays: Arc<Relays>,
    peers: Arc<Peers>,
    transport: Arc<Transport>,
    half_open: Arc<HalfOpen>,
    joins: Arc<Joins>,
    dropped_not_a_peer: Counter,
    links: watch::Receiver<Links>,
    tracker: TaskTracker,
    cancel: CancellationToken,
    /// Taken by [`Net::close`]. The socket is closed when its last holder is gone.
    live: Mutex<Option<Live>>,
    _guard: DropGuard,
}

/// What exists until the network is closed.
#[derive(Debug)]
struct Live {
    context: Arc<Context>,
    protocols: Arc<Protocols>,
}

impl Net {
    /// Starts the network, whether or not its address can be bound at this moment: [`Net::transport`] tells
    /// the state, and binding is tried again until it succeeds. Must be called inside a tokio runtime. There
    /// are no peers until [`Net::set_peers`] is called; until then every connection is refused.
    ///
    /// The receiver must be read. While it is full, Raft messages are dropped, and requests and snapshots
    /// wait. It ends only when the network is closed or its last handle is dropped.
    ///
    /// # Errors
    /// [`NetStartError`] when the system gives no random numbers, without which there is no handshake.
    pub fn start(config: NetConfig) -> Result<(Self, mpsc::Receiver<Incoming>), NetStartError> {
        let incarnation = getrandom::u64().map_err(|error| NetStartError { cause: error.to_string() })?;
        let (incoming, receiver) = mpsc::channel(INCOMING_QUEUE_MAX);
        let links = watch::Sender::new(BTreeMap::new());
        let cancel = CancellationToken::new();
        let shared = Shared {
            local: config.key.endpoint_id(),
            relays: Arc::new(Relays::new(config.relays, config.relay_ca)),
            peers: Arc::default(),
            transport: Arc::new(Transport::new()),
            half_open: Arc::default(),
            joins: Arc::default(),
            dropped_not_a_peer: Counter::default(),
            links: links.subscribe(),
            tracker: TaskTracker::new(),
            cancel: cancel.clone(),
            live: Mutex::new(None),
            _guard: cancel.clone().drop_guard(),
        };
        let context = Arc::new(Context {
            local: shared.local,
            incarnation,
            cluster_name: config.cluster_name,
            transport: Arc::clone(&shared.transport),
            relays: Arc::clone(&shared.relays),
            peers: Arc::clone(&shared.peers),
            half_open: Arc::clone(&shared.half_open),
            joins: Arc::clone(&shared.joins),
            incoming,
            incoming_room: Arc::new(Semaphore::new(INCOMING_RAFT_BYTES_MAX)),
            snapshot_room: snapshot_room::for_all(),
            links,
            aside: watch::Sender::new(false),
            tracker: shared.tracker.clone(),
            cancel,
        });
        let protocols = Arc::new(Protocols::new(vec![
            Box::new(LinkProtocol::new(Arc::clone(&context))),
            Box::new(JoinProtocol::new(Arc::clone(&context))),
        ]));
        let kept = keeper::keep(Arc::clone(&context), Arc::clone(&protocols), config.key, config.bind);
        shared.tracker.spawn(kept);
        *shared.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(Live { context, protocols });
        Ok((Self { shared: Arc::new(shared) }, receiver))
    }

    /// This node's identity.
    pub fn endpoint_id(&self) -> EndpointId {
        self.shared.local
    }

    /// The address that this node listens on, with the actual port; `None` while there is no endpoint.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.transport.local_addr()
    }

    /// The IP families that this node listens on; `None` while there is no endpoint.
    pub fn families(&self) -> Option<IpFamilies> {
        self.shared.transport.families()
    }

    /// The relay of its own list at which this node can be reached: the nearest one, or the first of the list
    /// until the nearest one is known. `None` without relays.
    pub fn home_relay(&self) -> Option<RelayUrl> {
        self.shared.relays.home()
    }

    /// Whether there is an endpoint, and if not, why.
    pub fn transport(&self) -> watch::Receiver<TransportState> {
        self.shared.transport.subscribe()
    }

    /// The counts so far. Cheap: each lock is held only while a few numbers are copied.
    pub fn stats(&self) -> NetStats {
        NetStats {
            peers: self.shared.peers.stats(),
            refused: self.shared.peers.refused.snapshot(),
            handshakes: self.shared.half_open.count(),
            joins: self.shared.joins.stats(),
            dropped_not_a_peer: self.shared.dropped_not_a_peer.get(),
            foreign_relays: self.shared.relays.foreign.get(),
            transport_failures: self.shared.transport.failures.get(),
            transport_rebuilds: self.shared.transport.rebuilds.get(),
        }
    }

    /// Replaces the list of peers: the nodes to keep a link with, and the only ones whose connections are
    /// accepted. A peer that is no longer in the list is cut off before this returns; what it sent before may
    /// still lie in the incoming queue. Entries of this node itself are ignored, several entries of one node
    /// are merged, and new addresses are used by the next attempt to connect. After [`Net::close`] this does
    /// nothing.
    ///
    /// An endpoint in `removed` is no peer, whether it is listed or not. It is told so, together with its
    /// text in `removed`, and sees this as [`DownReason::Removed`]. At most [`REMOVED_MAX`] texts are kept,
    /// and of each the first [`REMOVED_WORD_LEN_MAX`] bytes. Endpoints beyond that number are refused like
    /// those that are not listed.
    pub fn set_peers(&self, list: Vec<PeerConfig>, mut removed: BTreeMap<EndpointId, String>) {
        let held = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Live { context, .. }) = held.as_ref() else { return };
        let mut wanted: BTreeMap<EndpointId, Whereabouts> = BTreeMap::new();
        let kept_out = |id: &EndpointId| *id == self.shared.local || removed.contains_key(id);
        for peer in list.into_iter().filter(|peer| !kept_out(&peer.endpoint_id)) {
            let relays = self.shared.relays.for_peer(peer.endpoint_id, peer.relay_url.as_ref());
            wanted.entry(peer.endpoint_id).or_default().add(peer.addresses, relays);
        }
        bound_removed(&mut removed);
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        self.shared.peers.replace(removed.clone(), |peers| {
            peers.retain(|id, peer| {
                let stays = wanted.contains_key(id);
                if !stays {
                    peer.cut_off(removed.remove(id).map_or(Close::Unlisted, Close::Left));
                    gone.push(*id);
                }
                stays
            });
            for (id, whereabouts) in wanted {
                match peers.entry(id) {
                    Entry::Occupied(peer) => peer.get().set_whereabouts(whereabouts),
                    Entry::Vacant(place) => {
                        new.push(id);
                        let lasting = Lasting::new(context, whereabouts);
                        place.insert(peer_keeper::spawn(context, id, lasting));
                    }
                }
            }
        });
        // Not under the list's lock: somebody who has borrowed the links may ask for the list at the same
        // time. Whoever looks at the links right after this call finds the new peers. If a new peer's task
        // has already published a state, that state stays.
        if !gone.is_empty() || !new.is_empty() {
            context.links.send_modify(|links| {
                links.retain(|id, _| !gone.contains(id));
                for id in new {
                    let (since, reason) = (Instant::now(), DownReason::Starting);
                    links.entry(id).or_insert(LinkState::Down { since, reason, attempts: 0 });
                }
            });
        }
    }

    /// Ends every link and makes no new ones, because another agent with this node's key was there first; or,
    /// with `false`, makes links again. While it stands aside, this node dials only the peers that last
    /// answered with [`DownReason::HeldElsewhere`], until they answer otherwise: that tells when the other
    /// agent is gone. The state of such a peer is [`DownReason::StandsAside`] from then on if it let this
    /// node in.
    pub fn stand_aside(&self, stands_aside: bool) {
        let held = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Live { context, .. }) = held.as_ref() {
            context.aside.send_replace(stands_aside);
        }
    }

    /// Accepts requests to join the cluster `cluster` from anybody; `None`, as at the start, accepts none.
    /// When this returns, no request to join another cluster can enter the incoming queue any more; requests
    /// that are in the queue or are being answered go on. The setting also holds for an endpoint that is
    /// opened later.
    pub fn serve_joins(&self, cluster: Option<ClusterId>) {
        let changed = self.shared.joins.serve(cluster);
        let held = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = held.as_ref().filter(|_| changed) {
            live.protocols.announce(&self.shared.transport);
        }
    }

    /// Asks a member to let this node into the cluster `cluster_id`. The request is sent only after the
    /// contact has proved its key and named that cluster. `patience` bounds the whole exchange. The contact's
    /// relay is used under the same rule as a peer's ([`PeerConfig::relay_url`]).
    ///
    /// # Errors
    /// [`JoinError`]. Only with [`JoinError::Unknown`] can the request have had an effect.
    pub async fn join(
        &self,
        contact: &Contact,
        cluster_id: ClusterId,
        request: Bytes,
        patience: Duration,
    ) -> Result<Bytes, JoinError> {
        let missing = || self.shared.transport.missing().unwrap_or_else(|| "it is being opened".to_owned());
        let endpoint = self.shared.transport.endpoint();
        let endpoint = endpoint.ok_or_else(|| JoinError::NoTransport(missing()))?;
        let mut whereabouts = Whereabouts::default();
        let relays = self.shared.relays.for_peer(contact.endpoint_id, contact.relay_url.as_ref());
        whereabouts.add(contact.addresses.iter().copied(), relays);
        let families = self.shared.transport.families().ok_or_else(|| JoinError::NoTransport(missing()))?;
        let whereabouts =
            whereabouts.within(families).map_err(|why| JoinError::Unreachable(why.to_string()))?;
        join_ask::ask(endpoint, contact, whereabouts, (cluster_id, request), patience).await
    }

    /// Queues a Raft message, or drops it; never waits.
    pub fn send_raft(&self, to: EndpointId, bytes: Bytes) -> SendOutcome {
        let Some(peer) = self.shared.peers.get(&to) else {
            self.shared.dropped_not_a_peer.add(1);
            return SendOutcome::NotAPeer;
        };
        if !self.shared.transport.is_up() {
            peer.counters.no_transport.add(1);
            return SendOutcome::NoTransport;
        }
        if !peer.slot.is_up() {
            peer.counters.link_down.add(1);
            return SendOutcome::Unreachable;
        }
        peer.raft.push(bytes)
    }

    /// Queues a snapshot; never waits. The returned future always resolves: the snapshot was delivered,
    /// failed, or was lost with the link.
    pub fn send_snapshot(&self, to: EndpointId, bytes: Bytes) -> SnapshotDelivery {
        let Some(peer) = self.shared.peers.get(&to) else { return snapshot::failed(SnapshotError::NotAPeer) };
        match self.shared.transport.missing() {
            Some(why) => snapshot::failed(SnapshotError::NoTransport(why)),
            None if !peer.slot.is_up() => snapshot::failed(SnapshotError::LinkDown),
            None => snapshot::enqueue(&peer.snapshots, bytes),
        }
    }

    /// Sends a request to a peer and waits for its answer, `patience` at most. Does not wait for a link to
    /// come up.
    ///
    /// # Errors
    /// [`RequestError::NotSent`] when the peer certainly did not see the request, [`RequestError::Unknown`]
    /// otherwise.
    pub async fn request(
        &self,
        to: EndpointId,
        bytes: Bytes,
        patience: Duration,
    ) -> Result<Bytes, RequestError> {
        let (connection, shares) = self.connection(to)?;
        request::ask(&connection, &shares, bytes, patience).await
    }

    /// Sends a request whose answer may be a stream. `patience` bounds the wait for the first item. Never
    /// waits for other streamed answers to end.
    ///
    /// # Errors
    /// As [`Net::request`], and [`NotSent::TooManyStreamed`] when
    /// [`crate::limits::STREAMED_ANSWERS_PER_PEER_MAX`] streamed answers of that peer are being read.
    pub async fn request_stream(
        &self,
        to: EndpointId,
        bytes: Bytes,
        patience: Duration,
    ) -> Result<ResponseStream, RequestError> {
        let (connection, shares) = self.connection(to)?;
        request::ask_stream(&connection, &shares, bytes, patience).await
    }

    /// The state of the link to every peer in the list. Do not hold a borrow of it while you call other
    /// methods of this handle.
    pub fn links(&self) -> watch::Receiver<Links> {
        self.shared.links.clone()
    }

    /// Closes every link, tells each peer that this node stops, and waits for all tasks, a few seconds at
    /// most. The socket is closed in the background right after that.
    pub async fn close(self) {
        self.shared.cancel.cancel();
        self.shared.tracker.close();
        let live = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(live) = live else { return };
        if timeout(CLOSE_TIMEOUT, self.shared.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.shared.tracker.len(), "network tasks did not end in time");
        }
        let Some(endpoint) = live.context.transport.stop() else { return };
        if timeout(CLOSE_TIMEOUT, endpoint.close()).await.is_err() {
            tracing::warn!("peers did not confirm the end of their links in time");
        }
    }

    /// For tests that abort a peer's task.
    #[cfg(test)]
    pub(crate) fn peer(&self, id: &EndpointId) -> Option<crate::admission::peers::PeerHandle> {
        self.shared.peers.get(id)
    }

    /// For tests that look at the list of peers.
    #[cfg(test)]
    pub(crate) fn peers(&self) -> &Peers {
        &self.shared.peers
    }

    /// For tests that close the endpoint.
    #[cfg(test)]
    pub(crate) fn endpoint(&self) -> Option<iroh::Endpoint> {
        self.shared.transport.endpoint()
    }

    /// The current connection to a peer, and the peer's stream shares.
    fn connection(&self, to: EndpointId) -> Result<(Connection, Arc<StreamShares>), NotSent> {
        let peer = self.shared.peers.get(&to).ok_or(NotSent::NotAPeer)?;
        if let Some(why) = self.shared.transport.missing() {
            return Err(NotSent::NoTransport(why));
        }
        Ok((peer.slot.get().ok_or(NotSent::LinkDown)?, peer.shares))
    }
}

/// Truncates the texts, and drops the entries beyond [`REMOVED_MAX`].
fn bound_removed(removed: &mut BTreeMap<EndpointId, String>) {
    while removed.len() > REMOVED_MAX {
        removed.pop_last();
    }
    for word in removed.values_mut() {
        word.truncate(word.floor_char_boundary(REMOVED_WORD_LEN_MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::testing::{LONG, node};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn stats_can_be_read_while_links_are_borrowed_and_the_list_changes() {
        let (here, there) = (node().await, node().await);
        let ((looks, looking), (done, ended)) = (mpsc::channel(), mpsc::channel());
        let net = here.net.clone();
        let looker = std::thread::spawn(move || {
            let links = net.links();
            let _look = links.borrow();
            looks.send(()).expect("awaited");
            // Long enough for the change of the list, which waits until this borrow ends.
            for _ in 0..50 {
                net.stats();
                std::thread::park_timeout(Duration::from_millis(2));
            }
            done.send(()).expect("awaited");
        });
        looking.recv_timeout(LONG).expect("looks");
        let changed = here.net.clone();
        let peer = vec![there.as_peer()];
        // Not a task of the runtime, because the end of the runtime would wait for a task that is stuck.
        let runtime = tokio::runtime::Handle::current();
        let changer = std::thread::spawn(move || {
            let _entered = runtime.enter();
            changed.set_peers(peer, BTreeMap::new());
        });
        ended.recv_timeout(LONG).expect("neither waits for the other");
        looker.join().expect("looked");
        changer.join().expect("changed");
        assert_eq!(here.net.links().borrow().len(), 1);
    }

    #[test]
    fn texts_about_removed_endpoints_are_bounded() {
        let id = |n: usize| EndpointId::from_bytes([u8::try_from(n % 251).expect("small"); 32]);
        let mut removed: BTreeMap<EndpointId, String> =
            (0..251).map(|n| (id(n), "\u{e4}".repeat(33))).collect();
        bound_removed(&mut removed);
        assert!(removed.len() == 251 && removed.values().all(|word| *word == "\u{e4}".repeat(32)));
        let odd = format!("x{}", "\u{e4}".repeat(32));
        let ids = (0..REMOVED_MAX + 9).map(|n| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            EndpointId::from_bytes(bytes)
        });
        let mut removed: BTreeMap<EndpointId, String> = ids.map(|id| (id, odd.clone())).collect();
        bound_removed(&mut removed);
        assert!(removed.len() == REMOVED_MAX && removed.values().all(|word| word.len() == 63));
    }
}
