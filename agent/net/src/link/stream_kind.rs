//! What a kind of stream is: the place where a new one is plugged in.

use blixard_model::EndpointId;
use futures_util::future::BoxFuture;
use iroh::endpoint::{RecvStream, SendStream};

use crate::context::Context;

/// A bidirectional stream that a peer has opened, after its first byte was read.
#[derive(Debug)]
pub(crate) struct OpenedStream {
    /// The peer.
    pub(crate) from: EndpointId,
    /// To the peer. Both halves belong to the stream's kind: it may write before it has read everything.
    pub(crate) send: SendStream,
    /// From the peer.
    pub(crate) receive: RecvStream,
}

/// A kind of bidirectional stream on a link, known by its first byte.
pub(crate) trait StreamKind: Sync {
    /// The byte that the opener writes first.
    fn first_byte(&self) -> u8;

    /// Serves a stream until it is done with it. Dropped when the link ends.
    fn serve<'a>(&'a self, context: &'a Context, stream: OpenedStream) -> BoxFuture<'a, ()>;
}
