//! The queue of Raft messages to one peer: bounded in messages and in bytes. Nobody waits for room in it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::limits::{RAFT_FRAME_LEN_MAX, RAFT_QUEUE_BYTES_MAX, RAFT_QUEUE_FRAMES_MAX};
use crate::stats::PeerCounters;

/// What became of a Raft message. Everything but [`SendOutcome::Queued`] means that the message was dropped;
/// Raft sends again what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// The message waits to be written to the peer's link. It may still be lost with the link.
    Queued,
    /// The queue is full: the link is slower than what is sent.
    QueueFull,
    /// The link is down.
    Unreachable,
    /// This node has no endpoint: [`crate::Net::transport`] says why.
    NoTransport,
    /// The receiver is not in the list of peers.
    NotAPeer,
    /// The message is longer than [`RAFT_FRAME_LEN_MAX`].
    TooLong,
}

/// A message and its share of the queue's bytes. A message that is dropped before it was sent, wherever that
/// happens, counts as lost with its link.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) bytes: Bytes,
    _share: OwnedSemaphorePermit,
    counters: Arc<PeerCounters>,
    counted: bool,
}

impl Queued {
    /// Notes that the message was handed to the connection.
    pub(crate) fn sent(&mut self) {
        self.counted = true;
        self.counters.raft_sent.add(1);
        self.counters.raft_sent_bytes.add(self.bytes.len());
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.counted {
            self.counters.link_down.add(1);
        }
    }
}

/// The senders' side of the queue.
#[derive(Debug, Clone)]
pub(crate) struct RaftQueue {
    sender: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    counters: Arc<PeerCounters>,
}

impl RaftQueue {
    pub(crate) fn new(counters: Arc<PeerCounters>) -> (Self, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(RAFT_QUEUE_FRAMES_MAX);
        (Self { sender, room: Arc::new(Semaphore::new(RAFT_QUEUE_BYTES_MAX)), counters }, receiver)
    }

    /// Resolves when the receiver is gone.
    #[cfg(test)]
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }

    /// The messages that wait, and the bytes of these and of the messages that are being written.
    pub(crate) fn fill(&self) -> (usize, usize) {
        let messages = self.sender.max_capacity().saturating_sub(self.sender.capacity());
        (messages, RAFT_QUEUE_BYTES_MAX.saturating_sub(self.room.available_permits()))
    }

    /// Queues a message, or drops it and counts it.
    pub(crate) fn push(&self, bytes: Bytes) -> SendOutcome {
        let outcome = self.try_push(bytes);
        match outcome {
            SendOutcome::QueueFull => self.counters.queue_full.add(1),
            SendOutcome::TooLong => self.counters.too_long.add(1),
            // A message with the outcome `Unreachable` was counted when it was dropped.
            _ => {}
        }
        outcome
    }

    fn try_push(&self, bytes: Bytes) -> SendOutcome {
        let share = match u32::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= RAFT_FRAME_LEN_MAX => len,
            _ => return SendOutcome::TooLong,
        };
        let Ok(share) = Arc::clone(&self.room).try_acquire_many_owned(share) else {
            return SendOutcome::QueueFull;
        };
        let counters = Arc::clone(&self.counters);
        match self.sender.try_send(Queued { bytes, _share: share, counters, counted: false }) {
            Ok(()) => SendOutcome::Queued,
            Err(mpsc::error::TrySendError::Full(mut message)) => {
                message.counted = true;
                SendOutcome::QueueFull
            }
            // The peer's task ended. Either the node stops, or the task is about to be started again and its
            // end was logged.
            Err(mpsc::error::TrySendError::Closed(_)) => {
                tracing::trace!("a Raft message came after the end of its queue");
                SendOutcome::Unreachable
            }
        }
    }
}
