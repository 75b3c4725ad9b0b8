//! Every bound of this crate: sizes, queues, deadlines.

use std::time::Duration;

use blixard_model::backoff::Backoff;

/// A rate limit: a burst, and after it one more for each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PaceLimit {
    /// How many may come at once.
    pub(crate) burst: u32,
    /// After a burst, one more may come after each such time.
    pub(crate) period: Duration,
}

/// Largest Raft message, in bytes.
pub const RAFT_FRAME_LEN_MAX: usize = 8 << 20;
/// Largest snapshot, in bytes.
pub const SNAPSHOT_LEN_MAX: usize = 256 << 20;
/// Largest request, answer or streamed item, in bytes.
pub const REQUEST_LEN_MAX: usize = blixard_model::wire::FRAME_LEN_MAX;
/// Raft messages that wait for one peer.
pub const RAFT_QUEUE_FRAMES_MAX: usize = 1024;
/// Bytes of Raft messages that wait for one peer.
pub const RAFT_QUEUE_BYTES_MAX: usize = 32 << 20;
/// Snapshots that wait for one peer, beside the one under way.
pub const SNAPSHOT_QUEUE_MAX: usize = 1;
/// Messages of all kinds that arrived and were not yet taken by the application.
pub const INCOMING_QUEUE_MAX: usize = 1024;
/// Bytes of Raft messages that arrived and were not yet dropped by the application.
pub const INCOMING_RAFT_BYTES_MAX: usize = 64 << 20;
/// Streams of all kinds together that one peer may have open to this node at a time. QUIC enforces it: a peer
/// that wants to open more of them waits.
pub const STREAMS_PER_PEER_MAX: u32 = 64;
/// Requests to one peer that may be under way at a time; further requests wait until their deadline.
pub const REQUESTS_PER_PEER_MAX: usize = 32;
/// Streamed answers of one peer that may be read at a time; a further one is refused at once. A streamed
/// answer lasts as long as somebody follows it, so nothing waits for its end.
pub const STREAMED_ANSWERS_PER_PEER_MAX: usize = 16;
/// Streamed answers that are sent to one peer at a time. The number is a little higher than what a peer may
/// read, because an answer that its reader has ended goes on here for a moment.
pub const STREAMED_ANSWERS_TO_PEER_MAX: usize = STREAMED_ANSWERS_PER_PEER_MAX + 8;
/// Time without a sign of life after which a link counts as lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Most relays that a node's list may hold.
pub const RELAYS_MAX: usize = 4;

/// Joins that may be under way at this node at a time, at most one from each source. A few addresses are not
/// enough to take all of them.
pub const JOINS_MAX: usize = 16;
/// Longest request to join, in bytes.
pub const JOIN_REQUEST_LEN_MAX: usize = 8 << 10;
/// Removed endpoints of which the text is kept. Removed endpoints beyond this number are refused as well, but
/// without their text.
pub const REMOVED_MAX: usize = 2_048;
/// Longest text about a removed endpoint, in bytes; a longer one is truncated.
pub const REMOVED_WORD_LEN_MAX: usize = 64;

