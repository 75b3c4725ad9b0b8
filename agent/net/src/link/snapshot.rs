//! Sending snapshots to a peer: one at a time, each on a stream of its own, and each with a result.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use iroh::endpoint::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::limits::{SNAPSHOT_LEN_MAX, SNAPSHOT_TAKEN_TIMEOUT, STALL_TIMEOUT};
use crate::wire::{self, MessageKind, OpenStreamError};

/// A snapshot that waits for its turn.
#[derive(Debug)]
pub(crate) struct SnapshotJob {
    bytes: Bytes,
    done: oneshot::Sender<Result<(), SnapshotError>>,
}

/// Why a snapshot is not known to be delivered. It may have been delivered nevertheless, if only its
/// confirmation was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The receiver is not in the list of peers.
    #[error("the receiver is not in the list of peers")]
    NotAPeer,
    /// The snapshot is larger than [`SNAPSHOT_LEN_MAX`].
    #[error("the snapshot is larger than {SNAPSHOT_LEN_MAX} bytes")]
    TooLong,
    /// Other snapshots already wait for this peer.
    #[error("other snapshots wait for this peer")]
    QueueFull,
    /// This node has no endpoint.
    #[error("this node has no network: {0}")]
    NoTransport(String),
    /// The link is down, or was lost during the transfer.
    #[error("the link is down")]
    LinkDown,
    /// The receiver did not take the snapshot, or stopped reading.
    #[error("not taken by the receiver: {0}")]
    NotTaken(String),
}

/// The result of a snapshot, once it is known. Dropping this future does not stop the transfer.
#[derive(Debug)]
pub struct SnapshotDelivery(oneshot::Receiver<Result<(), SnapshotError>>);

impl Future for SnapshotDelivery {
    /// `Ok` means that the receiver's application has the snapshot in its queue.
    type Output = Result<(), SnapshotError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The job is dropped when its link ends.
        Pin::new(&mut self.0).poll(context).map(|result| result.unwrap_or(Err(SnapshotError::LinkDown)))
    }
}

/// Puts a snapshot into a peer's queue. If that is not possible, the returned future is ready at once.
pub(crate) fn enqueue(queue: &mpsc::Sender<SnapshotJob>, bytes: Bytes) -> SnapshotDelivery {
    if bytes.len() > SNAPSHOT_LEN_MAX {
        return failed(SnapshotError::TooLong);
    }
    let (done, result) = oneshot::channel();
    match queue.try_send(SnapshotJob { bytes, done }) {
        Ok(()) => SnapshotDelivery(result),
        Err(mpsc::error::TrySendError::Full(_)) => failed(SnapshotError::QueueFull),
        Err(mpsc::error::TrySendError::Closed(_)) => failed(SnapshotError::LinkDown),
    }
}

/// A delivery that has failed already.
pub(crate) fn failed(error: SnapshotError) -> SnapshotDelivery {
    let (done, result) = oneshot::channel();
    // Cannot fail: this function holds the receiver.
    let _ = done.send(Err(error));
    SnapshotDelivery(result)
}

/// Delivers the queued snapshots one after the other, while the link lasts.
pub(crate) async fn deliver_all(connection: &Connection, queue: &mut mpsc::Receiver<SnapshotJob>) {
    while let Some(job) = queue.recv().await {
        let result = deliver(connection, job.bytes).await;
        // When the connection has ended, that is the cause, whatever the error looked like.
        let lost = result.is_err() && connection.close_reason().is_some();
        let result = if lost { Err(SnapshotError::LinkDown) } else { result };
        // The caller may have dropped its future.
        let _ = job.done.send(result);
    }
}

async fn deliver(connection: &Connection, bytes: Bytes) -> Result<(), SnapshotError> {
    let (mut send, mut receive) = match wire::open_bi(connection, Instant::now() + STALL_TIMEOUT).await {
        Ok(streams) => streams,
        Err(OpenStreamError::Ended(_)) => return Err(SnapshotError::LinkDown),
        Err(error @ OpenStreamError::TooMany) => return Err(SnapshotError::NotTaken(error.to_string())),
    };
    if send.set_priority(wire::SNAPSHOT_PRIORITY).is_err() {
        return Err(SnapshotError::LinkDown);
    }
    let written = wire::write_framed(&mut send, wire::SNAPSHOT, bytes, SNAPSHOT_LEN_MAX).await;
    if written.is_ok() && send.finish().is_err() {
        return Err(SnapshotError::LinkDown);
    }
    // A receiver that stops reading says why in its answer.
    let answer = timeout(SNAPSHOT_TAKEN_TIMEOUT, wire::read_message(&mut receive)).await;
    match (written, answer) {
        (Ok(()), Ok(Ok((MessageKind::Answer, _)))) => Ok(()),
        (_, Ok(Ok((MessageKind::Failed | MessageKind::NotTaken, why)))) => {
            Err(SnapshotError::NotTaken(crate::wire::close::peer_text(&why)))
        }
        (Err(error), _) => Err(SnapshotError::NotTaken(error.to_string())),
        (Ok(()), Ok(Ok(_))) => Err(SnapshotError::NotTaken("unknown answer".to_owned())),
        (Ok(()), Ok(Err(error))) => Err(SnapshotError::NotTaken(error.to_string())),
        (Ok(()), Err(_)) => Err(SnapshotError::NotTaken("no confirmation in time".to_owned())),
    }
}
