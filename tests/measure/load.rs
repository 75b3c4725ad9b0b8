//! Writes: many at once to grow the log and the state, and steady ones whose times are measured.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blixard_model::vm::CMDLINE_LEN_MAX;
use serde_json::json;

use super::client::{Client, socket};
use crate::scenario::cluster::Node;

/// Connections that write at the same time.
const WRITERS: usize = 64;

/// Creates `count` stopped VMs with command lines of `cmdline_len` bytes, placed on the first `on` nodes and
/// on no other, because a node that has VMs is not removed.
pub(super) fn create(node: &Node, on: usize, count: usize, cmdline_len: usize) {
    let cmdline = "x".repeat(cmdline_len.min(CMDLINE_LEN_MAX));
    in_parallel(node, count, |client, n| {
        let spec = json!({
            "name": format!("vm{n}"), "cpus": 1, "memory_mib": 64, "kernel": "/k", "cmdline": cmdline,
            "node": format!("n{}", n % on + 1),
        });
        client.request("POST", "/v1/vms", &json!({ "spec": spec }).to_string())
    });
}

/// Starts and stops the first `vms` VMs in turn, with `count` writes that change the state.
pub(super) fn switch(node: &Node, count: usize, vms: usize) {
    in_parallel(node, count, |client, n| {
        let verb = if (n / vms).is_multiple_of(2) { "start" } else { "stop" };
        client.request("POST", &format!("/v1/vms/vm{}/{verb}", n % vms), "")
    });
}

fn in_parallel(
    node: &Node,
    count: usize,
    write: impl Fn(&mut Client, usize) -> io::Result<(u16, String)> + Sync,
) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut client = Client::connect(node).expect("the socket answers");
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let (code, body) = write(&mut client, n).expect("an answer");
                    assert_eq!(code, 200, "{body}");
                }
            });
        }
    });
}

/// One write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    /// The number of the write.
    pub(super) n: usize,
    /// When it was sent.
    pub(super) begun: Instant,
    /// How long its answer took.
    pub(super) took: Duration,
}

/// The writes of one steady writer, by how they ended.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Writes that were acknowledged.
    pub(super) acknowledged: Vec<Write>,
    /// Writes whose outcome is not known.
    pub(super) unknown: Vec<Write>,
    /// Writes that did not happen, according to the agent.
    pub(super) failed: Vec<Write>,
}

impl Seen {
    /// How long the acknowledged writes took.
    pub(super) fn times(&self) -> Vec<Duration> {
        self.acknowledged.iter().map(|write| write.took).collect()
    }

    /// The longest time without an acknowledgement.
    pub(super) fn longest_gap(&self) -> Duration {
        let answered = |write: &Write| write.begun + write.took;
        let pairs = self.acknowledged.windows(2);
        pairs.map(|pair| answered(&pair[1]) - answered(&pair[0])).max().unwrap_or_default()
    }
}

/// A writer in a thread of its own that makes one write after the other until it is told to stop.
#[derive(Debug)]
pub(super) struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Steady {
    /// Starts to write. `request` returns the path and the body of the write with this number; `None` ends
    /// the writer.
    pub(super) fn spawn(
        node: &Node,
        pause: Duration,
        request: impl Fn(usize) -> Option<(String, String)> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (socket, told) = (socket(node), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut client = Client::open(&socket).expect("the socket answers");
            let mut seen = Seen::default();
            for n in 0.. {
                let (false, Some((path, body))) = (told.load(Ordering::Relaxed), request(n)) else { break };
                let begun = Instant::now();
                let answer = client.request("POST", &path, &body);
                let write = Write { n, begun, took: begun.elapsed() };
                match answer {
                    Ok((200, _)) => seen.acknowledged.push(write),
                    Ok((504, _)) => seen.unknown.push(write),
                    Ok(_) => seen.failed.push(write),
                    Err(_) => {
                        seen.unknown.push(write);
                        client = Client::open(&socket).expect("the socket answers");
                    }
                }
                std::thread::park_timeout(pause);
            }
            seen
        });
        Self { stop, thread }
    }

    /// Whether the writer has ended by itself.
    pub(super) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the writer after the write that is under way.
    pub(super) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("wrote")
    }
}

/// A write that changes one VM each time.
pub(super) fn switch_one(n: usize) -> Option<(String, String)> {
    let verb = if n.is_multiple_of(2) { "start" } else { "stop" };
    Some((format!("/v1/vms/vm0/{verb}"), String::new()))
}
