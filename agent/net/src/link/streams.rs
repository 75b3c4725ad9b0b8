//! The streams that a peer opens on a link: one task for each stream, which ends with the link. One table
//! lists the kinds of streams.

use std::sync::Arc;

use blixard_model::EndpointId;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::limits::HELLO_TIMEOUT;
use crate::link::answer::RequestStreams;
use crate::link::snapshot_arrival::SnapshotStreams;
use crate::link::stream_kind::{OpenedStream, StreamKind};
use crate::wire::{self, MessageKind};

/// Every kind of bidirectional stream.
static KINDS: [&dyn StreamKind; 2] = [&RequestStreams, &SnapshotStreams];

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
            link.run_until_cancelled(serve(&context, from, send, receive)).await;
        });
    }
}

async fn serve(context: &Context, from: EndpointId, mut send: SendStream, mut receive: RecvStream) {
    let Some(first) = wire::read_first(&mut receive, HELLO_TIMEOUT).await else { return };
    match KINDS.iter().find(|kind| kind.first_byte() == first) {
        Some(kind) => kind.serve(context, OpenedStream { from, send, receive }).await,
        None => {
            tracing::debug!(peer = %from.short(), kind = first, "a stream of unknown kind");
            let why = "this version does not know this kind of stream";
            wire::finish_with_text(&mut send, MessageKind::NotTaken, why).await;
        }
    }
}
