//! Counts of what was sent, dropped, refused and tried: kept in atomics where it happens, read all at once by
//! [`crate::Net::stats`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use blixard_model::EndpointId;

/// Counts since the node started. Each is exact; they are not of one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetStats {
    /// By peer in the list. A peer that is taken off it takes its counts with it.
    pub peers: BTreeMap<EndpointId, PeerStats>,
    /// Inbound connections refused.
    pub refused: RefusedStats,
    /// Inbound connections that have not said hello yet, at this moment.
    pub handshakes: usize,
    /// Requests to join that this node served, counted by how they ended.
    pub joins: JoinStats,
    /// Raft messages dropped because their receiver is not in the list.
    pub dropped_not_a_peer: u64,
    /// Times a peer or contact said that it is found at a relay that is not in this node's own list.
    pub foreign_relays: u64,
    /// Attempts to open the endpoint that failed.
    pub transport_failures: u64,
    /// Times the endpoint was opened again after it had ended.
    pub transport_rebuilds: u64,
}

/// Counts about one peer since it was put on the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Raft messages handed to the connection.
    pub raft_sent: u64,
    /// Their bytes.
    pub raft_sent_bytes: u64,
    /// Raft messages that arrived, dropped ones included.
    pub raft_received: u64,
    /// Their bytes.
    pub raft_received_bytes: u64,
    /// Raft messages that were dropped.
    pub dropped: DroppedStats,
    /// Raft messages that wait, at this moment.
    pub queue_messages: usize,
    /// Their bytes, and those of messages that are being written.
    pub queue_bytes: usize,
    /// Attempts to connect.
    pub connect_attempts: u64,
    /// Attempts that did not become a link.
    pub connect_failures: u64,
    /// Times the peer's task ended by itself and was started again: each is a fault of this program.
    pub task_restarts: u64,
    /// Where the attempts to connect stand.
    pub backoff: BackoffStats,
}

/// Raft messages dropped, by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DroppedStats {
    /// To be sent, and too much waited already.
    pub queue_full: u64,
    /// To be sent, and the link was down, or was lost before they were written.
    pub link_down: u64,
    /// To be sent, and this node had no endpoint.
    pub no_transport: u64,
    /// To be sent, and larger than allowed.
    pub too_long: u64,
    /// Received, and the application did not keep up, or does not read at all.
    pub inbox_full: u64,
}

/// Joins at this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinStats {
    /// Under way, at this moment.
    pub under_way: usize,
    /// Requests that the application was given.
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
    /// Too many of them came from the same address.
    pub crowded_source: u64,
    /// The cluster removed the endpoint.
    pub removed: u64,
    /// A join while too many were under way, or one from the same source.
    pub join_crowded: u64,
    /// A join too soon after many others.
    pub join_rate: u64,
    /// A join without a proper request in time.
    pub bad_join: u64,
    /// A join of which the application was told nothing because joins were served no more.
    pub join_not_served: u64,
}

/// Where the attempts to connect to a peer stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackoffStats {
    /// Failures since the last good link.
    pub failures: u32,
    /// Until the next attempt; `None` while one is under way, while the link is up, and when nobody dials.
    pub next_try_in: Option<Duration>,
    /// Why the last attempt failed, or the last link ended.
    pub last_error: Option<String>,
}

/// A number that only grows.
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

/// What is counted about one peer, by its task and by those who send.
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

/// Where the attempts to connect stand, with the next one's time.
#[derive(Debug, Default)]
struct DialBackoff {
    failures: u32,
    next_try: Option<Instant>,
    last_error: Option<String>,
}

impl PeerCounters {
    /// Notes that the next attempt is at `next_try`, or that none is waited for.
    pub(crate) fn note_wait(&self, failures: u32, next_try: Option<Instant>) {
        let mut waiting = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.failures = failures;
        waiting.next_try = next_try;
    }

    /// Notes why an attempt failed or a link ended.
    pub(crate) fn note_error(&self, why: String) {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(why);
    }

    /// The counts, with the queue's fill left at zero.
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

/// Inbound connections refused, counted where they are.
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
