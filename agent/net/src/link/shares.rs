//! How many streams of each kind there may be between this node and one peer. Each kind has its own share, so
//! that streams that last for hours leave room for requests that must be answered at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{REQUESTS_PER_PEER_MAX, STREAMED_ANSWERS_PER_PEER_MAX, STREAMED_ANSWERS_TO_PEER_MAX};

/// The shares of one peer. They outlive its links. Each place is given back by whoever took it.
#[derive(Debug)]
pub(crate) struct StreamShares {
    /// Requests to the peer.
    requests: Arc<Semaphore>,
    /// Streamed answers of the peer that are read here.
    read: Arc<Semaphore>,
    /// Streamed answers that are sent to the peer.
    sent: Arc<Semaphore>,
}

impl StreamShares {
    pub(crate) fn new() -> Self {
        let share = |places| Arc::new(Semaphore::new(places));
        Self {
            requests: share(REQUESTS_PER_PEER_MAX),
            read: share(STREAMED_ANSWERS_PER_PEER_MAX),
            sent: share(STREAMED_ANSWERS_TO_PEER_MAX),
        }
    }

    /// Waits for a place for a request to the peer.
    pub(crate) async fn request(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.requests).acquire_owned().await.ok()
    }

    /// A place for reading a streamed answer of the peer, if one is free now.
    pub(crate) fn streamed_answer(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.read).try_acquire_owned().ok()
    }

    /// A place for sending a streamed answer to the peer, if one is free now. A peer of this version asks for
    /// no more than there are; a peer of an earlier version may.
    pub(crate) fn answer_streamed(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sent).try_acquire_owned().ok()
    }
}
