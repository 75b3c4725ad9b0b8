//! A link: one accepted connection and everything that flows on it, as one future that ends when the link
//! does.

use std::sync::Arc;

use blixard_model::EndpointId;
use bytes::Bytes;
use iroh::endpoint::{Connection, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::admission::peers::Slot;
use crate::context::Context;
use crate::incoming::Incoming;
use crate::limits::{HELLO_TIMEOUT, RAFT_BATCH_MAX, RAFT_FRAME_LEN_MAX, STALL_TIMEOUT};
use crate::link::hello::DialId;
use crate::link::queue::Queued;
use crate::link::snapshot::{self, SnapshotJob};
use crate::link::streams;
use crate::state::DownReason;
use crate::stats::PeerCounters;
use crate::wire;
use crate::wire::close::{self, Close, ConnectionEnd};
use crate::wire::frame;

/// A connection that both sides accepted.
#[derive(Debug)]
pub(crate) struct PeerLink {
    pub(crate) connection: Connection,
    /// Which side dialled.
    pub(crate) origin: LinkOrigin,
    /// Random id of the peer's run.
    pub(crate) peer_incarnation: u64,
}

/// Which side dialled a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkOrigin {
    /// This node, in this attempt.
    Dialled(DialId),
    /// The peer.
    Accepted,
}

/// The receiving ends of the queues to one peer. They outlive every link.
#[derive(Debug)]
pub(crate) struct OutgoingQueues {
    pub(crate) raft: mpsc::Receiver<Queued>,
    pub(crate) snapshots: mpsc::Receiver<SnapshotJob>,
}

impl OutgoingQueues {
    /// Drops everything that waits: Raft messages for a lost link are out of date, and the senders of
    /// snapshots learn of the loss.
    pub(crate) fn clear(&mut self) {
        while self.raft.try_recv().is_ok() {}
        while self.snapshots.try_recv().is_ok() {}
    }
}

/// Runs a link until it ends. If this side found a fault, it closes the connection with that fault.
pub(crate) async fn run(
    context: &Arc<Context>,
    from: EndpointId,
    connection: &Connection,
    (outgoing, counters): (&mut OutgoingQueues, &PeerCounters),
    (slot, token): (&Slot, &CancellationToken),
) -> ConnectionEnd {
    let fault = tokio::select! {
        error = connection.closed() => return close::ended(&error),
        fault = write_raft(connection, &mut outgoing.raft) => fault,
        fault = read_raft(context, from, connection, counters, (slot, token)) => fault,
        () = snapshot::deliver_all(connection, &mut outgoing.snapshots) => {
            "the outgoing path is closed".to_owned()
        }
        () = streams::accept_all(context, from, connection, token) => "no more streams".to_owned(),
    };
    // When the connection itself has ended, its reason is the better one.
    if let Some(error) = connection.close_reason() {
        return close::ended(&error);
    }
    Close::Broken(fault.clone()).apply(connection);
    ConnectionEnd::For(DownReason::Lost(fault))
}

async fn write_raft(connection: &Connection, queue: &mut mpsc::Receiver<Queued>) -> String {
    let mut stream = match wire::open_uni(connection, Instant::now() + HELLO_TIMEOUT).await {
        Ok(stream) => stream,
        Err(error) => return format!("no stream of Raft messages can be opened: {error}"),
    };
    if stream.set_priority(wire::RAFT_PRIORITY).is_err() {
        return "the stream of Raft messages is closed".to_owned();
    }
    // The peer learns of a stream only from its first byte.
    let mut chunks = vec![Bytes::from_static(&[wire::RAFT])];
    let mut batch: Vec<Queued> = Vec::with_capacity(RAFT_BATCH_MAX);
    loop {
        if let Err(error) = wire::write(&mut stream, &mut chunks).await {
            return format!("Raft messages cannot be written: {error}");
        }
        batch.iter_mut().for_each(Queued::sent);
        batch.clear();
        if queue.recv_many(&mut batch, RAFT_BATCH_MAX).await == 0 {
            return "the outgoing path is closed".to_owned();
        }
        chunks.clear();
        for message in &batch {
            match frame::header(message.bytes.len(), RAFT_FRAME_LEN_MAX) {
                Ok(header) => chunks.push(Bytes::copy_from_slice(&header)),
                Err(error) => return error.to_string(),
            }
            if !message.bytes.is_empty() {
                chunks.push(message.bytes.clone());
            }
        }
    }
}

