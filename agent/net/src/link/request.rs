//! The asking side of a request.
//!
//! Callers must be able to rely on this: [`RequestError::NotSent`] means that the peer's application
//! certainly did not see the request. The peer acts on whole frames only, and a frame can be whole only when
//! all of it was handed to the connection.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use iroh::endpoint::{Connection, RecvStream, VarInt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::limits::{REQUEST_LEN_MAX, STREAMED_ANSWERS_PER_PEER_MAX};
use crate::link::shares::StreamShares;
use crate::wire::close::peer_text;
use crate::wire::{self, MessageError, MessageKind, OpenStreamError};

/// Why there is no answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The peer's application did not see the request: nothing happened, and another peer may be asked.
    #[error("not sent: {0}")]
    NotSent(NotSent),
    /// The request was sent, and its outcome is not known.
    #[error("sent, but not answered: {0}")]
    Unknown(String),
}

/// Why a request did not reach the peer's application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The receiver is not in the list of peers.
    #[error("the receiver is not in the list of peers")]
    NotAPeer,
    /// The request is longer than [`REQUEST_LEN_MAX`].
    #[error("the request is larger than {REQUEST_LEN_MAX} bytes")]
    TooLong,
    /// This node has no endpoint.
    #[error("this node has no network: {0}")]
    NoTransport(String),
    /// The link is down, or was lost before all of the request was written.
    #[error("the link is down")]
    LinkDown,
    /// The deadline passed while the request waited to be written, because too many requests are under way.
    #[error("the deadline passed before it could be written")]
    Busy,
    /// [`STREAMED_ANSWERS_PER_PEER_MAX`] streamed answers of that peer are being read already.
    #[error(
        "{STREAMED_ANSWERS_PER_PEER_MAX} streamed answers of that node are being read through this one, more \
         are not possible: end one of them, or ask on that node itself"
    )]
    TooManyStreamed,
    /// The peer said that it did not look at the request.
    #[error("not taken by the receiver: {0}")]
    NotTaken(String),
}

/// A streamed answer: items, until the other side ends the answer (`None`) or the answer breaks off (one last
/// error). Dropping the stream ends the answer.
pub type ResponseStream = BoxStream<'static, Result<Bytes, StreamBroken>>;

/// A streamed answer ended before it was complete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct StreamBroken(pub String);

impl From<NotSent> for RequestError {
    fn from(why: NotSent) -> Self {
        Self::NotSent(why)
    }
}

/// Sends a request and waits for its answer of one frame.
pub(crate) async fn ask(
    connection: &Connection,
    shares: &StreamShares,
    bytes: Bytes,
    wait: Duration,
) -> Result<Bytes, RequestError> {
    let deadline = Instant::now() + wait;
    // Waits while the highest allowed number of requests is under way.
    let _place = timeout_at(deadline, shares.request()).await.map_err(|_| NotSent::Busy)?;
    let (kind, bytes, _) = exchange(connection, bytes, deadline).await?;
    match kind {
        MessageKind::Answer => Ok(bytes),
        MessageKind::Item | MessageKind::End => {
            Err(RequestError::Unknown("the peer streams its answer".to_owned()))
        }
        MessageKind::Failed | MessageKind::NotTaken => Err(refusal(kind, &bytes)),
    }
}

/// Sends a request and waits for the beginning of its answer.
pub(crate) async fn ask_stream(
    connection: &Connection,
    shares: &StreamShares,
    bytes: Bytes,
    wait: Duration,
) -> Result<ResponseStream, RequestError> {
    let place = shares.streamed_answer().ok_or(NotSent::TooManyStreamed)?;
    let (kind, bytes, receive) = exchange(connection, bytes, Instant::now() + wait).await?;
    match kind {
        MessageKind::Answer => Ok(stream::iter([Ok(bytes)]).boxed()),
        MessageKind::End => Ok(stream::empty().boxed()),
        MessageKind::Item => Ok(stream::iter([Ok(bytes)]).chain(items(receive, place)).boxed()),
        MessageKind::Failed | MessageKind::NotTaken => Err(refusal(kind, &bytes)),
    }
}

fn refusal(kind: MessageKind, text: &[u8]) -> RequestError {
    let why = peer_text(text);
    if kind == MessageKind::NotTaken { NotSent::NotTaken(why).into() } else { RequestError::Unknown(why) }
}

async fn exchange(
    connection: &Connection,
    bytes: Bytes,
    deadline: Instant,
) -> Result<(MessageKind, Bytes, RecvStream), RequestError> {
    if bytes.len() > REQUEST_LEN_MAX {
        return Err(NotSent::TooLong.into());
    }
    let (mut send, mut receive) = match wire::open_bi(connection, deadline).await {
        Err(OpenStreamError::TooMany) => return Err(NotSent::Busy.into()),
        Err(OpenStreamError::Ended(_)) => return Err(NotSent::LinkDown.into()),
        Ok(streams) => streams,
    };
    let written = wire::write_framed(&mut send, wire::REQUEST, bytes, REQUEST_LEN_MAX);
    let not_sent = match timeout_at(deadline, written).await {
        Err(_) => Some(NotSent::Busy),
        Ok(Err(_)) => Some(NotSent::LinkDown),
        Ok(Ok(())) => None,
    };
    if let Some(why) = not_sent {
        // Without the reset, dropping the stream would end it as if it were complete. An error means that it
        // is closed already.
        let _ = send.reset(VarInt::from_u32(0));
        return Err(why.into());
    }
    // Fails only when the peer stopped reading: then its answer, or the lack of one, tells the rest.
    let _ = send.finish();
    match timeout_at(deadline, wire::read_message(&mut receive)).await {
        Err(_) => Err(RequestError::Unknown("the deadline passed".to_owned())),
        Ok(Err(error)) => Err(RequestError::Unknown(error.to_string())),
        Ok(Ok((kind, bytes))) => Ok((kind, bytes, receive)),
    }
}

/// The rest of a streamed answer. Its place is given back when the stream is dropped.
fn items(
    receive: RecvStream,
    place: OwnedSemaphorePermit,
) -> impl futures_util::Stream<Item = Result<Bytes, StreamBroken>> + Send {
    stream::unfold(Some((receive, place)), async |state| {
        let (mut receive, place) = state?;
        match wire::read_message(&mut receive).await {
            Ok((MessageKind::Item, bytes)) => Some((Ok(bytes), Some((receive, place)))),
            Ok((MessageKind::End, _)) => None,
            Ok((MessageKind::Failed, why)) => Some((Err(StreamBroken(peer_text(&why))), None)),
            Ok((kind, _)) => Some((Err(StreamBroken(format!("unexpected {kind:?}"))), None)),
            Err(MessageError::Missing) => Some((Err(StreamBroken("the link is down".to_owned())), None)),
            Err(error) => Some((Err(StreamBroken(error.to_string())), None)),
        }
    })
}
