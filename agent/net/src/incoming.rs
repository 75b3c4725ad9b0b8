//! What the network hands to the application.

use std::net::SocketAddr;

use blixard_model::EndpointId;
use bytes::Bytes;

use crate::link::reply::Reply;

/// What arrives over the network. `from` is the key that the sender proved in the handshake.
#[derive(Debug)]
pub enum Incoming {
    /// A Raft message. Drop the bytes soon: until then they count against
    /// [`crate::limits::INCOMING_RAFT_BYTES_MAX`].
    Raft {
        /// The sender.
        from: EndpointId,
        /// The message.
        bytes: Bytes,
    },
    /// A snapshot. It is confirmed to the sender once it is in this queue. Drop the bytes soon: until then
    /// they count against what this sender, and all senders together, may have here
    /// ([`crate::limits::INBOUND_SNAPSHOT_BYTES_MAX`]).
    Snapshot {
        /// The sender.
        from: EndpointId,
        /// The snapshot.
        bytes: Bytes,
    },
    /// A request.
    Request {
        /// The asker.
        from: EndpointId,
        /// The request.
        bytes: Bytes,
        /// Must be used to answer.
        reply: Reply,
    },
    /// A request to join the cluster. It arrives only while joins are served ([`crate::Net::serve_joins`]),
    /// and its sender need not be a peer. At most [`crate::limits::JOINS_MAX`] of them wait for an answer,
    /// each for at most half a minute.
    Join {
        /// The node that asks.
        from: EndpointId,
        /// The IP address that the connection came from; `None` when it did not come directly, for example
        /// through a relay.
        source: Option<SocketAddr>,
        /// The request, at most [`crate::limits::JOIN_REQUEST_LEN_MAX`] bytes.
        bytes: Bytes,
        /// Must be used to answer, with one frame.
        reply: Reply,
    },
}
