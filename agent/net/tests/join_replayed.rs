//! A recording of a join is sent again: somebody who listens on the way gets nothing that admits anybody.

use std::net::SocketAddr;
use std::sync::Arc;

use blixard_model::{ClusterId, Contact};
use blixard_net::Incoming;
use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::JoinHandle;

use crate::support::{LONG, Node, any_port, node};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
/// Longer than the rest of the handshake, so that the length of the recording shows that the request is in
/// it.
const REQUEST: Bytes = Bytes::from_static(&[7; 7 << 10]);

/// Forwards packets between a joiner and a node, and records what the joiner sends.
struct Tap {
    address: SocketAddr,
    back: Arc<UdpSocket>,
    task: JoinHandle<Vec<Vec<u8>>>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Tap {
    async fn before(node: SocketAddr) -> Self {
        let front = UdpSocket::bind(any_port()).await.expect("socket");
        let back = Arc::new(UdpSocket::bind(any_port()).await.expect("socket"));
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let (address, behind) = (front.local_addr().expect("bound"), back.clone());
        let task = tokio::spawn(async move {
            let (mut captured, mut joiner) = (Vec::new(), None);
            let (mut there, mut here) = (vec![0; 1 << 16], vec![0; 1 << 16]);
            loop {
                tokio::select! {
                    Ok((len, from)) = front.recv_from(&mut there) => {
                        joiner = Some(from);
                        captured.push(there[..len].to_vec());
                        behind.send_to(&there[..len], node).await.expect("sent");
                    }
                    Ok((len, _)) = behind.recv_from(&mut here) => {
                        let Some(joiner) = joiner else { continue };
                        front.send_to(&here[..len], joiner).await.expect("sent");
                    }
                    _ = &mut stopped => return captured,
                }
            }
        });
        Self { address, back, task, stop }
    }

    /// The recording, and the socket that the node took for the joiner's.
    async fn end(self) -> (Vec<Vec<u8>>, Arc<UdpSocket>) {
        self.stop.send(()).expect("it runs");
        (self.task.await.expect("captured"), self.back)
    }
}

/// Asks to join by way of this address, and is admitted.
async fn joined(joiner: &Node, a: &mut Node, address: SocketAddr) {
    let contact = Contact { addresses: vec![address], ..a.as_contact() };
    let asked = joiner.net.join(&contact, CLUSTER, REQUEST, LONG);
    let answered = async {
        let Incoming::Join { from, bytes, reply, .. } = a.next().await else { panic!("expected a join") };
        assert_eq!((from, bytes), (joiner.id(), REQUEST));
        reply.send(Bytes::from_static(b"come in"));
    };
    assert_eq!(tokio::join!(asked, answered).0, Ok(Bytes::from_static(b"come in")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_join_that_is_sent_again_does_not_join_again() {
    let (mut a, joiner, other) = (node().await, node().await, node().await);
    a.net.serve_joins(Some(CLUSTER));
    let tap = Tap::before(a.addr()).await;
    joined(&joiner, &mut a, tap.address).await;
    let (captured, back) = tap.end().await;
    let len: usize = captured.iter().map(Vec::len).sum();
    assert!(len > REQUEST.len(), "the request went through the tap: {len} bytes of {}", captured.len());
    let in_clear = |datagram: &Vec<u8>| datagram.windows(64).any(|window| window == &REQUEST[..64]);
    assert!(!captured.iter().any(in_clear), "nobody on the way can read it");

    // From the same address, as somebody who can forge addresses would, and from another one.
    let elsewhere = UdpSocket::bind(any_port()).await.expect("socket");
    for from in [&*back, &elsewhere, &*back] {
        for datagram in &captured {
            from.send_to(datagram, a.addr()).await.expect("sent");
        }
    }
    // Datagrams are processed in their order: once a join that came after the recording is answered, the
    // recording was processed.
    let address = a.addr();
    joined(&other, &mut a, address).await;
    assert_eq!(a.net.stats().joins.requests, 2, "the joiner's and the other's");
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
}
