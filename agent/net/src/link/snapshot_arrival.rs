//! The receiving side of snapshots.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::context::Context;
use crate::incoming::Incoming;
use crate::limits::{SNAPSHOT_ARRIVAL_TIMEOUT, SNAPSHOT_LEN_MAX, STALL_TIMEOUT};
use crate::link::stream_kind::{OpenedStream, StreamKind};
use crate::wire::{self, MessageKind, frame};

/// Streams with one snapshot each. A snapshot is confirmed when it is in the application's queue.
pub(crate) struct SnapshotStreams;

impl StreamKind for SnapshotStreams {
    fn first_byte(&self) -> u8 {
        wire::SNAPSHOT
    }

    fn serve<'a>(&'a self, context: &'a Context, stream: OpenedStream) -> BoxFuture<'a, ()> {
        take(context, stream).boxed()
    }
}

async fn take(context: &Context, stream: OpenedStream) {
    let OpenedStream { from, send: mut sender, mut receive } = stream;
    let send = &mut sender;
    // A peer that is not in the list any more is being cut off.
    let Some(peer) = context.peers.get(&from) else { return };
    let Some(mut arrival) = peer.snapshot_room.begin() else {
        wire::finish_with_text(send, MessageKind::NotTaken, "another snapshot of yours is arriving").await;
        return;
    };
    let room = |bytes| arrival.grow(bytes);
    let read = frame::read_within(&mut receive, SNAPSHOT_LEN_MAX, STALL_TIMEOUT, room);
    let bytes = match timeout(SNAPSHOT_ARRIVAL_TIMEOUT, read).await {
        Ok(Ok(Some(bytes))) => bytes,
        Ok(Ok(None)) => return,
        Err(_) => {
            let seconds = SNAPSHOT_ARRIVAL_TIMEOUT.as_secs();
            wire::finish_with_text(
                send,
                MessageKind::NotTaken,
                &format!("not all of it arrived within {seconds} s"),
            )
            .await;
            return;
        }
        Ok(Err(error)) => {
            tracing::info!(PEER = %from.short(), "a snapshot of {} could not be read: {error}", from.short());
            wire::finish_with_text(send, MessageKind::NotTaken, &error.to_string()).await;
            return;
        }
    };
    let (bytes, place) = arrival.whole(bytes);
    let taken = context.incoming.send(Incoming::Snapshot { from, bytes }).await;
    drop(place);
    match taken {
        Ok(()) => wire::finish(send, MessageKind::Answer, Bytes::new()).await,
        Err(_) => wire::finish_with_text(send, MessageKind::NotTaken, "the node is stopping").await,
    }
}
