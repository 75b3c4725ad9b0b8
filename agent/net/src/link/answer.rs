//! The answering side of requests: each request is handed to the application, and the application's answer is
//! sent back.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use iroh::endpoint::SendStream;
use tokio::sync::{mpsc, oneshot};

use crate::context::Context;
use crate::incoming::Incoming;
use crate::limits::{REQUEST_LEN_MAX, STALL_TIMEOUT};
use crate::link::reply::{HandOverError, Reply, ReplyBody};
use crate::link::stream_kind::{OpenedStream, StreamKind};
use crate::wire::{self, MessageKind};

/// What a peer is told that already follows as many streamed answers as it may.
const TOO_MANY_STREAMED: &str = "as many streamed answers as there may be go to your node already: end one \
                                 of them, or ask on the node that answers";

/// Streams with one request and its answer.
pub(crate) struct RequestStreams;

impl StreamKind for RequestStreams {
    fn first_byte(&self) -> u8 {
        wire::REQUEST
    }

    fn serve<'a>(&'a self, context: &'a Context, stream: OpenedStream) -> BoxFuture<'a, ()> {
        answer(context, stream).boxed()
    }
}

async fn answer(context: &Context, stream: OpenedStream) {
    let OpenedStream { from, send: mut sender, mut receive } = stream;
    let send = &mut sender;
    let bytes = match wire::read_frame(&mut receive, REQUEST_LEN_MAX, STALL_TIMEOUT).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::debug!(peer = %from.short(), reason = %error, "a request could not be read");
            wire::finish_with_text(send, MessageKind::NotTaken, &error.to_string()).await;
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
        Ok(ReplyBody::One(bytes)) if bytes.len() > REQUEST_LEN_MAX => {
            tracing::error!(peer = %from.short(), len = bytes.len(), "an answer is too long to be sent");
            wire::finish_with_text(send, MessageKind::Failed, "the answer is too long to be sent").await;
        }
        Ok(ReplyBody::One(bytes)) => wire::finish(send, MessageKind::Answer, bytes).await,
        Ok(ReplyBody::NotTaken(why)) => wire::finish_with_text(send, MessageKind::NotTaken, &why).await,
        Ok(ReplyBody::Stream { items, ended }) => {
            // A peer that is not in the list any more is being cut off.
            let Some(peer) = context.peers.get(&from) else { return };
            match peer.shares.answer_streamed() {
                Some(_place) => send_items(send, items, ended).await,
                None => wire::finish_with_text(send, MessageKind::NotTaken, TOO_MANY_STREAMED).await,
            }
        }
        Err(HandOverError::Stopping) => {
            wire::finish_with_text(send, MessageKind::NotTaken, "the node is stopping").await
        }
        Err(HandOverError::Dropped) => {
            wire::finish_with_text(send, MessageKind::Failed, "the peer gave no answer").await
        }
    }
}

async fn hand_over(
    context: &Context,
    request: Incoming,
    answer: oneshot::Receiver<ReplyBody>,
) -> Result<ReplyBody, HandOverError> {
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
        if wire::write_message(send, MessageKind::Item, item).await.is_err() {
            wire::finish_with_text(send, MessageKind::Failed, "an item could not be sent").await;
            return;
        }
    }
    if ended.try_recv().is_ok() {
        wire::finish(send, MessageKind::End, Bytes::new()).await;
    } else {
        wire::finish_with_text(send, MessageKind::Failed, "the peer did not complete its answer").await;
    }
}
