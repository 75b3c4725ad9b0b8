//! Frames: a length in four bytes (big endian), then as many bytes.
//!
//! A length is only a claim of the other side. It is checked against a limit first, and memory grows with the
//! bytes that really arrive, never with the claim.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::limits::CHUNK_LEN;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The announced length is over the limit; nothing of the frame was read.
    #[error("a frame of {len} bytes is over the limit of {max}")]
    TooLong {
        /// The announced length, in bytes.
        len: usize,
        /// The longest frame that is allowed here, in bytes.
        max: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// Nothing arrived for too long.
    #[error("no progress for {} ms", .0.as_millis())]
    Stalled(Duration),
    /// Too many bytes of the same kind are held already.
    #[error("there is no room for it at this moment")]
    NoRoom,
    /// The stream or its connection is gone.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl FrameError {
    /// Whether the other side took its words back, by resetting the stream or by ending the connection, and
    /// did not send anything wrong.
    pub(crate) fn is_hang_up(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

/// The four bytes that come before a frame of `len` bytes.
///
/// # Errors
/// [`FrameError::TooLong`] when `len` is over `max`.
pub(crate) fn header(len: usize, max: usize) -> Result<[u8; 4], FrameError> {
    match u32::try_from(len) {
        Ok(announced) if len <= max => Ok(announced.to_be_bytes()),
        _ => Err(FrameError::TooLong { len, max }),
    }
}

/// Reads one frame; `None` when the stream ends before it. Each piece of the frame must arrive within
/// `stall`; the wait for its first byte is not bounded.
///
/// # Errors
/// As [`FrameError`] lists them. The stream is of no further use then.
pub(crate) async fn read<R>(stream: &mut R, max: usize, stall: Duration) -> Result<Option<Bytes>, FrameError>
where
    R: AsyncRead + Unpin,
{
    read_within(stream, max, stall, |_| true).await
}

/// Reads one frame as [`read`] does, and asks `room` before it reserves memory. In the end, `room` was asked
/// for all bytes of the frame, and at no time for more than twice the bytes that arrived and [`CHUNK_LEN`].
///
/// # Errors
/// As [`read`], and [`FrameError::NoRoom`] when `room` says no.
pub(crate) async fn read_within<R>(
    stream: &mut R,
    max: usize,
    stall: Duration,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Option<Bytes>, FrameError>
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
    let mut frame = Vec::new();
    let mut set_aside = 0;
    while frame.len() < len {
        if frame.len() == set_aside {
            let more = (len - set_aside).min(set_aside.max(CHUNK_LEN));
            if !room(more) {
                return Err(FrameError::NoRoom);
            }
            frame.reserve_exact(more);
            set_aside += more;
        }
        let mut limited = (&mut *stream).take((set_aside - frame.len()) as u64);
        if progress(stall, limited.read_buf(&mut frame)).await? == 0 {
            return Err(FrameError::Truncated);
        }
    }
    Ok(Some(frame.into()))
}

async fn progress<T>(stall: Duration, step: impl Future<Output = io::Result<T>>) -> Result<T, FrameError> {
    match timeout(stall, step).await {
        Err(_) => Err(FrameError::Stalled(stall)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
        Ok(result) => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_util::FutureExt;
    use proptest::prelude::*;
    use tokio::io::ReadBuf;

    use super::*;

    const STALL: Duration = Duration::from_secs(1);

    /// Gives out its bytes in small pieces, and remembers the largest buffer that it was offered.
    struct Source {
        bytes: Vec<u8>,
        at: usize,
        piece: usize,
        offered: usize,
    }

    impl Source {
        fn new(bytes: Vec<u8>, piece: usize) -> Self {
            Self { bytes, at: 0, piece, offered: 0 }
        }
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            room: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.offered = self.offered.max(room.remaining());
            let end = (self.at + self.piece.min(room.remaining())).min(self.bytes.len());
            room.put_slice(&self.bytes[self.at..end]);
            self.at = end;
            Poll::Ready(Ok(()))
        }
    }

    /// Reads outside of an async function, because the source is always ready.
    fn read_now(source: &mut Source, max: usize) -> Result<Option<Bytes>, FrameError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let _inside = runtime.enter();
        read(source, max, STALL).now_or_never().expect("ready")
    }

    fn framed(bytes: &[u8]) -> Vec<u8> {
        [&header(bytes.len(), usize::MAX).expect("short")[..], bytes].concat()
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let announced = header(200 << 20, 256 << 20).expect("allowed");
        let mut source = Source::new([&announced[..], b"ten bytes."].concat(), usize::MAX);
        assert!(matches!(read_now(&mut source, 256 << 20), Err(FrameError::Truncated)));
        assert!(source.offered <= CHUNK_LEN, "{} bytes were set aside", source.offered);
    }

    #[test]
    fn room_is_asked_for_as_the_bytes_arrive_and_a_refusal_ends_the_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let _inside = runtime.enter();
        let bytes = framed(&vec![7; 5 * CHUNK_LEN]);
        let mut asked = Vec::new();
        let mut source = Source::new(bytes.clone(), usize::MAX);
        let room = |bytes| {
            asked.push(bytes);
            true
        };
        let read = read_within(&mut source, usize::MAX, STALL, room).now_or_never().expect("ready");
        assert_eq!(read.expect("whole").expect("there"), bytes[4..]);
        assert_eq!(asked, [1, 1, 2, 1].map(|chunks| chunks * CHUNK_LEN));

        let mut source = Source::new(bytes, usize::MAX);
        let room = |bytes| bytes <= CHUNK_LEN;
        let read = read_within(&mut source, usize::MAX, STALL, room).now_or_never().expect("ready");
        assert!(matches!(read, Err(FrameError::NoRoom)), "{read:?}");
        assert_eq!(source.at, 4 + 2 * CHUNK_LEN);
    }

    #[test]
    fn a_length_over_the_cap_is_refused_before_its_bytes_are_read() {
        let mut source = Source::new(framed(b"12345"), usize::MAX);
        assert!(matches!(read_now(&mut source, 4), Err(FrameError::TooLong { len: 5, max: 4 })));
        assert_eq!(source.at, 4);
        assert!(matches!(header(5, 4), Err(FrameError::TooLong { len: 5, max: 4 })));
    }

    #[test]
    fn a_stream_may_end_before_a_frame_but_not_inside_one() {
        let whole = framed(b"abc");
        assert!(matches!(read_now(&mut Source::new(Vec::new(), 9), 9), Ok(None)));
        for len in 1..whole.len() {
            let result = read_now(&mut Source::new(whole[..len].to_vec(), 9), 9);
            assert!(matches!(result, Err(FrameError::Truncated)), "{len}: {result:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_stops_arriving_is_given_up_but_its_beginning_is_awaited() {
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let reading = read(&mut theirs, 9, STALL);
        let mut reading = std::pin::pin!(reading);
        assert!(tokio::time::timeout(100 * STALL, &mut reading).await.is_err());
        tokio::io::AsyncWriteExt::write_all(&mut ours, &framed(b"abc")[..5]).await.expect("write");
        assert!(matches!(reading.await, Err(FrameError::Stalled(_))));
    }

    #[test]
    fn fuzz_net_frames() {
        const MAX: usize = 1 << 20;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let _inside = runtime.enter();
        // The bound: what arrives, twice over while the buffer grows, and the first chunk of what is
        // announced.
        let target =
            blixard_hostile::Target::new("net-frames").len_max(8 << 10).heap_max(4 * CHUNK_LEN as u64);
        let target =
            target.valid(framed(b"")).valid(framed(b"abc")).valid([framed(b"a"), framed(&[9; 300])].concat());
        target.words([&[0, 0x0f, 0xff, 0xff][..], &[0, 0x10, 0, 1], &[0xff; 4]]).run(|mut bytes| {
            let mut frames = 0;
            loop {
                match read(&mut bytes, MAX, STALL).now_or_never().expect("ready") {
                    Ok(Some(frame)) if frame.len() <= MAX => frames += 1,
                    Ok(Some(frame)) => panic!("{} bytes", frame.len()),
                    Ok(None) => return format!("{} frames", "x".repeat(frames % 16)),
                    Err(error) => return error.to_string(),
                }
            }
        });
    }

    proptest! {
        #[test]
        fn frames_round_trip_in_pieces_of_any_size(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..5),
            piece in 1..700usize,
        ) {
            let bytes = frames.iter().flat_map(|frame| framed(frame)).collect();
            let mut source = Source::new(bytes, piece);
            for frame in &frames {
                let read = read_now(&mut source, 2000).expect("readable").expect("there");
                prop_assert_eq!(&read[..], &frame[..]);
            }
            prop_assert!(matches!(read_now(&mut source, 2000), Ok(None)));
        }

        #[test]
        fn any_bytes_end_in_a_frame_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            max in 0..300usize,
        ) {
            let mut source = Source::new(bytes, 64);
            while let Ok(Some(frame)) = read_now(&mut source, max) {
                prop_assert!(frame.len() <= max);
            }
        }
    }
}
