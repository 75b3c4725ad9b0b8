//! The application's side of an answer to a request.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::limits::REPLY_STREAM_QUEUE_MAX;

/// How the application answered.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    One(Bytes),
    NotTaken(String),
    Stream { items: mpsc::Receiver<Bytes>, ended: oneshot::Receiver<()> },
}

/// Why there is no answer from the application.
#[derive(Debug)]
pub(crate) enum HandOverError {
    /// The application does not take requests any more.
    Stopping,
    /// The application took the request and dropped it.
    Dropped,
}

/// The handle with which the application answers a request. Answering never waits for the network. If it is
/// dropped unused, the asker gets an error.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<ReplyBody>);

impl Reply {
    pub(crate) fn new() -> (Self, oneshot::Receiver<ReplyBody>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers with one frame of at most [`crate::limits::REQUEST_LEN_MAX`] bytes. A longer answer reaches
    /// the asker as an error. Does not tell whether the asker has given up.
    pub fn send(self, bytes: Bytes) {
        // An error means that the asker is gone, and nobody is left to be told.
        let _ = self.0.send(ReplyBody::One(bytes));
    }

    /// Says that the request was not looked at and certainly had no effect: the asker gets
    /// [`crate::RequestError::NotSent`].
    pub fn not_taken(self, why: impl Into<String>) {
        // An error means that the asker is gone.
        let _ = self.0.send(ReplyBody::NotTaken(why.into()));
    }

    /// Answers with any number of frames. If too many streamed answers already go to the asker
    /// ([`crate::limits::STREAMED_ANSWERS_TO_PEER_MAX`]), the asker is told that its request was not taken,
    /// and [`ReplyStream::send`] fails.
    pub fn stream(self) -> ReplyStream {
        let (sender, items) = mpsc::channel(REPLY_STREAM_QUEUE_MAX);
        let (end, ended) = oneshot::channel();
        // An error means that the asker is gone; then the first send to the stream fails.
        let _ = self.0.send(ReplyBody::Stream { items, ended });
        ReplyStream { items: sender, end }
    }

    /// Resolves when the asker has given up or its link is gone.
    pub async fn abandoned(&mut self) {
        self.0.closed().await;
    }
}

/// A streamed answer. If it is dropped without [`ReplyStream::end`], the asker sees an error after the items
/// that were sent.
#[derive(Debug)]
pub struct ReplyStream {
    items: mpsc::Sender<Bytes>,
    end: oneshot::Sender<()>,
}

/// The asker closed the stream, or its link is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the asker is gone")]
pub struct AskerGone;

impl ReplyStream {
    /// Sends an item of at most [`crate::limits::REQUEST_LEN_MAX`] bytes; waits while the asker reads slowly.
    ///
    /// # Errors
    /// [`AskerGone`] when nobody reads any more.
    pub async fn send(&mut self, item: Bytes) -> Result<(), AskerGone> {
        self.items.send(item).await.map_err(|_| AskerGone)
    }

    /// Resolves when nobody reads any more.
    pub async fn closed(&self) {
        self.items.closed().await;
    }

    /// Says that the answer is complete.
    pub fn end(self) {
        // An error means that nobody reads any more.
        let _ = self.end.send(());
    }
}
