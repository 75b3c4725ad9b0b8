//! What a peer asks for: one task for each stream it opens, ended with the link.

use std::sync::Arc;

use blixard_model::EndpointId;
use bytes::Bytes;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::limits::{
    HELLO_TIMEOUT, REQUEST_LEN_MAX, SNAPSHOT_ARRIVAL_TIMEOUT, SNAPSHOT_LEN_MAX, STALL_TIMEOUT,
};
use crate::net::Incoming;
use crate::reply::{Answer, Reply};
use crate::wire::{self, Kind};

/// Accepts the peer's streams while the link lasts; QUIC itself bounds their number.
pub(crate) async fn accept_all(
    context: &Arc<Context>,
    from: EndpointId,
    connection: &Connection,
    link: &CancellationToken,
) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        let (context, link) = (Arc::clone(context), link.clone());
        let tracker = context.tracker.clone();
        tracker.spawn(async move {
            link.run_until_cancelled(handle_stream(&context, from, send, receive)).await;
        });
    }
}

async fn handle_stream(context: &Context, from: EndpointId, mut send: SendStream, mut receive: RecvStream) {
    match wire::read_first(&mut receive, HELLO_TIMEOUT).await {
        Some(wire::REQUEST) => handle_request(context, from, &mut send, &mut receive).await,
        Some(wire::SNAPSHOT) => handle_snapshot(context, from, &mut send, &mut receive).await,
        Some(kind) => {
            tracing::debug!(peer = %from.short(), kind, "a stream of unknown kind");
            say(&mut send, Kind::NotTaken, "this version does not know this kind of stream").await;
        }
        None => {}
    }
}

async fn handle_request(
    context: &Context,
    from: EndpointId,
    send: &mut SendStream,
    receive: &mut RecvStream,
) {
    let bytes = match wire::read_frame(receive, REQUEST_LEN_MAX, STALL_TIMEOUT).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::debug!(peer = %from.short(), reason = %error, "a request could not be read");
            say(send, Kind::NotTaken, &error.to_string()).await;
            return;
        }
    };
    let (reply, answer) = Reply::new();
    let stopped = send.stopped();
    let answer = tokio::select! {
        // The asker gave up, or the link ended: dropping `answer` tells the application.
        _ = stopped => return,
        answer = hand_over(context, Incoming::Request { from, bytes, reply }, answer) => answer,
    };
    match answer {
        Ok(Answer::One(bytes)) if bytes.len() > REQUEST_LEN_MAX => {
            tracing::error!(peer = %from.short(), len = bytes.len(), "an answer is too long to be sent");
            say(send, Kind::Failed, "the answer is too long to be sent").await;
        }
        Ok(Answer::One(bytes)) => finish(send, Kind::Answer, bytes).await,
        Ok(Answer::NotTaken(why)) => say(send, Kind::NotTaken, &why).await,
        Ok(Answer::Stream { items, ended }) => send_items(send, items, ended).await,
        Err(HandOverError::Stopping) => say(send, Kind::NotTaken, "the node is stopping").await,
        Err(HandOverError::Dropped) => say(send, Kind::Failed, "the peer gave no answer").await,
    }
}

/// Why there is no answer of the application.
#[derive(Debug)]
pub(crate) enum HandOverError {
    /// The application does not take requests any more.
    Stopping,
    /// The application took the request and dropped it.
    Dropped,
}

async fn hand_over(
    context: &Context,
    request: Incoming,
    answer: oneshot::Receiver<Answer>,
) -> Result<Answer, HandOverError> {
    context.incoming.send(request).await.map_err(|_| HandOverError::Stopping)?;
    answer.await.map_err(|_| HandOverError::Dropped)
}

async fn send_items(
    send: &mut SendStream,
    mut items: mpsc::Receiver<Bytes>,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        let stopped = send.stopped();
        let item = tokio::select! {
            _ = stopped => return,
            item = items.recv() => item,
        };
        let Some(item) = item else { break };
        if wire::write_message(send, Kind::Item, item).await.is_err() {
            say(send, Kind::Failed, "an item could not be sent").await;
            return;
        }
    }
    if ended.try_recv().is_ok() {
        finish(send, Kind::End, Bytes::new()).await;
    } else {
        say(send, Kind::Failed, "the peer did not complete its answer").await;
    }
}

async fn handle_snapshot(
    context: &Context,
    from: EndpointId,
    send: &mut SendStream,
    receive: &mut RecvStream,
) {
    // A peer that is off the list is being cut off.
    let Some(peer) = context.peers.get(&from) else { return };
    let Some(mut arrival) = peer.snapshot_room.begin() else {
        say(send, Kind::NotTaken, "another snapshot of yours is arriving").await;
        return;
    };
    let room = |bytes| arrival.grow(bytes);
    let read = crate::frame::read_within(receive, SNAPSHOT_LEN_MAX, STALL_TIMEOUT, room);
    let bytes = match timeout(SNAPSHOT_ARRIVAL_TIMEOUT, read).await {
        Ok(Ok(Some(bytes))) => bytes,
        Ok(Ok(None)) => return,
        Err(_) => {
            let seconds = SNAPSHOT_ARRIVAL_TIMEOUT.as_secs();
            say(send, Kind::NotTaken, &format!("not all of it arrived within {seconds} s")).await;
            return;
        }
        Ok(Err(error)) => {
            tracing::info!(PEER = %from.short(), "a snapshot of {} could not be read: {error}", from.short());
            say(send, Kind::NotTaken, &error.to_string()).await;
            return;
        }
    };
    let (bytes, place) = arrival.whole(bytes);
    let taken = context.incoming.send(Incoming::Snapshot { from, bytes }).await;
    drop(place);
    match taken {
        Ok(()) => finish(send, Kind::Answer, Bytes::new()).await,
        Err(_) => say(send, Kind::NotTaken, "the node is stopping").await,
    }
}

async fn say(send: &mut SendStream, kind: Kind, why: &str) {
    finish(send, kind, Bytes::copy_from_slice(why.as_bytes())).await;
}

/// The last message of a stream. Its failure means that the peer is gone or stopped reading: it knows.
async fn finish(send: &mut SendStream, kind: Kind, bytes: Bytes) {
    if wire::write_message(send, kind, bytes).await.is_ok() {
        let _ = send.finish();
    }
}
