//! Every bound of this crate: sizes, queues, deadlines.

use std::time::Duration;

use blixard_model::backoff::Backoff;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PaceLimit {
    /// So many times at once ...
    pub(crate) burst: u32,
    /// ... and once more after each such time.
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
/// What arrived and was not taken by the application yet, in messages.
pub const INCOMING_QUEUE_MAX: usize = 1024;
/// Bytes of Raft messages that arrived and were not dropped by the application yet.
pub const INCOMING_RAFT_BYTES_MAX: usize = 64 << 20;
/// Streams that one peer may have open here at a time, of all kinds together. QUIC enforces it: more of them
/// wait to be opened.
pub const STREAMS_PER_PEER_MAX: u32 = 64;
/// Requests to one peer that may be under way at a time; more of them wait until their deadline.
pub const REQUESTS_PER_PEER_MAX: usize = 32;
/// Streamed answers of one peer that may be read at a time; more of them are refused at once. They last as
/// long as somebody follows them, so nothing else waits for their end.
pub const STREAMED_ANSWERS_PER_PEER_MAX: usize = 16;
/// Streamed answers that are sent to one peer at a time: a few more than it may read, because one that was
/// ended there goes on here for a moment.
pub const STREAMED_ANSWERS_TO_PEER_MAX: usize = STREAMED_ANSWERS_PER_PEER_MAX + 8;
/// Time without a sign of life after which a link counts as lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Relays that a node may have.
pub const RELAYS_MAX: usize = 4;

/// Joins under way here at a time, one at most from each source. More than a few addresses are needed to take
/// all of them.
pub const JOINS_MAX: usize = 16;
/// Longest request to join, in bytes.
pub const JOIN_REQUEST_LEN_MAX: usize = 8 << 10;
/// Endpoints that are known to have been removed. Those beyond are kept out as well, without their word.
pub const REMOVED_MAX: usize = 2_048;
/// Longest word about a removed endpoint, in bytes; of a longer one the beginning counts.
pub const REMOVED_WORD_LEN_MAX: usize = 64;

/// The pace of joins from one source.
pub(crate) const JOIN_PACE_OF_SOURCE: PaceLimit = PaceLimit { burst: 8, period: Duration::from_secs(1) };
/// The pace of all joins together: several sources at their pace leave room for another one.
pub(crate) const JOIN_PACE_OF_ALL: PaceLimit = PaceLimit { burst: 64, period: Duration::from_millis(125) };
/// Time for a whole join, the application's answer included.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest first message of a dialler and its answer, in bytes.
pub(crate) const HELLO_LEN_MAX: usize = 1024;
/// Snapshots to one peer that may be under way at a time.
const SNAPSHOTS_TO_PEER_MAX: usize = 1;
/// QUIC gives streams that ended back some at a time: so many of them may be missing for a while.
const STREAMS_IN_ARREARS_MAX: usize = STREAMS_PER_PEER_MAX as usize / 8;
// Each kind of stream has a share of its own, so none of them waits for another kind.
const _: () = assert!(
    REQUESTS_PER_PEER_MAX + STREAMED_ANSWERS_PER_PEER_MAX + SNAPSHOTS_TO_PEER_MAX + STREAMS_IN_ARREARS_MAX
        <= STREAMS_PER_PEER_MAX as usize
);
/// Snapshots of one peer that may arrive at a time. Together with those that the application has not dropped
/// yet they may take [`SNAPSHOT_LEN_MAX`] of memory.
pub(crate) const INBOUND_SNAPSHOTS_PER_PEER_MAX: usize = 1;
/// Bytes of snapshots that arrive or were not dropped by the application yet, of all peers together. They are
/// counted when memory is set aside for what really arrives, at most twice that and a chunk, so a snapshot
/// that trickles in takes little. A peer that takes all it may leaves room for a whole snapshot of another
/// one; what finds no room is refused at once, and its sender tries again.
pub const INBOUND_SNAPSHOT_BYTES_MAX: usize = 2 * SNAPSHOT_LEN_MAX;
/// Inbound connections that have not said hello yet.
pub(crate) const HALF_OPEN_MAX: usize = 64;
/// Inbound connections from one validated source address that have not said hello yet.
pub(crate) const HALF_OPEN_PER_SOURCE_MAX: usize = 16;
/// Inbound connections from addresses of members, or with their keys through a relay, that have not said
/// hello yet. They are beside those of strangers.
pub(crate) const HALF_OPEN_MEMBERS_MAX: usize = 64;
/// Those from one member's address: it may dial again before an attempt was given up here.
pub(crate) const HALF_OPEN_PER_MEMBER_MAX: usize = 4;
/// From this many on, a stranger's address is validated before its handshake costs anything.
pub(crate) const HALF_OPEN_TRUSTING: usize = 16;
/// Connections of one peer that wait for its task.
pub(crate) const INBOX_MAX: usize = 4;
/// Items of a streamed answer that wait to be sent.
pub(crate) const REPLY_STREAM_QUEUE_MAX: usize = 16;
/// Several probes fit into [`IDLE_TIMEOUT`], so that one lost packet does not cost a link.
pub(crate) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(750);
/// A connection of another run of a peer takes the place of its link after so much silence on that: two
/// probes of a live peer fit in.
pub(crate) const RIVAL_PATIENCE: Duration = Duration::from_millis(1_600);
/// How often it is looked meanwhile whether the link is silent.
pub(crate) const RIVAL_LOOK_PERIOD: Duration = Duration::from_millis(50);
/// An agent with a peer's key that was not let in is named until it has not come again for so long: it tries
/// every [`CONNECT_BACKOFF`] at least.
pub(crate) const RIVAL_MEMORY: Duration = Duration::from_secs(10);
/// Round trip assumed until one was measured: that of a slow local network. Decides after how long a lost
/// first packet is sent again (three times this) and how long the end of an attempt that nobody answers takes
/// (nine times this).
pub(crate) const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Time for the QUIC handshake.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time without a relay after which that is worth a line in the log.
pub(crate) const RELAY_PATIENCE: Duration = Duration::from_secs(10);
/// Time for the hello after it, and for each step of a join.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which a transfer must make some progress.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which the receiver of a snapshot must have taken it, once it has all of it.
pub(crate) const SNAPSHOT_TAKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which all of a snapshot must have arrived: [`SNAPSHOT_LEN_MAX`] over a link of 8 Mbit/s. One that
/// trickles in would otherwise keep its memory and keep out the same peer's next.
pub(crate) const SNAPSHOT_ARRIVAL_TIMEOUT: Duration = Duration::from_secs(300);
/// Waits between two attempts to open the UDP socket.
pub(crate) const BIND_BACKOFF: Backoff = Backoff { first_ms: 100, longest_ms: 5_000 };
/// How often it is looked whether the endpoint still holds its socket.
pub(crate) const SOCKET_CHECK_PERIOD: Duration = Duration::from_secs(2);
/// Wait before a peer's task that ended by itself is started again.
pub(crate) const RESTART_WAIT: Duration = Duration::from_secs(1);
/// Waits between two attempts to connect.
pub(crate) const CONNECT_BACKOFF: Backoff = Backoff { first_ms: 100, longest_ms: 2_000 };
/// A link that lasted this long was a good one: the next attempt to connect comes at once.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(1);
/// Time for close frames to be acknowledged and tasks to end.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// What one stream may hold unread, in bytes. A snapshot under way delays a Raft message by about this much.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// What all streams of one connection may hold unread, in bytes.
pub(crate) const CONNECTION_WINDOW: u32 = 64 << 20;
/// Pieces in which a snapshot is read and written, in bytes.
pub(crate) const CHUNK_LEN: usize = 256 << 10;
/// Raft messages that are written at once.
pub(crate) const RAFT_BATCH_MAX: usize = 64;
/// Endpoints whose refusal was logged; beyond them strangers are only counted.
pub(crate) const REFUSALS_LOGGED_MAX: usize = 64;
// Both agents are seen to live while there are two of them.
const _: () = assert!(
    RIVAL_PATIENCE.as_millis() > 2 * KEEP_ALIVE_INTERVAL.as_millis()
        && RIVAL_MEMORY.as_millis() > 2 * (RIVAL_PATIENCE.as_millis() + CONNECT_BACKOFF.longest_ms as u128)
);
