//! The protocols that this node's endpoint speaks, by their names in the QUIC handshake.
//!
//! What a protocol does with its connections is its own matter; here is only what the endpoint has to know of
//! each protocol. The table is made once, when the network starts.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use blixard_model::EndpointId;
use futures_util::future::BoxFuture;
use iroh::endpoint::Connection;

use crate::admission::half_open::HalfOpenPlace;
use crate::socket::transport::Transport;
use crate::wire::close::Close;

/// Which end of a connection this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionSide {
    /// This node dialled.
    Dialled,
    /// The other side dialled.
    Accepted,
}

/// An inbound connection that passed the handshake and the gate.
#[derive(Debug)]
pub(crate) struct InboundConnection {
    pub(crate) connection: Connection,
    /// The key that the other side proved.
    pub(crate) from: EndpointId,
    /// The address that its packets come from; `None` when they come through a relay.
    pub(crate) source: Option<SocketAddr>,
    /// Counts the connection among those that have not introduced themselves. The protocol drops it once the
    /// other side has done so.
    pub(crate) place: HalfOpenPlace,
}

/// One protocol of the endpoint.
pub(crate) trait Protocol: Debug + Send + Sync {
    /// Its name in the QUIC handshake (ALPN).
    fn alpn(&self) -> &'static [u8];

    /// Whether the protocol is offered at this moment. While it is not, the handshake of a node that asks for
    /// it fails.
    fn is_offered(&self) -> bool;

    /// Decides about a connection right after the handshake has proved the other side's key, before any of
    /// its bytes are read. Counts the connections that it refuses.
    ///
    /// # Errors
    /// The reason to close the connection with.
    fn admit(&self, other: EndpointId, side: ConnectionSide) -> Result<(), Close>;

    /// Speaks the protocol on an inbound connection, until the connection ends or another task has taken it
    /// over. Every wait for the other side has a deadline.
    fn serve(&self, inbound: InboundConnection) -> BoxFuture<'_, ()>;
}

/// All protocols of an endpoint, in the order in which they are offered.
#[derive(Debug)]
pub(crate) struct Protocols {
    all: Vec<Box<dyn Protocol>>,
    announcing: Mutex<()>,
}

impl Protocols {
    pub(crate) fn new(all: Vec<Box<dyn Protocol>>) -> Self {
        Self { all, announcing: Mutex::default() }
    }

    /// The protocol of that name.
    pub(crate) fn get(&self, alpn: &[u8]) -> Option<&dyn Protocol> {
        self.all.iter().map(|protocol| &**protocol).find(|protocol| protocol.alpn() == alpn)
    }

    /// The names to offer in handshakes from now on.
    pub(crate) fn offered(&self) -> Vec<Vec<u8>> {
        let offered = self.all.iter().filter(|protocol| protocol.is_offered());
        offered.map(|protocol| protocol.alpn().to_vec()).collect()
    }

    /// Tells the endpoint which protocols are offered. Called when that changed, and when the endpoint is
    /// new.
    pub(crate) fn announce(&self, transport: &Transport) {
        // The last one to hold the lock sees every change that was made before it.
        let _last_word = self.announcing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = transport.endpoint() {
            endpoint.set_alpns(self.offered());
        }
    }
}
