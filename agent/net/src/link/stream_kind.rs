//! What a kind of stream is. A new kind of stream implements [`StreamKind`].

use blixard_model::EndpointId;
use futures_util::future::BoxFuture;
use iroh::endpoint::{RecvStream, SendStream};

use crate::context::Context;

/// A bidirectional stream that a peer has opened, after its first byte was read.
#[derive(Debug)]
pub(crate) struct OpenedStream {
    /// The peer that opened the stream.
    pub(crate) from: EndpointId,
    /// Sends to the peer. Both halves belong to the stream's kind, because it may write before it has read
    /// everything.
    pub(crate) send: SendStream,
    /// Receives from the peer.
    pub(crate) receive: RecvStream,
}

/// A kind of bidirectional stream on a link. Its first byte identifies it.
pub(crate) trait StreamKind: Sync {
    /// The byte that the opener writes first.
    fn first_byte(&self) -> u8;

    /// Serves a stream until it is done. The future is dropped when the link ends.
    fn serve<'a>(&'a self, context: &'a Context, stream: OpenedStream) -> BoxFuture<'a, ()>;
}
