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

/// What an endpoint needs to start.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// This node's identity.
    pub key: NodeKey,
    /// The UDP address to listen on; port 0 takes any free one. An unspecified address, `0.0.0.0` or `::`,
    /// stands for both IP families as far as the machine has them.
    pub bind: SocketAddr,
    /// Only peers that say the same name are accepted.
    pub cluster_name: ClusterName,
    /// The relays that this node uses, and the only ones; with none of them there is no relaying at all.
    pub relays: RelayList,
    /// Who vouches for them instead of the public authorities.
    pub relay_ca: Option<RelayCa>,
}

/// A node to keep a link with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its identity.
    pub endpoint_id: EndpointId,
    /// Where it may be reached; all are tried at once.
    pub addresses: Vec<SocketAddr>,
    /// The relay that it says it is found at. One that is in this node's own list is tried beside the
    /// addresses, with the others of the list; any other is not used. With neither an address nor a relay the
    /// node waits to be dialled.
    pub relay_url: Option<RelayUrl>,
}

/// Why there is no [`Net`]: nothing that could mend itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source gives nothing: {cause}")]
pub struct NetStartError {
    /// The cause.
    pub cause: String,
}

/// Handle to the node's network. Clones share it; when the last is dropped everything ends (without the
/// courtesy of [`Net::close`]: peers then notice only by the idle timeout).
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
    /// Taken by `close`: the socket is free once nobody holds it.
    live: Mutex<Option<Live>>,
    _guard: DropGuard,
}

/// What there is until the network is closed.
#[derive(Debug)]
struct Live {
    context: Arc<Context>,
    protocols: Arc<Protocols>,
}

impl Net {
    /// Starts the network, whether or not its address can be listened on at this moment: [`Net::transport`]
    /// says so, and attempts go on until it can. Must be called inside a tokio runtime. Peers are set by
    /// [`Net::set_peers`]; until then everybody is refused.
    ///
    /// The receiver must be read: while it is full, Raft messages are dropped, and requests and snapshots
    /// wait. It ends with [`Net::close`] and not before.
    ///
    /// # Errors
    /// [`NetStartError`]: there are no random numbers, without which there is no handshake.
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