/// Rate limit of joins from one source.
pub(crate) const JOIN_PACE_OF_SOURCE: PaceLimit = PaceLimit { burst: 8, period: Duration::from_secs(1) };
/// Rate limit of all joins together. Several sources at their own limits leave room for another source.
pub(crate) const JOIN_PACE_OF_ALL: PaceLimit = PaceLimit { burst: 64, period: Duration::from_millis(125) };
/// Time for a whole join, the application's answer included.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest hello, welcome, or first message of a join, in bytes.
pub(crate) const HELLO_LEN_MAX: usize = 1024;
/// Snapshots to one peer that may be under way at a time.
const SNAPSHOTS_TO_PEER_MAX: usize = 1;
/// After streams have ended, QUIC gives their credit back in batches: this many streams may be missing for a
/// while.
const STREAMS_IN_ARREARS_MAX: usize = STREAMS_PER_PEER_MAX as usize / 8;
// Each kind of stream has a share of its own, so none of them waits for another kind.
const _: () = assert!(
    REQUESTS_PER_PEER_MAX + STREAMED_ANSWERS_PER_PEER_MAX + SNAPSHOTS_TO_PEER_MAX + STREAMS_IN_ARREARS_MAX
        <= STREAMS_PER_PEER_MAX as usize
);
/// Snapshots of one peer that may be arriving at a time. Together with those that the application has not
/// dropped yet they may take [`SNAPSHOT_LEN_MAX`] bytes of memory.
pub(crate) const INBOUND_SNAPSHOTS_PER_PEER_MAX: usize = 1;
/// Bytes of snapshots, of all peers together, that are arriving or were not yet dropped by the application.
/// Bytes are counted when memory is reserved for data that really arrives, which is at most twice the data
/// and one chunk, so a snapshot that trickles in takes little. A peer that takes all it may leaves room for a
/// whole snapshot of another peer. A snapshot that finds no room is refused at once, and its sender tries
/// again.
pub const INBOUND_SNAPSHOT_BYTES_MAX: usize = 2 * SNAPSHOT_LEN_MAX;
/// Inbound connections of strangers that have not said hello yet.
pub(crate) const HALF_OPEN_MAX: usize = 64;
/// Inbound connections from one validated source address that have not said hello yet.
pub(crate) const HALF_OPEN_PER_SOURCE_MAX: usize = 16;
/// Inbound connections that have not said hello yet, and come from the address of a member, or with a
/// member's key through a relay. They are counted apart from those of strangers.
pub(crate) const HALF_OPEN_MEMBERS_MAX: usize = 64;
/// Inbound connections of one member that have not said hello yet. More than one is allowed, because a member
/// may dial again before its last attempt was given up here.
pub(crate) const HALF_OPEN_PER_MEMBER_MAX: usize = 4;
/// From this many half-open connections of strangers on, a source address is validated before its handshake
/// costs anything.
pub(crate) const HALF_OPEN_TRUSTING: usize = 16;
/// Connections of one peer that said hello and wait for the peer's task.
pub(crate) const INBOX_MAX: usize = 4;
/// Items of a streamed answer that wait to be sent.
pub(crate) const REPLY_STREAM_QUEUE_MAX: usize = 16;
/// Interval of QUIC's keep-alive packets. Several of them fit into [`IDLE_TIMEOUT`], so that one lost packet
/// does not cost a link.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(750);
/// How long a link must be silent before a connection of another run of the same peer takes its place. Two
/// keep-alive packets of a live peer fit into this time.
pub(crate) const RIVAL_PATIENCE: Duration = Duration::from_millis(1_600);
/// How often the silence of the link is checked while a connection of another run waits.
pub(crate) const RIVAL_LOOK_PERIOD: Duration = Duration::from_millis(50);
/// How long a refused agent with a peer's key is named after its last attempt. Such an agent tries again
/// within the longest wait of [`CONNECT_BACKOFF`].
pub(crate) const RIVAL_MEMORY: Duration = Duration::from_secs(10);
/// Round-trip time that is assumed until one was measured: that of a slow local network. It decides after how
/// long a lost first packet is sent again (three times this), and how long it takes to end an attempt that
/// nobody answers (nine times this).
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Time for the QUIC handshake.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time without a connection to a relay after which that is logged.
pub(crate) const RELAY_PATIENCE: Duration = Duration::from_secs(10);
/// Time for the exchange of hello and welcome after the handshake, for the first byte of a stream, and for
/// each step of a join.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which a transfer must make some progress.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the sender of a snapshot waits for the receiver to confirm it, after the last byte was written.
pub(crate) const SNAPSHOT_TAKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time within which a whole snapshot must have arrived: [`SNAPSHOT_LEN_MAX`] over a link of 8 Mbit/s. A
/// snapshot that trickles in would otherwise keep its memory, and keep the same peer's next snapshot out.
pub(crate) const SNAPSHOT_ARRIVAL_TIMEOUT: Duration = Duration::from_secs(300);
/// Waits between two attempts to open the UDP socket.
pub(crate) const BIND_BACKOFF: Backoff = Backoff { first_ms: 100, longest_ms: 5_000 };
/// How often it is checked whether the endpoint still holds its socket.
pub(crate) const SOCKET_CHECK_PERIOD: Duration = Duration::from_secs(2);
/// Wait before a peer's task that ended by itself is started again.
pub(crate) const RESTART_WAIT: Duration = Duration::from_secs(1);
/// Waits between two attempts to connect.
pub(crate) const CONNECT_BACKOFF: Backoff = Backoff { first_ms: 100, longest_ms: 2_000 };
/// A link that lasted at least this long resets the backoff: the next attempt to connect comes at once.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(1);
/// Time for close frames to be acknowledged and tasks to end.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Receive window of one stream: what it may hold unread, in bytes. A snapshot under way delays a Raft
/// message by about this much.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// Receive window of one connection: what all its streams together may hold unread, in bytes.
pub(crate) const CONNECTION_WINDOW: u32 = 64 << 20;
/// Pieces in which a snapshot is read and written, in bytes.
pub(crate) const CHUNK_LEN: usize = 256 << 10;
/// Raft messages that are written at once.
pub(crate) const RAFT_BATCH_MAX: usize = 64;
/// Refusals that are logged, of peers and of strangers each. Further refusals are only counted.
pub(crate) const REFUSALS_LOGGED_MAX: usize = 64;
// While two agents run with one key, both are seen to be alive: two keep-alive packets fit into the patience,
// and two attempts of the refused agent into the memory.
const _: () = assert!(
    RIVAL_PATIENCE.as_millis() > 2 * KEEP_ALIVE_INTERVAL.as_millis()
        && RIVAL_MEMORY.as_millis() > 2 * (RIVAL_PATIENCE.as_millis() + CONNECT_BACKOFF.longest_ms as u128)
);
