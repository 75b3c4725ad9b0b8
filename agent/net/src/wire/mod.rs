//! What travels on the streams of a link ([`LINK_ALPN`]) and of a join ([`JOIN_ALPN`]).
//!
//! | stream | opened by | first byte | then |
//! |---|---|---|---|
//! | bidirectional, the very first | the dialler | (none) | hello; welcome back ([`crate::link::hello`]) |
//! | unidirectional, one each way | each side, once | [`RAFT`] | Raft frames until the link ends |
//! | bidirectional | the asker | [`REQUEST`] | one frame; answer: messages |
//! | bidirectional | the sender | [`SNAPSHOT`] | one frame; answer: one message when the receiver took it |
//!
//! A join is a connection of its own, with one stream:
//!
//! | stream | opened by | first byte | then |
//! |---|---|---|---|
//! | bidirectional | the acceptor | (none) | its cluster ([`crate::join::ask`]); request back; answer |
//!
//! The cluster and the request are one frame each; the answer is one message.
//!
//! A message is a kind byte and a frame.

pub(crate) mod close;
pub(crate) mod frame;

use std::time::Duration;

use bytes::Bytes;
use iroh::endpoint::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits::{REQUEST_LEN_MAX, STALL_TIMEOUT};
use crate::wire::frame::FrameError;

/// Protocol name of a link in the QUIC handshake.
pub(crate) const LINK_ALPN: &[u8] = b"blixard/1";
/// Protocol name of a join. It is spoken with strangers, and only while joins are served.
pub(crate) const JOIN_ALPN: &[u8] = b"blixard-join/1";

/// First byte of a stream of Raft frames.
pub(crate) const RAFT: u8 = 1;
/// First byte of a request.
pub(crate) const REQUEST: u8 = 2;
/// First byte of a snapshot.
pub(crate) const SNAPSHOT: u8 = 3;

/// Raft messages are sent before everything else.
pub(crate) const RAFT_PRIORITY: i32 = 2;
/// Snapshots are sent after everything else.
pub(crate) const SNAPSHOT_PRIORITY: i32 = -2;

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// The whole answer.
    Answer,
    /// A part of a streamed answer.
    Item,
    /// The streamed answer is complete.
    End,
    /// There is no answer, or no more of it; the frame says why.
    Failed,
    /// The request was not looked at; the frame says why.
    NotTaken,
}

impl MessageKind {
    const ALL: [Self; 5] = [Self::Answer, Self::Item, Self::End, Self::Failed, Self::NotTaken];

