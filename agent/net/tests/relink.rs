//! Links that are lost and come back.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use blixard_net::{LinkState, NodeKey, PeerConfig, SendOutcome};
use bytes::Bytes;

use crate::support::{LONG, Node, any_port, ms, node, node_on_freed, node_with, pair};

/// Environment variable that tells a child process what to do.
const CHILD: &str = "BLIXARD_NET_TEST_CHILD";

/// A node in a process of its own, so that it can be killed.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(key_file: &std::path::Path, bind: SocketAddr, peer: &PeerConfig) -> Self {
        let order = format!("{} {bind} {} {}", key_file.display(), peer.endpoint_id, peer.addresses[0]);
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "relink::child", "--nocapture"])
            .env(CHILD, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("LISTENING ").and_then(|(_, text)| text.trim().parse().ok()))
            .expect("the child listens");
        Self { child, address }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().expect("kill");
        assert!(sent.success());
    }

    fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("reap");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The test may have killed it already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test but the program of [`Process`]: it does nothing unless [`CHILD`] tells it what. Echoes requests
/// until it is killed or its parent is gone.
#[test]
fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    std::thread::spawn(|| {
        // Nothing is ever written to this pipe, so the read ends with the parent.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let words: Vec<&str> = order.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let key = NodeKey::load(words[0].as_ref(), None).expect("key");
        let node = node_with(key, words[1].parse().expect("address"), "lab").await;
        node.set_peers(vec![PeerConfig {
            endpoint_id: words[2].parse().expect("id"),
            addresses: vec![words[3].parse().expect("address")],
            relay_url: None,
        }]);
        println!("\nLISTENING {}", node.addr());
        let (_net, echo) = node.spawn_echo();
        echo.await.expect("echo");
    });
}

