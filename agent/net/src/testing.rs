//! Nodes for tests that need the crate's internals, and a capture of what the nodes log.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use blixard_model::Contact;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

use crate::{Incoming, LinkState, Net, NetConfig, NodeKey, PeerConfig, RelayList, SendOutcome};

pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct TestNode {
    pub(crate) net: Net,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
}

pub(crate) async fn node() -> TestNode {
    let bind = "127.0.0.1:0".parse().expect("address");
    let cluster_name = "lab".parse().expect("name");
    let config = NetConfig {
        key: NodeKey::generate(),
        bind,
        cluster_name,
        relays: RelayList::default(),
        relay_ca: None,
    };
    let (net, incoming) = Net::start(config).expect("random numbers");
    let mut transport = net.transport();
    let up = timeout(LONG, transport.wait_for(crate::TransportState::is_up)).await;
    assert!(up.is_ok_and(|state| state.is_ok()), "it listens");
    TestNode { net, incoming }
}

impl TestNode {
    pub(crate) fn as_peer(&self) -> PeerConfig {
        PeerConfig {
            endpoint_id: self.net.endpoint_id(),
            addresses: self.net.local_addr().into_iter().collect(),
            relay_url: None,
        }
    }

    pub(crate) fn as_contact(&self) -> Contact {
        let PeerConfig { endpoint_id, addresses, relay_url } = self.as_peer();
        Contact { endpoint_id, addresses, relay_url }
    }

    /// Sets the list of peers, with no removed endpoints.
    pub(crate) fn set_peers(&self, list: Vec<PeerConfig>) {
        self.net.set_peers(list, BTreeMap::new());
    }

    pub(crate) async fn until(&self, peer: &Self, what: &str, wanted: impl Fn(&LinkState) -> bool) {
        let id = peer.net.endpoint_id();
        let mut links = self.net.links();
        let seen = timeout(LONG, links.wait_for(|links| links.get(&id).is_some_and(&wanted))).await;
        assert!(seen.is_ok_and(|links| links.is_ok()), "{what}: {:?}", self.net.links().borrow());
    }

    /// Sends a message and waits until it arrives; drops everything that arrives before it.
    pub(crate) async fn reaches(&self, peer: &mut Self, word: &'static [u8]) {
        assert_eq!(self.net.send_raft(peer.net.endpoint_id(), Bytes::from_static(word)), SendOutcome::Queued);
        let arrived = async {
            while let Some(message) = peer.incoming.recv().await {
                if matches!(message, Incoming::Raft { bytes, .. } if bytes == word) {
                    return true;
                }
            }
            false
        };
        assert!(timeout(LONG, arrived).await.is_ok_and(|arrived| arrived), "arrives");
    }
}

pub(crate) async fn pair() -> (TestNode, TestNode) {
    let (a, b) = (node().await, node().await);
    a.set_peers(vec![b.as_peer()]);
    b.set_peers(vec![a.as_peer()]);
    a.until(&b, "up", LinkState::is_up).await;
    b.until(&a, "up", LinkState::is_up).await;
    (a, b)
}

/// What this crate logs on the test's own thread.
#[derive(Clone, Default)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    pub(crate) fn start() -> (Self, DefaultGuard) {
        // While the process has one subscriber only, tracing asks the subscriber of the thread that first
        // reaches a log line whether the line is wanted, and keeps the answer for all threads. A thread of
        // another test has no subscriber, and the line would then be lost here.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(tracing_subscriber::registry()));
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("blixard_net=trace")
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn lines(&self, level: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("whole").clone()).expect("text");
        let of_level = |line: &&str| line.split_whitespace().nth(1) == Some(level);
        text.lines().filter(of_level).map(str::to_owned).collect()
    }
}

impl io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
