//! Nodes for tests: real endpoints, and raw endpoints that behave as no node of ours does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use blixard_model::{ClusterId, Contact, EndpointId};
use blixard_net::{
    DownReason, Incoming, LinkState, Net, NetConfig, NetStats, NodeKey, PeerConfig, RelayCa, RelayList,
    TransportState,
};
use bytes::Bytes;
use iroh::endpoint::{
    Connection, QuicTransportConfig, QuicTransportConfigBuilder, RecvStream, SendStream, VarInt, presets,
};
use iroh::{Endpoint, EndpointAddr, PublicKey, SecretKey};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine: a test that waits this long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// The pause between two looks at a value that tells nobody when it changes.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) net: Net,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("address")
}

pub(crate) async fn node() -> Node {
    node_with(NodeKey::generate(), any_port(), "lab").await
}

pub(crate) async fn node_with(key: NodeKey, bind: SocketAddr, cluster: &str) -> Node {
    let node = start(key, bind, cluster);
    node.until_listening().await;
    node
}

/// A node that may be unable to listen.
pub(crate) fn start(key: NodeKey, bind: SocketAddr, cluster: &str) -> Node {
    start_with(key, bind, cluster, (RelayList::default(), None))
}

/// A node with relays of its own.
pub(crate) fn start_with(
    key: NodeKey,
    bind: SocketAddr,
    cluster: &str,
    (relays, relay_ca): (RelayList, Option<RelayCa>),
) -> Node {
    let cluster_name = cluster.parse().expect("cluster name");
    let config = NetConfig { key: key.clone(), bind, cluster_name, relays, relay_ca };
    let (net, incoming) = Net::start(config).expect("random numbers");
    Node { key, net, incoming }
}

/// A node on an address that another node has just left. The other node's socket is closed in the background,
/// so the address may still be in use for a moment.
pub(crate) async fn node_on_freed(key: NodeKey, bind: SocketAddr) -> Node {
    let freed = async {
        while std::net::UdpSocket::bind(bind).is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, freed).await.expect("the socket is closed");
    node_with(key, bind, "lab").await
}

/// Two nodes that know each other and have a link.
pub(crate) async fn pair() -> (Node, Node) {
    let (a, b) = (node().await, node().await);
    a.set_peers(vec![b.as_peer()]);
    b.set_peers(vec![a.as_peer()]);
    a.until_up(b.id()).await;
    b.until_up(a.id()).await;
    (a, b)
}

impl Node {
    pub(crate) fn id(&self) -> EndpointId {
        self.net.endpoint_id()
    }

    /// The address that the node listens on.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.net.local_addr().expect("it listens")
    }

    pub(crate) fn as_peer(&self) -> PeerConfig {
        PeerConfig { endpoint_id: self.id(), addresses: vec![self.addr()], relay_url: None }
    }

    pub(crate) fn as_contact(&self) -> Contact {
        Contact { endpoint_id: self.id(), addresses: vec![self.addr()], relay_url: None }
    }

    /// Sets the list of peers, with no removed endpoints.
    pub(crate) fn set_peers(&self, list: Vec<PeerConfig>) {
        self.net.set_peers(list, BTreeMap::new());
    }

    pub(crate) async fn until_listening(&self) {
        self.until_transport("up", TransportState::is_up).await;
    }

    pub(crate) async fn until_transport(
        &self,
        what: &str,
        wanted: impl Fn(&TransportState) -> bool,
    ) -> TransportState {
        let mut transport = self.net.transport();
        match timeout(LONG, transport.wait_for(&wanted)).await {
            Ok(state) => state.expect("not closed").clone(),
            Err(_) => panic!("transport did not become {what}: {:?}", self.net.transport().borrow()),
        }
    }

    /// Looks at the counts until `wanted` holds.
    pub(crate) async fn until_stats(&self, what: &str, wanted: impl Fn(&NetStats) -> bool) -> NetStats {
        let begun = Instant::now();
        // Some counts take seconds; looking without a pause would take a whole processor from those that
        // work.
        let mut looks = tokio::time::interval(LOOK_PERIOD);
        loop {
            looks.tick().await;
            let stats = self.net.stats();
            if wanted(&stats) {
                return stats;
            }
            assert!(begun.elapsed() < LONG, "counts did not become {what}: {stats:?}");
        }
    }

    pub(crate) async fn until_up(&self, peer: EndpointId) -> LinkState {
        self.until(peer, "up", LinkState::is_up).await
    }

    pub(crate) async fn until_down(&self, peer: EndpointId) -> DownReason {
        match self.until(peer, "down", |state| !state.is_up()).await {
            LinkState::Down { reason, .. } => reason,
            LinkState::Up { .. } => unreachable!("waited for down"),
        }
    }

    pub(crate) async fn until(
        &self,
        peer: EndpointId,
        what: &str,
        wanted: impl Fn(&LinkState) -> bool,
    ) -> LinkState {
        let mut links = self.net.links();
        let found = timeout(LONG, links.wait_for(|links| links.get(&peer).is_some_and(&wanted))).await;
        match found {
            Ok(links) => links.expect("endpoint is open").get(&peer).expect("known").clone(),
            Err(_) => panic!("link did not become {what}: {:?}", self.net.links().borrow().get(&peer)),
        }
    }

    pub(crate) async fn until_refused(&self, peer: EndpointId) -> String {
        let refused =
            |state: &LinkState| matches!(state, LinkState::Down { reason: DownReason::Refused(_), .. });
        match self.until(peer, "refused", refused).await {
            LinkState::Down { reason: DownReason::Refused(why), .. } => why,
            other => unreachable!("waited for a refusal: {other:?}"),
        }
    }

    pub(crate) async fn next(&mut self) -> Incoming {
        timeout(LONG, self.incoming.recv()).await.expect("something arrives in time").expect("open")
    }

    /// The next Raft message and its sender.
    pub(crate) async fn next_raft(&mut self) -> (EndpointId, Bytes) {
        match self.next().await {
            Incoming::Raft { from, bytes } => (from, bytes),
            other => panic!("expected a Raft message, got {other:?}"),
        }
    }

    /// The next request.
    pub(crate) async fn next_request(&mut self) -> (EndpointId, Bytes, blixard_net::Reply) {
        match self.next().await {
            Incoming::Request { from, bytes, reply } => (from, bytes, reply),
            other => panic!("expected a request, got {other:?}"),
        }
    }

    /// Answers every request with its own bytes, until the node is closed.
    pub(crate) fn spawn_echo(self) -> (Net, tokio::task::JoinHandle<()>) {
        let Self { net, mut incoming, .. } = self;
        let task = tokio::spawn(async move {
            while let Some(message) = incoming.recv().await {
                if let Incoming::Request { bytes, reply, .. } = message {
                    reply.send(bytes);
                }
            }
        });
        (net, task)
    }
}

