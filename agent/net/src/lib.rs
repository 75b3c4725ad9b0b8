//! Links to the other nodes, and bytes over them.
//!
//! Owns the node's key, the QUIC endpoint, which may be missing (`keeper`), and one task per peer (`peer`).
//! Knows who may talk to this node ([`Net::set_peers`]) and nothing of what is said: Raft messages,
//! snapshots, requests and answers are bytes here. Knows a ticket's text ([`ticket`]), not whether it admits
//! anybody. Never decides for the cluster, never retries a request, never waits for a peer on behalf of
//! another.
//!
//! What callers may rely on:
//! - `from` of everything that arrives is the key that the other side proved, and was in the list (but for
//!   joins, see below).
//! - A peer that is off the list can not send anything any more.
//! - A stranger is talked to only by the join protocol, only while [`Net::serve_joins`] says so, and can say
//!   one thing: `from` of an [`Incoming::Join`] alone need not have been in the list.
//! - Beside its peers, this node talks to the relays of its own list and to nobody; whatever a peer says of a
//!   relay.
//! - An endpoint that the cluster removed is no peer, whatever the list says, and is told so.
//! - [`Net::join`] sends nothing of its request before the other side proved its key and named the cluster.
//! - Sending never waits; what can not be sent is dropped, and the outcome says so.
//! - [`RequestError::NotSent`] means that the peer's application did not see the request.
//! - There is a [`Net`] whether or not there is an endpoint: one that can not be opened, or ended, is a state
//!   with a reason ([`Net::transport`]), and is tried again for as long as it takes.
//! - Every queue, frame, count and wait is bounded: [`limits`].

mod accept;
mod close;
mod context;
mod endpoint;
mod frame;
mod gate;
mod half_open;
mod hello;
mod inbound;
mod join;
mod join_accept;
mod joins;
mod keeper;
pub mod key;
pub mod limits;
mod link;
mod net;
mod path;
mod peer;
mod peer_keeper;
mod peers;
mod queue;
mod relay_list;
mod relays;
mod reply;
mod request;
mod snapshot;
mod snapshot_room;
mod state;
mod stats;
#[cfg(test)]
mod testing;
pub mod ticket;
mod transport;
mod whereabouts;
mod wire;

pub use endpoint::BindError;
pub use join::JoinError;
pub use key::NodeKey;
pub use net::{Incoming, Net, NetConfig, PeerConfig, StartError};
pub use queue::SendOutcome;
pub use relay_list::{RelayCa, RelayCaError, RelayList, RelayListError};
pub use reply::{AskerGone, Reply, ReplyStream};
pub use request::{NotSent, RequestError, ResponseStream, StreamBroken};
pub use snapshot::{SnapshotDelivery, SnapshotError};
pub use state::{DownReason, LinkState, Links};
pub use stats::{BackoffStats, DroppedStats, JoinStats, NetStats, PeerStats, RefusedStats};
pub use ticket::{JoinTicket, TicketTextError};
pub use transport::{TransportDown, TransportState};
