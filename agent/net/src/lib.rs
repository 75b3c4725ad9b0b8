//! Links to the other nodes, and bytes over them.
//!
//! This crate owns the node's key, the QUIC endpoint, which may be missing (`socket`), and one task per peer
//! (`link`). It knows who may talk to this node ([`Net::set_peers`]) and nothing of what is said: Raft
//! messages, snapshots, requests and answers are bytes here. It knows the text form of a ticket ([`ticket`]),
//! but not whether a ticket admits anybody. It never decides for the cluster, never retries a request, and
//! never makes one peer wait for another.
//!
//! What callers may rely on:
//! - The `from` of everything that arrives is the key that the other side proved. Except for joins (see
//!   below), this key was in the list.
//! - A peer that was taken off the list cannot send anything any more.
//! - A stranger can use only the join protocol, only while [`Net::serve_joins`] allows it, and can send one
//!   request. [`Incoming::Join`] is the only message whose `from` need not have been in the list.
//! - Beside its peers and the contacts of [`Net::join`], this node talks only to the relays of its own list,
//!   whatever a peer says about relays.
//! - An endpoint that the cluster removed is no peer, whatever the list says, and is told so.
//! - [`Net::join`] sends nothing of its request before the other side has proved its key and named the
//!   cluster.
//! - [`Net::send_raft`] and [`Net::send_snapshot`] never wait; what cannot be sent is dropped, and the
//!   outcome says so.
//! - [`RequestError::NotSent`] means that the peer's application did not see the request.
//! - There is a [`Net`] whether or not there is an endpoint. That an endpoint cannot be opened, or has ended,
//!   is a state with a reason ([`Net::transport`]), and opening it is tried again until it succeeds.
//! - Every queue, frame, count and wait is bounded: [`limits`].
//!
//! | module | what is in it |
//! |---|---|
//! | `socket` | the endpoint on its UDP socket, the relays, the table of protocols |
//! | `admission` | inbound connections until a protocol takes them, and the list of peers |
//! | `link` | the protocol between members, one task per peer |
//! | `join` | the protocol with strangers who have a ticket, and the ticket's text |
//! | `wire` | streams, frames and close codes as both protocols use them |
//!
//! A new protocol implements `socket::protocol::Protocol` and is added to the table that [`Net::start`]
//! makes. A new kind of stream on a link implements `link::stream_kind::StreamKind` and is added to the table
//! of `link::streams`.

mod admission;
mod context;
mod incoming;
mod join;
pub mod key;
pub mod limits;
mod link;
mod net;
mod socket;
mod state;
mod stats;
#[cfg(test)]
mod testing;
mod wire;

pub use incoming::Incoming;
pub use join::ask::JoinError;
pub use join::ticket;
pub use join::ticket::TicketTextError;
pub use key::NodeKey;
pub use link::queue::SendOutcome;
pub use link::reply::{AskerGone, Reply, ReplyStream};
pub use link::request::{NotSent, RequestError, ResponseStream, StreamBroken};
pub use link::snapshot::{SnapshotDelivery, SnapshotError};
pub use net::{Net, NetConfig, NetStartError, PeerConfig};
pub use socket::bind_error::EndpointBindError;
pub use socket::families::{AddressError, IpFamilies, check_address};
pub use socket::relay_list::{RelayCa, RelayCaError, RelayList, RelayListError};
pub use socket::transport::{TransportDown, TransportState};
pub use state::{DownReason, HeldElsewhere, LinkState, Links, Rival};
pub use stats::{BackoffStats, DroppedStats, JoinStats, NetStats, PeerStats, RefusedStats};