async fn read_raft(
    context: &Context,
    from: EndpointId,
    connection: &Connection,
    counters: &PeerCounters,
    cut: (&Slot, &CancellationToken),
) -> String {
    let mut stream = match timeout(HELLO_TIMEOUT, connection.accept_uni()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return "the peer opened no stream of Raft messages".to_owned(),
    };
    if wire::read_first(&mut stream, HELLO_TIMEOUT).await != Some(wire::RAFT) {
        return "the peer opened a stream of unknown kind".to_owned();
    }
    read_raft_frames(context, from, &mut stream, counters, cut).await
}

async fn read_raft_frames(
    context: &Context,
    from: EndpointId,
    stream: &mut RecvStream,
    counters: &PeerCounters,
    (slot, token): (&Slot, &CancellationToken),
) -> String {
    let mut dropped: u64 = 0;
    loop {
        let bytes = match frame::read(stream, RAFT_FRAME_LEN_MAX, STALL_TIMEOUT).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return "the peer ended its stream of Raft messages".to_owned(),
            Err(error) => return format!("a Raft message cannot be read: {error}"),
        };
        let len = bytes.len();
        // The peer may have been taken off the list since the read began.
        let Some(delivered) = slot.unless_cancelled(token, || deliver_raft(context, from, bytes)) else {
            return "the link is cut off".to_owned();
        };
        counters.raft_received.add(1);
        counters.raft_received_bytes.add(len);
        if let Err(lost) = delivered {
            counters.inbox_full.add(1);
            dropped += 1;
            if dropped.is_power_of_two() {
                log_lost(context, from, lost, dropped);
            }
        }
    }
}

/// Why a Raft message was not handed to the application.
#[derive(Debug, Clone, Copy)]
enum Lost {
    /// The application holds as many bytes as it may, or its queue is full.
    NoRoom,
    /// The application dropped its end of the queue.
    NobodyReads,
}

/// Hands a Raft message to the application, or drops it.
fn deliver_raft(context: &Context, from: EndpointId, bytes: Bytes) -> Result<(), Lost> {
    let len = u32::try_from(bytes.len()).map_err(|_| Lost::NoRoom)?;
    let share = Arc::clone(&context.incoming_room).try_acquire_many_owned(len).map_err(|_| Lost::NoRoom)?;
    let bytes = Bytes::from_owner(HeldRaftBytes { bytes, _share: share });
    context.incoming.try_send(Incoming::Raft { from, bytes }).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => Lost::NoRoom,
        mpsc::error::TrySendError::Closed(_) => Lost::NobodyReads,
    })
}

fn log_lost(context: &Context, from: EndpointId, lost: Lost, dropped: u64) {
    let peer = from.short();
    match lost {
        Lost::NoRoom => tracing::warn!(
            PEER = peer,
            "this node does not keep up: {dropped} Raft messages of {peer} dropped"
        ),
        // The node stops, so nobody has to read any more.
        Lost::NobodyReads if context.cancel.is_cancelled() => {}
        Lost::NobodyReads => tracing::error!(
            PEER = peer,
            "nobody on this node takes what arrives any more: {dropped} Raft messages of {peer} dropped. \
             This is a fault of blixard: please report it with this line"
        ),
    }
}

/// A message and its share of the room. The share is given back when the application drops the message.
struct HeldRaftBytes {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldRaftBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::timeout;

    use crate::SendOutcome;
    use crate::testing::{CapturedLog, LONG, pair};

    // On one thread, so that only the lines of this test are captured.
    #[tokio::test]
    async fn a_closed_incoming_queue_is_logged_once_and_the_link_stays_up() {
        let (log, _guard) = CapturedLog::start();
        let (a, mut b) = pair().await;
        let (a_id, b_id) = (a.net.endpoint_id(), b.net.endpoint_id());
        b.incoming.close();
        assert_eq!(a.net.send_raft(b_id, Bytes::from_static(b"x")), SendOutcome::Queued);
        let counted = async {
            while b.net.stats().peers[&a_id].dropped.inbox_full == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, counted).await.expect("counted");
        let errors = log.lines("ERROR");
        assert!(errors.len() == 1 && errors[0].contains("nobody on this node"), "{errors:#?}");
        assert!(a.net.links().borrow()[&b_id].is_up() && b.net.links().borrow()[&a_id].is_up());
    }
}
