//! Inbound connections, from the first packet until the peer's task accepted or refused them.
//!
//! A stranger costs little: their number is bounded, in all and by source, every step has a deadline, and
//! beyond a few of them an address has to prove itself before anything is computed for it.

use std::net::SocketAddr;
use std::sync::Arc;

use blixard_model::EndpointId;
use bytes::Bytes;
use iroh::Endpoint;
use iroh::endpoint::{ConnectingError, Connection, Incoming, IncomingAddr, SendStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::close::Close;
use crate::context::Context;
use crate::half_open::{Admission, Place};
use crate::hello::{self, Hello, Welcome};
use crate::limits::{CONNECT_TIMEOUT, HELLO_LEN_MAX, HELLO_TIMEOUT};
use crate::peers::Inbound;
use crate::{frame, join_accept, key, wire};

/// Accepts connections until the endpoint ends. Its caller ends it when the node stops.
pub(crate) async fn accept_all(context: &Arc<Context>, endpoint: &Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let refused = &context.peers.refused;
        let validated = incoming.remote_addr_validated();
        let source = match incoming.remote_addr() {
            IncomingAddr::Ip(address) => Some(address),
            _ => None,
        };
        let place = match context.half_open.admit(source.map(|source| source.ip()), validated) {
            Admission::Admitted(place) => place,
            Admission::Validate => {
                // Fails only for an address that is validated.
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
        let context = Arc::clone(context);
        let tracker = context.tracker.clone();
        tracker.spawn(async move {
            context.cancel.run_until_cancelled(greet(&context, incoming, source, place)).await;
        });
    }
}

async fn greet(context: &Context, incoming: Incoming, source: Option<SocketAddr>, place: Place) {
    let refused = &context.peers.refused;
    let connection = match timeout(CONNECT_TIMEOUT, incoming).await {
        Ok(Ok(connection)) => connection,
        // Counted where it was decided: not in the list.
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
    let id = key::endpoint_id(connection.remote_id());
    if connection.alpn() == wire::JOIN_ALPN {
        return join_accept::serve(context, id, source, &connection, place).await;
    }
    let result = match timeout(HELLO_TIMEOUT, introduce(context, id, &connection)).await {
        Ok(result) => result,
        Err(_) => {
            refused.no_hello.add(1);
            Err(Close::Broken("no hello in time".to_owned()))
        }
    };
    if let Err(close) = result {
        match &close {
            Close::Refused(why) => {
                refused.bad_hello.add(1);
                context.peers.log_refusal(id, why);
            }
            Close::NotListed => refused.not_listed.add(1),
            Close::Left(_) => refused.removed.add(1),
            _ => {}
        }
        tracing::debug!(peer = %id.short(), reason = %close.text(), "inbound connection closed");
        close.apply(&connection);
    }
    drop(place);
}

/// Hears the hello and lets the peer's task decide.
async fn introduce(context: &Context, id: EndpointId, connection: &Connection) -> Result<(), Close> {
    let gone = |_| Close::Broken("the connection ended".to_owned());
    let (mut send, mut receive) = connection.accept_bi().await.map_err(gone)?;
    let bytes = wire::read_frame(&mut receive, HELLO_LEN_MAX, HELLO_TIMEOUT).await;
    let bytes = bytes.map_err(|error| match connection.close_reason() {
        // The dialler gave way to this node's own attempt.
        Some(reason) => Close::Broken(reason.to_string()),
        None => Close::Refused(format!("the hello can not be read: {error}")),
    })?;
    let hello = Hello::parse(&bytes, &context.cluster_name).map_err(Close::Refused)?;
    // The list may have changed since the handshake.
    context.peers.check(&id)?;
    let peer = context.peers.get(&id).ok_or(Close::NotListed)?;
    let (verdict, answer) = oneshot::channel();
    let inbound = Inbound { connection: connection.clone(), hello, verdict };
    peer.inbox.try_send(inbound).map_err(|_| Close::Broken("too many connections at a time".to_owned()))?;
    let task_ended = || match peer.parting.get() {
        _ if context.cancel.is_cancelled() => Close::Shutdown,
        Some(parting) => parting.clone(),
        None => Close::Unlisted,
    };
    answer.await.unwrap_or_else(|_| Err(task_ended()))?;

    // From here on the connection is the task's. Where the welcome can not be written the dialler is gone or
    // will give up, and the task sees that.
    if let Err(why) = welcome(context, &mut send).await {
        tracing::debug!(peer = %id.short(), reason = why, "no welcome");
    }
    Ok(())
}

async fn welcome(context: &Context, send: &mut SendStream) -> Result<(), String> {
    let welcome = hello::encode(&Welcome { incarnation: context.incarnation })?;
    let header = frame::header(welcome.len(), HELLO_LEN_MAX).map_err(|error| error.to_string())?;
    let mut chunks = [Bytes::copy_from_slice(&header), welcome.into()];
    wire::write(send, &mut chunks).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())
}