    /// The address that is listened on, with the port that was taken; `None` while there is none.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.shared.transport.local_addr()
    }

    /// The IP families that this node hears; `None` while it listens on nothing.
    pub fn families(&self) -> Option<IpFamilies> {
        self.shared.transport.families()
    }

    /// The relay of its own list that this node is found at: the nearest one, and until that is known the
    /// first. `None` without relays.
    pub fn home_relay(&self) -> Option<RelayUrl> {
        self.shared.relays.home()
    }

    /// Whether there is an endpoint, and why not.
    pub fn transport(&self) -> watch::Receiver<TransportState> {
        self.shared.transport.subscribe()
    }

    /// What was counted so far. Cheap: no lock is held for longer than it takes to copy a few numbers.
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

    /// Replaces the list of peers: whom to keep a link with, and the only ones who are let in. A peer that is
    /// not in it any more is cut off before this returns (what it sent before may still lie in the incoming
    /// queue). Entries of this node itself are ignored, several of one node are taken together, new addresses
    /// are used by the next attempt to connect. After [`Net::close`] nothing happens.
    ///
    /// An endpoint in `removed` is no peer, listed or not. It is told so with its word and sees it as
    /// [`DownReason::Removed`]. Words are kept for [`REMOVED_MAX`] of them, the first
    /// [`REMOVED_WORD_LEN_MAX`] bytes of each; the others are refused as those are that nobody lists.
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
        // Apart from the list's lock: who looks at the links may ask for the list meanwhile. Whoever looks
        // right after this call finds the new peers, and one whose task was faster keeps what it said.
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

    /// Ends every link and makes no other, because another agent runs with this node's key and was there
    /// first; or makes them again. Only those peers are dialled meanwhile that say so
    /// ([`DownReason::HeldElsewhere`]): what they say next tells when that is over.
    pub fn stand_aside(&self, stands_aside: bool) {
        let held = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Live { context, .. }) = held.as_ref() {
            context.aside.send_replace(stands_aside);
        }
    }

    /// Takes requests to join the cluster of that id from anybody, or takes none any more, as at the start.
    /// When this returns, no request to join another cluster comes into the incoming queue any more; those
    /// that are in it, or being answered, go on. It lasts while the endpoint is opened again.
    pub fn serve_joins(&self, cluster: Option<ClusterId>) {
        let changed = self.shared.joins.serve(cluster);
        let held = self.shared.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = held.as_ref().filter(|_| changed) {
            live.protocols.announce(&self.shared.transport);
        }
    }

    /// Asks a member to let this node into the cluster of that id. The request is sent only when the
    /// contact's key was proved and it named that cluster; `patience` is for all of it. The
    /// contact's relay is used as a peer's is ([`PeerConfig::relay_url`]).
    ///
    /// # Errors
    /// [`JoinError`]; only with [`JoinError::Unknown`] can the request have been acted upon.
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

    /// Sends a Raft message, or drops it; never waits.
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

    /// Sends a snapshot; never waits. The result resolves in any case: delivered, failed, or lost with the
    /// link.
    pub fn send_snapshot(&self, to: EndpointId, bytes: Bytes) -> SnapshotDelivery {
        let Some(peer) = self.shared.peers.get(&to) else { return snapshot::failed(SnapshotError::NotAPeer) };
        match self.shared.transport.missing() {
            Some(why) => snapshot::failed(SnapshotError::NoTransport(why)),
            None if !peer.slot.is_up() => snapshot::failed(SnapshotError::LinkDown),
            None => snapshot::enqueue(&peer.snapshots, bytes),
        }
    }

    /// Asks a peer and waits for its answer, `patience` at most. Does not wait for a link.
    ///
    /// # Errors
    /// [`RequestError::NotSent`] when the peer certainly did not see it, [`RequestError::Unknown`] otherwise.
    pub async fn request(
        &self,
        to: EndpointId,
        bytes: Bytes,
        patience: Duration,
    ) -> Result<Bytes, RequestError> {
        let (connection, shares) = self.connection(to)?;
        request::ask(&connection, &shares, bytes, patience).await
    }

    /// Asks a peer for a streamed answer; the patience is for its beginning. Never waits for other streamed
    /// answers to end.
    ///
    /// # Errors
    /// As [`Net::request`]; [`NotSent::TooManyStreamed`] when
    /// [`crate::limits::STREAMED_ANSWERS_PER_PEER_MAX`] of that peer are being read.
    pub async fn request_stream(
        &self,
        to: EndpointId,
        bytes: Bytes,
        patience: Duration,
    ) -> Result<ResponseStream, RequestError> {
        let (connection, shares) = self.connection(to)?;
        request::ask_stream(&connection, &shares, bytes, patience).await
    }

    /// The state of the link to every peer in the list. Not to be borrowed while anything else is asked of
    /// this handle.
    pub fn links(&self) -> watch::Receiver<Links> {
        self.shared.links.clone()
    }

    /// Closes every link with a word to the peer and waits for all tasks; at most a few seconds. The socket
    /// is closed in the background right after it.
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

    /// For tests that let a peer's task die.
    #[cfg(test)]
    pub(crate) fn peer(&self, id: &EndpointId) -> Option<crate::admission::peers::PeerHandle> {
        self.shared.peers.get(id)
    }

    /// For tests that look at the list.
    #[cfg(test)]
    pub(crate) fn peers(&self) -> &Peers {
        &self.shared.peers
    }

    /// For tests that let the endpoint end.
    #[cfg(test)]
    pub(crate) fn endpoint(&self) -> Option<iroh::Endpoint> {
        self.shared.transport.endpoint()
    }

    /// The link of the moment to a peer, and its shares.
    fn connection(&self, to: EndpointId) -> Result<(Connection, Arc<StreamShares>), NotSent> {
        let peer = self.shared.peers.get(&to).ok_or(NotSent::NotAPeer)?;
        if let Some(why) = self.shared.transport.missing() {
            return Err(NotSent::NoTransport(why));
        }
        Ok((peer.slot.get().ok_or(NotSent::LinkDown)?, peer.shares))
    }
}

/// Cuts the words, and drops those there is no room for.
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
    async fn whoever_looks_at_the_links_may_ask_about_the_peers_while_the_list_changes() {
        let (here, there) = (node().await, node().await);
        let ((looks, looking), (done, ended)) = (mpsc::channel(), mpsc::channel());
        let net = here.net.clone();
        let looker = std::thread::spawn(move || {
            let links = net.links();
            let _look = links.borrow();
            looks.send(()).expect("awaited");
            // Long enough for the list to be changed, which waits for this look.
            for _ in 0..50 {
                net.stats();
                std::thread::park_timeout(Duration::from_millis(2));
            }
            done.send(()).expect("awaited");
        });
        looking.recv_timeout(LONG).expect("looks");
        let changed = here.net.clone();
        let peer = vec![there.as_peer()];
        // No task of the runtime: its end would wait for one that is stuck.
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
    fn words_about_removed_endpoints_are_bounded() {
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
