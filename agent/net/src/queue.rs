//! The queue of Raft messages to one peer: bounded in messages and in bytes, and never waited for.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::limits::{RAFT_FRAME_LEN_MAX, RAFT_QUEUE_BYTES_MAX, RAFT_QUEUE_FRAMES_MAX};

/// What became of a Raft message. Everything but [`SendOutcome::Queued`] means that it was dropped; Raft
/// sends again what matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// It waits to be written to the peer's link. It may still be lost with the link.
    Queued,
    /// Too much waits already: the link is slower than what is sent.
    QueueFull,
    /// The link is down.
    Unreachable,
    /// Not in the list of peers.
    NotAPeer,
    /// Larger than [`RAFT_FRAME_LEN_MAX`].
    TooLong,
}

/// A message and its share of the queue's bytes.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// The sender's side.
#[derive(Debug, Clone)]
pub(crate) struct RaftQueue {
    sender: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
}

impl RaftQueue {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Queued>) {
        let (sender, receiver) = mpsc::channel(RAFT_QUEUE_FRAMES_MAX);
        (Self { sender, room: Arc::new(Semaphore::new(RAFT_QUEUE_BYTES_MAX)) }, receiver)
    }

    pub(crate) fn push(&self, bytes: Bytes) -> SendOutcome {
        let share = match u32::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= RAFT_FRAME_LEN_MAX => len,
            _ => return SendOutcome::TooLong,
        };
        let Ok(share) = Arc::clone(&self.room).try_acquire_many_owned(share) else {
            return SendOutcome::QueueFull;
        };
        match self.sender.try_send(Queued { bytes, _share: share }) {
            Ok(()) => SendOutcome::Queued,
            Err(mpsc::error::TrySendError::Full(_)) => SendOutcome::QueueFull,
            Err(mpsc::error::TrySendError::Closed(_)) => SendOutcome::Unreachable,
        }
    }
}