async fn echoes(node: &Node, peer: &NodeKey) {
    let word = Bytes::from_static(b"echo");
    assert_eq!(node.net.request(peer.endpoint_id(), word.clone(), LONG).await, Ok(word));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_is_noticed_and_is_back_soon_after_its_restart() {
    let directory = tempfile::tempdir().expect("directory");
    let (key, path) = (NodeKey::generate(), directory.path().join("node.key"));
    key.save(&path).expect("save");
    let a = node().await;
    let mut process = Process::start(&path, any_port(), &a.as_peer());
    a.set_peers(vec![PeerConfig {
        endpoint_id: key.endpoint_id(),
        addresses: vec![process.address],
        relay_url: None,
    }]);
    a.until_up(key.endpoint_id()).await;
    echoes(&a, &key).await;

    process.kill();
    let killed = Instant::now();
    let reason = a.until_down(key.endpoint_id()).await;
    println!("MEASURED killed peer noticed after {} ms: {reason}", ms(killed));
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    assert_eq!(a.net.send_raft(key.endpoint_id(), Bytes::from_static(b"x")), SendOutcome::Unreachable);

    let restarted = Instant::now();
    let process = Process::start(&path, process.address, &a.as_peer());
    a.until_up(key.endpoint_id()).await;
    println!("MEASURED restarted after being noticed: link after {} ms", ms(restarted));
    assert!(restarted.elapsed() < Duration::from_secs(5), "{:?}", restarted.elapsed());
    echoes(&a, &key).await;
    drop(process);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_restarted_before_its_death_is_noticed_is_back_at_once() {
    let directory = tempfile::tempdir().expect("directory");
    let (key, path) = (NodeKey::generate(), directory.path().join("node.key"));
    key.save(&path).expect("save");
    let a = node().await;
    let mut process = Process::start(&path, any_port(), &a.as_peer());
    a.set_peers(vec![PeerConfig {
        endpoint_id: key.endpoint_id(),
        addresses: vec![process.address],
        relay_url: None,
    }]);
    let LinkState::Up { since: before, .. } = a.until_up(key.endpoint_id()).await else {
        unreachable!("waited for up")
    };
    echoes(&a, &key).await;

    process.kill();
    let restarted = Instant::now();
    let process = Process::start(&path, process.address, &a.as_peer());
    let newer = |state: &LinkState| matches!(state, LinkState::Up { since, .. } if *since > before);
    a.until(key.endpoint_id(), "up again", newer).await;
    println!("MEASURED killed and restarted at once: link after {} ms", ms(restarted));
    assert!(restarted.elapsed() < Duration::from_secs(3), "{:?}", restarted.elapsed());
    echoes(&a, &key).await;
    drop(process);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_peer_is_given_up_and_is_back_when_it_thaws() {
    let directory = tempfile::tempdir().expect("directory");
    let (key, path) = (NodeKey::generate(), directory.path().join("node.key"));
    key.save(&path).expect("save");
    let a = node().await;
    let process = Process::start(&path, any_port(), &a.as_peer());
    a.set_peers(vec![PeerConfig {
        endpoint_id: key.endpoint_id(),
        addresses: vec![process.address],
        relay_url: None,
    }]);
    a.until_up(key.endpoint_id()).await;
    process.signal("STOP");
    let frozen = Instant::now();
    a.until_down(key.endpoint_id()).await;
    println!("MEASURED frozen peer noticed after {} ms", ms(frozen));
    assert!(frozen.elapsed() < Duration::from_secs(5), "{:?}", frozen.elapsed());
    let tried = |state: &LinkState| matches!(state, LinkState::Down { attempts: 2.., .. });
    a.until(key.endpoint_id(), "tried twice", tried).await;
    process.signal("CONT");
    let thawed = Instant::now();
    a.until_up(key.endpoint_id()).await;
    println!("MEASURED thawed: link after {} ms", ms(thawed));
    assert!(thawed.elapsed() < Duration::from_secs(5), "{:?}", thawed.elapsed());
    echoes(&a, &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_reach_a_peer_that_was_stopped_and_started_again_on_its_port() {
    let (a, b) = pair().await;
    let (key, bind) = (b.key.clone(), b.addr());
    b.net.close().await;
    drop(b.incoming);
    a.until_down(key.endpoint_id()).await;
    let restarted = Instant::now();
    let mut b = node_on_freed(key, bind).await;
    b.set_peers(vec![a.as_peer()]);
    a.until_up(b.id()).await;
    println!("MEASURED stopped and started again: link after {} ms", ms(restarted));
    assert!(restarted.elapsed() < Duration::from_secs(5), "{:?}", restarted.elapsed());
    b.until_up(a.id()).await;
    assert_eq!(a.net.send_raft(b.id(), Bytes::from_static(b"on")), SendOutcome::Queued);
    assert_eq!(b.next_raft().await.1, Bytes::from_static(b"on"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_enough_that_one_side_knows_the_other_sides_address() {
    let (a, mut b) = (node().await, node().await);
    b.set_peers(vec![PeerConfig { endpoint_id: a.id(), addresses: Vec::new(), relay_url: None }]);
    a.set_peers(vec![b.as_peer()]);
    a.until_up(b.id()).await;
    let LinkState::Up { dialled, remote_addr, .. } = b.until_up(a.id()).await else {
        unreachable!("waited for up")
    };
    assert!(!dialled);
    assert_eq!(remote_addr, Some(a.addr()));
    assert_eq!(b.net.send_raft(a.id(), Bytes::from_static(b"x")), SendOutcome::Queued);
    let _ = &mut b;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_go_on_until_the_peer_appears() {
    let (a, key) = (node().await, NodeKey::generate());
    let first = node_with(key.clone(), any_port(), "lab").await;
    let bind = first.addr();
    a.set_peers(vec![first.as_peer()]);
    first.net.close().await;
    drop(first.incoming);
    let tried = |state: &LinkState| matches!(state, LinkState::Down { attempts: 2.., .. });
    a.until(key.endpoint_id(), "tried twice", tried).await;
    // `b` knows of `a` but has no address of it, so `a` has to dial.
    let b = node_on_freed(key, bind).await;
    b.set_peers(vec![PeerConfig { endpoint_id: a.id(), addresses: Vec::new(), relay_url: None }]);
    a.until_up(b.id()).await;
}
