//! The first gate: right after the handshake proved the other side's key, before any of its bytes are read.

use std::sync::Arc;

use iroh::endpoint::{AfterHandshakeOutcome, Connection, EndpointHooks};

use crate::close::Close;
use crate::context::Context;
use crate::joins::Joins;
use crate::key;
use crate::peers::Peers;
use crate::wire::JOIN_ALPN;

/// Lets the peers in the list through, and everybody who joins while joins are served.
#[derive(Debug)]
pub(crate) struct Gate {
    peers: Arc<Peers>,
    joins: Arc<Joins>,
}

impl Gate {
    pub(crate) fn of(context: &Context) -> Self {
        Self { peers: Arc::clone(&context.peers), joins: Arc::clone(&context.joins) }
    }

    fn judge(&self, connection: &Connection) -> Result<(), Close> {
        let (id, refused) = (key::endpoint_id(connection.remote_id()), &self.peers.refused);
        if connection.alpn() == JOIN_ALPN {
            // Of this node's own attempts the one who made them knows.
            if connection.side().is_client() || self.joins.served().is_some() {
                return Ok(());
            }
            refused.join_not_served.add(1);
            return Err(Close::NoJoins);
        }
        self.peers.check(&id).inspect_err(|close| match close {
            Close::Left(word) => {
                refused.removed.add(1);
                self.peers.log_refusal(id, &format!("removed from the cluster ({word})"));
            }
            _ => {
                refused.not_listed.add(1);
                self.peers.log_refusal(id, "not in the list of members");
            }
        })
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
