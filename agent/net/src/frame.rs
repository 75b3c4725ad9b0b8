//! Frames: a length in four bytes (big endian), then as many bytes.
//!
//! A length is a claim by the other side: it is checked against a cap first, and memory grows with the bytes that
//! really arrive, never with the claim.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::limits::CHUNK_LEN;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The announced length is over the cap; nothing of it was read.
    #[error("a frame of {len} bytes is over the limit of {max}")]
    TooLong {
        /// Announced.
        len: usize,
        /// Allowed.
        max: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// Nothing arrived for too long.
    #[error("no progress for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// The stream or its connection is gone.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The four bytes that go before a frame of `len` bytes.
///
/// # Errors
/// [`FrameError::TooLong`] when it is over `max`.
pub(crate) fn header(len: usize, max: usize) -> Result<[u8; 4], FrameError> {
    match u32::try_from(len) {
        Ok(announced) if len <= max => Ok(announced.to_be_bytes()),
        _ => Err(FrameError::TooLong { len, max }),
    }
}

/// Reads one frame; `None` when the stream ends before it. Each piece of it must arrive within `stall`, the wait for
/// its beginning excepted.
///
/// # Errors
/// As [`FrameError`] lists them; the stream is of no further use then.
pub(crate) async fn read<R>(stream: &mut R, max: usize, stall: Duration) -> Result<Option<Bytes>, FrameError>
where
    R: AsyncRead + Unpin,
{
    let mut first = [0; 1];
    if stream.read(&mut first).await? == 0 {
        return Ok(None);
    }
    let mut rest = [0; 3];
    progress(stall, stream.read_exact(&mut rest)).await?;
    let len =
        usize::try_from(u32::from_be_bytes([first[0], rest[0], rest[1], rest[2]])).unwrap_or(usize::MAX);
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    let mut frame = BytesMut::with_capacity(len.min(CHUNK_LEN));
    while frame.len() < len {
        let missing = len - frame.len();
        if frame.capacity() == frame.len() {
            frame.reserve(missing.min(frame.len().max(CHUNK_LEN)));
        }
        let mut limited = (&mut *stream).take(missing as u64);
        if progress(stall, limited.read_buf(&mut frame)).await? == 0 {
            return Err(FrameError::Truncated);
        }
    }
    Ok(Some(frame.freeze()))
}

async fn progress<T>(stall: Duration, step: impl Future<Output = io::Result<T>>) -> Result<T, FrameError> {
    match timeout(stall, step).await {
        Err(_) => Err(FrameError::Stalled(stall)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
        Ok(result) => Ok(result?),
    }
}
