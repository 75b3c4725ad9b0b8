//! Inbound connections, from the first packet until their protocol takes them over.
//!
//! A stranger costs little: the number of strangers is bounded, in all and by source; every step has a
//! deadline; and beyond a few of them, a source address must be validated before anything is computed for it.

use std::net::SocketAddr;
use std::sync::Arc;

use iroh::Endpoint;
use iroh::endpoint::{ConnectingError, Incoming, IncomingAddr};
use tokio::time::timeout;

use crate::admission::half_open::{Admission, ConnectionSource, HalfOpenPlace};
use crate::context::Context;
use crate::key;
use crate::limits::CONNECT_TIMEOUT;
use crate::socket::protocol::{InboundConnection, Protocols};

/// Accepts connections until the endpoint ends. The caller drops this future when the node stops.
pub(crate) async fn accept_all(context: &Arc<Context>, protocols: &Arc<Protocols>, endpoint: &Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let refused = &context.peers.refused;
        let validated = incoming.remote_addr_validated();
        let (address, source) = match incoming.remote_addr() {
            IncomingAddr::Ip(address) => (Some(address), ConnectionSource::Address(address.ip())),
            IncomingAddr::Relay { endpoint_id, .. } => {
                (None, ConnectionSource::Relay(key::endpoint_id(endpoint_id)))
            }
            _ => (None, ConnectionSource::Unknown),
        };
        let is_member = context.peers.are_at(source);
        let place = match context.half_open.admit(source, validated, is_member) {
            Admission::Admitted(place) => place,
            Admission::Validate => {
                // Fails only for an address that is validated already.
                let _ = incoming.retry();
                continue;
            }
            Admission::Crowded => {
                refused.crowded.add(1);
                incoming.refuse();
                continue;
            }
            Admission::CrowdedSource => {
                refused.crowded_source.add(1);
                incoming.refuse();
                continue;
            }
        };
        let (context, protocols) = (Arc::clone(context), Arc::clone(protocols));
        let tracker = context.tracker.clone();
        tracker.spawn(async move {
            let served = serve(&context, &protocols, incoming, address, place);
            context.cancel.run_until_cancelled(served).await;
        });
    }
}

async fn serve(
    context: &Context,
    protocols: &Protocols,
    incoming: Incoming,
    source: Option<SocketAddr>,
    place: HalfOpenPlace,
) {
    let refused = &context.peers.refused;
    let connection = match timeout(CONNECT_TIMEOUT, incoming).await {
        Ok(Ok(connection)) => connection,
        // Not counted here: the protocol that rejected the connection in the gate has counted it.
        Ok(Err(ConnectingError::LocallyRejected { .. })) => return,
        Ok(Err(error)) => {
            refused.handshake.add(1);
            tracing::debug!(reason = %error, "inbound handshake failed");
            return;
        }
        Err(_) => {
            refused.handshake.add(1);
            return;
        }
    };
    // The handshake can only agree on a protocol that was offered, and such a protocol is in the table.
    let Some(protocol) = protocols.get(connection.alpn()) else { return };
    let from = key::endpoint_id(connection.remote_id());
    protocol.serve(InboundConnection { connection, from, source, place }).await;
}