    fn byte(self) -> u8 {
        match self {
            Self::Answer => 1,
            Self::Item => 2,
            Self::End => 3,
            Self::Failed => 4,
            Self::NotTaken => 5,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// The stream ended before a message.
    #[error("the stream ended without an answer")]
    Missing,
    /// The message is of a kind that this version does not know.
    #[error("a message of unknown kind {0}")]
    UnknownKind(u8),
    /// The frame cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Why no stream could be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenStreamError {
    /// The other side allows no more streams at this moment.
    #[error("the other side takes no more streams at this moment")]
    TooMany,
    /// The connection is gone.
    #[error(transparent)]
    Ended(#[from] ConnectionError),
}

/// Opens a bidirectional stream. While as many streams are open as the other side allows, waits until the
/// deadline.
///
/// # Errors
/// [`OpenStreamError`]
pub(crate) async fn open_bi(
    connection: &Connection,
    deadline: Instant,
) -> Result<(SendStream, RecvStream), OpenStreamError> {
    Ok(timeout_at(deadline, connection.open_bi()).await.map_err(|_| OpenStreamError::TooMany)??)
}

/// Like [`open_bi`], for a unidirectional stream.
///
/// # Errors
/// [`OpenStreamError`]
pub(crate) async fn open_uni(
    connection: &Connection,
    deadline: Instant,
) -> Result<SendStream, OpenStreamError> {
    Ok(timeout_at(deadline, connection.open_uni()).await.map_err(|_| OpenStreamError::TooMany)??)
}

/// Writes chunks in order. The peer's window must take each piece within [`STALL_TIMEOUT`].
///
/// # Errors
/// [`FrameError::Stalled`] or [`FrameError::Io`]: not everything was handed to the connection, so the peer
/// cannot have the whole.
pub(crate) async fn write(stream: &mut SendStream, chunks: &mut [Bytes]) -> Result<(), FrameError> {
    let mut rest = chunks;
    while !rest.is_empty() {
        match timeout(STALL_TIMEOUT, stream.write_many_chunks(&mut rest)).await {
            Err(_) => return Err(FrameError::Stalled(STALL_TIMEOUT)),
            Ok(Err(error)) => return Err(FrameError::Io(error.into())),
            Ok(Ok(_)) => {}
        }
    }
    Ok(())
}

/// Writes the byte `first` and one frame.
///
/// # Errors
/// As [`write()`], or [`FrameError::TooLong`], and then nothing was written.
pub(crate) async fn write_framed(
    stream: &mut SendStream,
    first: u8,
    bytes: Bytes,
    max: usize,
) -> Result<(), FrameError> {
    let len = frame::header(bytes.len(), max)?;
    let head = Bytes::copy_from_slice(&[first, len[0], len[1], len[2], len[3]]);
    if bytes.is_empty() {
        return write(stream, &mut [head]).await;
    }
    write(stream, &mut [head, bytes]).await
}

/// Writes a message.
///
/// # Errors
/// As [`write_framed`].
pub(crate) async fn write_message(
    stream: &mut SendStream,
    kind: MessageKind,
    bytes: Bytes,
) -> Result<(), FrameError> {
    write_framed(stream, kind.byte(), bytes, REQUEST_LEN_MAX).await
}

/// Writes the last message of a stream and ends the stream. Failures are ignored: the other side is gone or
/// stopped reading, and knows that.
pub(crate) async fn finish(stream: &mut SendStream, kind: MessageKind, bytes: Bytes) {
    if write_message(stream, kind, bytes).await.is_ok() {
        let _ = stream.finish();
    }
}

/// Like [`finish`], with a text for people.
pub(crate) async fn finish_with_text(stream: &mut SendStream, kind: MessageKind, why: &str) {
    finish(stream, kind, Bytes::copy_from_slice(why.as_bytes())).await;
}

/// Reads a message. The wait for its first byte is not bounded.
///
/// # Errors
/// As [`MessageError`] lists them.
pub(crate) async fn read_message<R>(stream: &mut R) -> Result<(MessageKind, Bytes), MessageError>
where
    R: AsyncRead + Unpin,
{
    let mut byte = [0; 1];
    if stream.read_exact(&mut byte).await.is_err() {
        return Err(MessageError::Missing);
    }
    let kind = MessageKind::from_byte(byte[0]).ok_or(MessageError::UnknownKind(byte[0]))?;
    let frame = read_frame(stream, REQUEST_LEN_MAX, STALL_TIMEOUT).await?;
    Ok((kind, frame))
}

/// Reads a frame; the end of the stream before it is an error. All of it, the first byte included, must
/// arrive within `stall`.
///
/// # Errors
/// As [`FrameError`] lists them.
pub(crate) async fn read_frame<R>(stream: &mut R, max: usize, stall: Duration) -> Result<Bytes, FrameError>
where
    R: AsyncRead + Unpin,
{
    match timeout(stall, frame::read(stream, max, stall)).await {
        Err(_) => Err(FrameError::Stalled(stall)),
        Ok(result) => result?.ok_or(FrameError::Truncated),
    }
}

/// Reads the frame with which the other side introduces itself; `None` when the other side hangs up instead.
/// The end of a connection and the end of its streams travel apart: either may be seen first, so both count
/// as a hang-up.
///
/// # Errors
/// [`FrameError`] when what arrives is no frame, or does not arrive in time.
pub(crate) async fn read_introduction<R>(
    stream: &mut R,
    max: usize,
    stall: Duration,
) -> Result<Option<Bytes>, FrameError>
where
    R: AsyncRead + Unpin,
{
    match timeout(stall, frame::read(stream, max, stall)).await {
        Err(_) => Err(FrameError::Stalled(stall)),
        Ok(Err(error)) if error.is_hang_up() => Ok(None),
        Ok(result) => result,
    }
}

/// Reads the first byte of a stream; `None` if it does not arrive within `wait` or the stream ends before.
pub(crate) async fn read_first(stream: &mut RecvStream, wait: Duration) -> Option<u8> {
    timeout(wait, stream.read_u8()).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn message(kind: MessageKind, bytes: &[u8]) -> Vec<u8> {
        let head = frame::header(bytes.len(), REQUEST_LEN_MAX).expect("short");
        [&[kind.byte()][..], &head, bytes].concat()
    }

    #[test]
    fn fuzz_net_messages() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let _inside = runtime.enter();
        let mut target = blixard_hostile::Target::new("net-messages").heap_max(1 << 20);
        for kind in MessageKind::ALL {
            target = target
                .valid(message(kind, b""))
                .valid([message(kind, b"x"), message(kind, &[9; 99])].concat());
        }
        target.run(|mut bytes| {
            let mut words = String::new();
            loop {
                match read_message(&mut bytes).now_or_never().expect("ready") {
                    Ok((kind, frame)) if frame.len() <= REQUEST_LEN_MAX => words = format!("{kind:?}{words}"),
                    Ok((_, frame)) => panic!("{} bytes", frame.len()),
                    Err(error) => return format!("{error}{}", &words[..words.len().min(40)]),
                }
            }
        });
    }
}
