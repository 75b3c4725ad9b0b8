//! Links to the other nodes, and bytes over them.
//!
//! Owns the node's key, the QUIC endpoint, which may be missing (`socket`), and one task per peer (`link`).
//! Knows who may talk to this node ([`Net::set_peers`]) and nothing of what is said: Raft messages,
//! snapshots, requests and answers are bytes here. Knows a ticket's text ([`ticket`]), not whether it admits
//! anybody. Never decides for the cluster, never retries a request, never waits for a peer on behalf of
//! another.
//!
//! What callers may rely on:
//! - `from` of everything that arrives is the key that the other side proved, and was in the list (but for
//!   joins, see below).
//! - A peer that is off the list cannot send anything any more.
//! - A stranger is talked to only by the join protocol, only while [`Net::serve_joins`] says so, and can say
//!   one thing: `from` of an [`Incoming::Join`] alone need not have been in the list.
//! - Beside its peers, this node talks to the relays of its own list and to nobody; whatever a peer says of a
//!   relay.
//! - An endpoint that the cluster removed is no peer, whatever the list says, and is told so.
//! - [`Net::join`] sends nothing of its request before the other side proved its key and named the cluster.
//! - Sending never waits; what cannot be sent is dropped, and the outcome says so.
//! - [`RequestError::NotSent`] means that the peer's application did not see the request.
//! - There is a [`Net`] whether or not there is an endpoint: one that cannot be opened, or ended, is a state
//!   with a reason ([`Net::transport`]), and is tried again for as long as it takes.
//! - Every queue, frame, count and wait is bounded: [`limits`].
//!
//! | room | what is in it |
//! |---|---|
//! | `socket` | the endpoint on its UDP socket, the relays, the table of protocols |
//! | `admission` | inbound connections until a protocol takes them, and the list of peers |
//! | `link` | the protocol between members, one task per peer |
//! | `join` | the protocol with strangers who have a ticket, and the ticket's text |
//! | `wire` | streams, frames and close codes as both protocols use them |
//!
//! A new protocol implements `socket::protocol::Protocol` and is put into the table that [`Net::start`]
//! makes; a new kind of stream on a link implements `link::stream_kind::StreamKind` and is put into the table
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
pub use join::ticket::{JoinTicket, TicketTextError};
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
