//! The first check of a connection: right after the handshake has proved the other side's key, and before any
//! of its bytes are read. The protocol of the connection decides.

use std::sync::Weak;

use iroh::endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks};

use crate::key;
use crate::socket::protocol::{ConnectionSide, Protocols};
use crate::wire::close::Close;

/// Asks the protocol of each connection whether the connection may go on.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Weak, because the endpoint holds this gate and the protocols hold the endpoint: otherwise neither
    /// would be dropped.
    protocols: Weak<Protocols>,
}

impl Gate {
    pub(crate) fn new(protocols: Weak<Protocols>) -> Self {
        Self { protocols }
    }

    fn judge(&self, connection: &Connection) -> Result<(), Close> {
        let Some(protocols) = self.protocols.upgrade() else { return Err(Close::Shutdown) };
        let Some(protocol) = protocols.get(connection.alpn()) else {
            return Err(Close::Broken("a protocol that this node does not speak".to_owned()));
        };
        let side = match connection.side().is_client() {
            true => ConnectionSide::Dialled,
            false => ConnectionSide::Accepted,
        };
        protocol.admit(key::endpoint_id(connection.remote_id()), side)
    }
}

impl EndpointHooks for Gate {
    async fn after_handshake<'a>(&'a self, connection: &'a Connection) -> AfterHandshakeOutcome {
        match self.judge(connection) {
            Ok(()) => AfterHandshakeOutcome::Accept,
            Err(close) => AfterHandshakeOutcome::Reject {
                error_code: close.code(),
                reason: close.text().as_bytes().to_vec(),
            },
        }
    }
}
