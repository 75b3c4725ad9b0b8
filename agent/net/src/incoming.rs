//! What the network hands to the application.

use std::net::SocketAddr;

use blixard_model::EndpointId;
use bytes::Bytes;

use crate::link::reply::Reply;

/// What arrives from peers. `from` is proved by the handshake.
#[derive(Debug)]
pub enum Incoming {
    /// A Raft message. Drop the bytes soon: they count against what may wait
    /// ([`crate::limits::INCOMING_RAFT_BYTES_MAX`]).
    Raft {
        /// The sender.
        from: EndpointId,
        /// The message.
        bytes: Bytes,
    },
    /// A snapshot; it was confirmed to the sender when it entered this queue. Drop the bytes soon: they count
    /// against what this sender and all of them may have here
    /// ([`crate::limits::INBOUND_SNAPSHOT_BYTES_MAX`]).
    Snapshot {
        /// The sender.
        from: EndpointId,
        /// The snapshot.
        bytes: Bytes,
    },
    /// A question.
    Request {
        /// The asker.
        from: EndpointId,
        /// The question.
        bytes: Bytes,
        /// The duty to answer.
        reply: Reply,
    },
    /// Somebody asks to be let in; only while joins are served ([`crate::Net::serve_joins`]), and not
    /// necessarily a peer. At most [`crate::limits::JOINS_MAX`] are waiting for an answer, each for half a
    /// minute at most.
    Join {
        /// Who asks.
        from: EndpointId,
        /// Where its connection came from; `None` when that is no address.
        source: Option<SocketAddr>,
        /// Its request, at most [`crate::limits::JOIN_REQUEST_LEN_MAX`] bytes.
        bytes: Bytes,
        /// The duty to answer, with one frame.
        reply: Reply,
    },
}
