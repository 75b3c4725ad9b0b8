//! A peer that behaves as no real node does: until it is killed, it keeps connections open on which it never
//! says hello, and streams on which bytes trickle.
//!
//! `hostile_peer --target IP:PORT --id ENDPOINT_ID [--bind IP:PORT] [--key FILE --cluster NAME] [--idle N]
//! [--slow M]`. With the key of a member it passes the handshake; without one it is refused there. It prints
//! one line, `ready: ...`, when every connection and stream was held or refused once.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use iroh::endpoint::{Connection, presets};
use iroh::{Endpoint, EndpointAddr, PublicKey, SecretKey};
use tokio::time::{sleep, timeout};

const ALPN: &[u8] = b"blixard/1";
/// First byte of a request's stream.
const REQUEST: u8 = 2;
const IDLE_DEFAULT: usize = 1000;
const SLOW_DEFAULT: usize = 50;
/// Time between two bytes of a slow stream.
const TRICKLE: Duration = Duration::from_secs(10);
/// Time before a connection that ended is made again.
const AGAIN: Duration = Duration::from_secs(5);
/// A connection or stream that takes longer than this to open counts as refused.
const PATIENCE: Duration = Duration::from_secs(10);

type PeerFailure = Box<dyn Error + Send + Sync>;

/// What all tasks of this program share.
struct Attack {
    endpoint: Endpoint,
    target: EndpointAddr,
    cluster: String,
    held: AtomicUsize,
    refused: AtomicUsize,
}

#[tokio::main]
async fn main() -> Result<(), PeerFailure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options: BTreeMap<&str, &str> =
        words.chunks_exact(2).map(|pair| (pair[0].trim_start_matches("--"), &*pair[1])).collect();
    let option = |name: &str| options.get(name).copied();
    let count = |name: &str, default| option(name).map_or(Ok(default), str::parse);
    let (idle, slow) = (count("idle", IDLE_DEFAULT)?, count("slow", SLOW_DEFAULT)?);
    let target: SocketAddr = option("target").ok_or("--target IP:PORT is missing")?.parse()?;
    let id: PublicKey = option("id").ok_or("--id ENDPOINT_ID is missing")?.parse()?;
    let key = match option("key") {
        Some(path) => std::fs::read_to_string(path)?.trim().parse()?,
        None => SecretKey::generate(),
    };
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .clear_ip_transports()
        .bind_addr(option("bind").unwrap_or("0.0.0.0:0"))?
        .bind()
        .await?;
    let attack = Arc::new(Attack {
        endpoint,
        target: EndpointAddr::new(id).with_ip_addr(target),
        cluster: option("cluster").unwrap_or("blixard").to_owned(),
        held: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
    });
    // The slow streams come first, while the target still accepts connections from this address.
    tokio::spawn(trickle_all(Arc::clone(&attack), slow));
    attack.counted(slow).await;
    for _ in 0..idle {
        tokio::spawn(stay_silent(Arc::clone(&attack)));
    }
    let (held, refused) = attack.counted(slow + idle).await;
    println!("ready: {held} held, {refused} refused");
    std::future::pending().await
}

impl Attack {
    /// Connects; `None` when the connection is refused.
    async fn connect(&self) -> Option<Connection> {
        let dialled = self.endpoint.connect(self.target.clone(), ALPN);
        timeout(PATIENCE, dialled).await.ok()?.ok()
    }

    /// Waits until `total` connections and streams were held or refused; returns how many of each.
    async fn counted(&self, total: usize) -> (usize, usize) {
        loop {
            let (held, refused) = (self.held.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
            if held + refused >= total {
                return (held, refused);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn count(&self, held: bool) {
        let counter = if held { &self.held } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Holds a connection that says nothing, and makes another one when it is closed.
async fn stay_silent(attack: Arc<Attack>) {
    let mut counted = false;
    loop {
        let connection = attack.connect().await;
        if !std::mem::replace(&mut counted, true) {
            attack.count(connection.is_some());
        }
        if let Some(connection) = connection {
            connection.closed().await;
        }
        sleep(AGAIN).await;
    }
}

/// Holds a proper link with `count` slow streams on it, and makes another one when it is lost.
async fn trickle_all(attack: Arc<Attack>, count: usize) {
    let mut counted = false;
    loop {
        let link = timeout(PATIENCE, link(&attack)).await;
        let is_first = !std::mem::replace(&mut counted, true);
        if let Ok(Ok((connection, _raft))) = &link {
            for _ in 0..count {
                tokio::spawn(trickle(Arc::clone(&attack), connection.clone(), is_first));
            }
            connection.closed().await;
        } else if is_first {
            (0..count).for_each(|_| attack.count(false));
        }
        sleep(AGAIN).await;
    }
}

/// Connects, says hello and opens the stream of Raft messages.
async fn link(attack: &Attack) -> Result<(Connection, iroh::endpoint::SendStream), PeerFailure> {
    let connection = attack.connect().await.ok_or("not let in")?;
    let hello = format!(
        r#"{{"version":1,"cluster_name":"{}","incarnation":1,"dial":1,"accepted":null}}"#,
        attack.cluster
    );
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&u32::try_from(hello.len())?.to_be_bytes()).await?;
    send.write_all(hello.as_bytes()).await?;
    send.finish()?;
    receive.read_to_end(1024).await?;
    let mut raft = connection.open_uni().await?;
    raft.write_all(&[1]).await?;
    Ok((connection, raft))
}

/// Sends one byte of a request's frame now and then; opens another stream when the target gives this one up.
async fn trickle(attack: Arc<Attack>, connection: Connection, mut counts: bool) {
    while connection.close_reason().is_none() {
        let opened = timeout(PATIENCE, connection.open_bi()).await;
        if std::mem::take(&mut counts) {
            attack.count(matches!(opened, Ok(Ok(_))));
        }
        let Ok(Ok((mut send, mut receive))) = opened else { continue };
        let mut byte = REQUEST;
        while send.write_all(&[byte]).await.is_ok() {
            byte = 0;
            if timeout(TRICKLE, receive.read_to_end(1 << 16)).await.is_ok() {
                break;
            }
        }
    }
}