/// The name of the join protocol in the handshake.
pub(crate) const JOIN_ALPN: &[u8] = b"blixard-join/1";

/// A raw endpoint: it does the handshake with any key, and after that whatever a test likes.
pub(crate) struct Raw {
    pub(crate) endpoint: Endpoint,
}

impl Raw {
    pub(crate) async fn new() -> Self {
        Self::on(any_port()).await
    }

    pub(crate) async fn on(bind: SocketAddr) -> Self {
        Self::with(bind, QuicTransportConfig::builder()).await
    }

    /// A raw endpoint that allows the other side `most` bidirectional streams.
    pub(crate) async fn with_streams(most: u32) -> Self {
        let transport = QuicTransportConfig::builder().max_concurrent_bidi_streams(VarInt::from_u32(most));
        Self::with(any_port(), transport).await
    }

    async fn with(bind: SocketAddr, transport: QuicTransportConfigBuilder) -> Self {
        let endpoint = Endpoint::builder(presets::Minimal)
            .transport_config(transport.build())
            .secret_key(SecretKey::generate())
            .alpns(vec![b"blixard/1".to_vec(), JOIN_ALPN.to_vec()])
            .clear_ip_transports()
            .bind_addr(bind)
            .expect("address")
            .bind()
            .await
            .expect("bind");
        Self { endpoint }
    }

    pub(crate) fn id(&self) -> EndpointId {
        EndpointId::from_bytes(*self.endpoint.id().as_bytes())
    }

    /// This endpoint in a node's list, with no address: the node accepts it and does not dial it.
    pub(crate) fn as_peer(&self) -> PeerConfig {
        PeerConfig { endpoint_id: self.id(), addresses: Vec::new(), relay_url: None }
    }

    pub(crate) async fn dial(&self, node: &Node) -> Connection {
        self.dial_as(node, b"blixard/1").await.expect("connect")
    }

    pub(crate) async fn dial_as(
        &self,
        node: &Node,
        alpn: &[u8],
    ) -> Result<Connection, iroh::endpoint::ConnectError> {
        let key = PublicKey::from_bytes(node.id().as_bytes()).expect("key");
        let address = EndpointAddr::new(key).with_ip_addr(node.addr());
        self.endpoint.connect(address, alpn).await
    }

    /// Connects and says a proper hello.
    pub(crate) async fn link(&self, node: &Node) -> (Connection, SendStream, RecvStream) {
        let connection = self.dial(node).await;
        let (mut send, mut receive) = connection.open_bi().await.expect("stream");
        send.write_all(&hello(1, "lab")).await.expect("hello");
        let mut welcome = [0; 4];
        receive.read_exact(&mut welcome).await.expect("welcome");
        (connection, send, receive)
    }
}

/// A hello in the form in which it is sent.
pub(crate) fn hello(version: u32, cluster: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"version":{version},"cluster_name":"{cluster}","incarnation":7,"dial":1,"accepted":null}}"#
    );
    frame(text.as_bytes())
}

/// Bytes with their length before them.
pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(bytes.len()).expect("short").to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    frame
}

/// The reason with which a node closed a connection.
pub(crate) async fn closed_with(connection: &Connection) -> String {
    match timeout(LONG, connection.closed()).await.expect("closed in time") {
        iroh::endpoint::ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        other => panic!("not closed by the node: {other}"),
    }
}

pub(crate) fn ms(since: Instant) -> u128 {
    since.elapsed().as_millis()
}

/// The first message of a node on a join, in the form in which it is sent.
pub(crate) fn named(version: u32, cluster: ClusterId) -> Vec<u8> {
    frame(format!(r#"{{"version":{version},"cluster_id":"{cluster}","cluster_name":"lab"}}"#).as_bytes())
}
