//! Counts of what was sent, dropped, refused and tried. They are atomics that are increased where the event
//! happens; [`crate::Net::stats`] reads all of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use blixard_model::EndpointId;

/// Counts since the node started. Each count is exact, but they are not all read at the same instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetStats {
    /// The counts of each peer in the list. They are dropped when the peer is taken off the list.
    pub peers: BTreeMap<EndpointId, PeerStats>,
    /// Inbound connections refused.
    pub refused: RefusedStats,
    /// Inbound connections that have not said hello yet, at this moment.
    pub handshakes: usize,
    /// Requests to join that this node served, counted by how they ended.
    pub joins: JoinStats,
    /// Raft messages dropped because their receiver is not in the list.
    pub dropped_not_a_peer: u64,
    /// How often a peer or contact named a relay that is not in this node's own list.
    pub foreign_relays: u64,
    /// Attempts to open the endpoint that failed.
    pub transport_failures: u64,
    /// How often the endpoint was opened again after it had ended.
    pub transport_rebuilds: u64,
}

/// Counts of one peer since it was put on the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Raft messages handed to the connection.
    pub raft_sent: u64,
    /// Bytes of the Raft messages handed to the connection.
    pub raft_sent_bytes: u64,
    /// Raft messages that arrived, dropped ones included.
    pub raft_received: u64,
    /// Bytes of the Raft messages that arrived.
    pub raft_received_bytes: u64,
    /// Raft messages that were dropped.
    pub dropped: DroppedStats,
    /// Raft messages that wait in the queue, at this moment.
    pub queue_messages: usize,
    /// Bytes of the messages that wait, and of those that are being written.
    pub queue_bytes: usize,
    /// Attempts to connect.
    pub connect_attempts: u64,
    /// Attempts that did not become a link.
    pub connect_failures: u64,
    /// How often the peer's task ended by itself and was started again. Each time is a fault of this program.
    pub task_restarts: u64,
    /// The state of the attempts to connect.
    pub backoff: BackoffStats,
}

/// Raft messages dropped, by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DroppedStats {
    /// Outgoing messages: the queue was full.
    pub queue_full: u64,
    /// Outgoing messages: the link was down, or was lost before they were written.
    pub link_down: u64,
    /// Outgoing messages: this node had no endpoint.
    pub no_transport: u64,
    /// Outgoing messages: they were longer than [`crate::limits::RAFT_FRAME_LEN_MAX`].
    pub too_long: u64,
    /// Incoming messages: the application did not keep up, or does not read at all.
    pub inbox_full: u64,
}

/// Joins at this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinStats {
    /// Joins that are under way, at this moment.
    pub under_way: usize,
    /// Requests that were handed to the application.
    pub requests: u64,
}

/// Inbound connections refused, by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusedStats {
    /// The endpoint id is not in the list.
    pub not_listed: u64,
    /// The hello was malformed, or of another cluster or version.
    pub bad_hello: u64,
    /// No hello came in time.
    pub no_hello: u64,
    /// The QUIC handshake failed or took too long.
    pub handshake: u64,
    /// Too many connections had not said hello yet.
    pub crowded: u64,
    /// Too many connections from the same source had not said hello yet.
    pub crowded_source: u64,
    /// The cluster removed the endpoint.
    pub removed: u64,
    /// A join came while too many were under way, or another one from the same source.
    pub join_crowded: u64,
    /// A join exceeded a rate limit.
    pub join_rate: u64,
    /// A join sent no proper request in time.
    pub bad_join: u64,
    /// A join came while joins were not served, or they were no longer served when its request was to be
    /// handed to the application.
    pub join_not_served: u64,
}

/// The state of the attempts to connect to a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackoffStats {
    /// Failed attempts since the last stable link.
    pub failures: u32,
    /// Time until the next attempt; `None` while an attempt is under way, while the link is up, and when this
    /// node has nowhere to dial.
    pub next_try_in: Option<Duration>,
    /// Why the last attempt failed, or the last link ended.
    pub last_error: Option<String>,
}

/// A counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The number so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one peer, increased by its task and by those who send.
#[derive(Debug, Default)]
pub(crate) struct PeerCounters {
    pub(crate) raft_sent: Counter,
    pub(crate) raft_sent_bytes: Counter,
    pub(crate) raft_received: Counter,
    pub(crate) raft_received_bytes: Counter,
    pub(crate) queue_full: Counter,
    pub(crate) link_down: Counter,
    pub(crate) no_transport: Counter,
    pub(crate) too_long: Counter,
    pub(crate) inbox_full: Counter,
    pub(crate) connect_attempts: Counter,
    pub(crate) connect_failures: Counter,
    pub(crate) task_restarts: Counter,
    backoff: Mutex<DialBackoff>,
}

/// The state of the attempts to connect, with the time of the next attempt.
#[derive(Debug, Default)]
struct DialBackoff {
    failures: u32,
    next_try: Option<Instant>,
    last_error: Option<String>,
}

impl PeerCounters {
    /// Notes when the next attempt is due; `None` when no attempt is waited for.
    pub(crate) fn note_wait(&self, failures: u32, next_try: Option<Instant>) {
        let mut waiting = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.failures = failures;
        waiting.next_try = next_try;
    }

    /// Notes why an attempt failed or a link ended.
    pub(crate) fn note_error(&self, why: String) {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(why);
    }

    /// The counts. The fill of the queue is not known here and is left at zero.
    pub(crate) fn snapshot(&self) -> PeerStats {
        let backoff = {
            let waiting = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
            BackoffStats {
                failures: waiting.failures,
                next_try_in: waiting.next_try.map(|at| at.saturating_duration_since(Instant::now())),
                last_error: waiting.last_error.clone(),
            }
        };
        PeerStats {
            raft_sent: self.raft_sent.get(),
            raft_sent_bytes: self.raft_sent_bytes.get(),
            raft_received: self.raft_received.get(),
            raft_received_bytes: self.raft_received_bytes.get(),
            dropped: DroppedStats {
                queue_full: self.queue_full.get(),
                link_down: self.link_down.get(),
                no_transport: self.no_transport.get(),
                too_long: self.too_long.get(),
                inbox_full: self.inbox_full.get(),
            },
            queue_messages: 0,
            queue_bytes: 0,
            connect_attempts: self.connect_attempts.get(),
            connect_failures: self.connect_failures.get(),
            task_restarts: self.task_restarts.get(),
            backoff,
        }
    }
}

/// Counters of refused inbound connections, increased where a connection is refused.
#[derive(Debug, Default)]
pub(crate) struct RefusedCounters {
    pub(crate) not_listed: Counter,
    pub(crate) bad_hello: Counter,
    pub(crate) no_hello: Counter,
    pub(crate) handshake: Counter,
    pub(crate) crowded: Counter,
    pub(crate) crowded_source: Counter,
    pub(crate) removed: Counter,
    pub(crate) join_crowded: Counter,
    pub(crate) join_rate: Counter,
    pub(crate) bad_join: Counter,
    pub(crate) join_not_served: Counter,
}

impl RefusedCounters {
    /// The counts so far.
    pub(crate) fn snapshot(&self) -> RefusedStats {
        RefusedStats {
            not_listed: self.not_listed.get(),
            bad_hello: self.bad_hello.get(),
            no_hello: self.no_hello.get(),
            handshake: self.handshake.get(),
            crowded: self.crowded.get(),
            crowded_source: self.crowded_source.get(),
            removed: self.removed.get(),
            join_crowded: self.join_crowded.get(),
            join_rate: self.join_rate.get(),
            bad_join: self.bad_join.get(),
            join_not_served: self.join_not_served.get(),
        }
    }
}
