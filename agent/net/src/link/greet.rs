//! The link protocol, on the side that is dialled: reads the hello and lets the peer's task decide.

use std::sync::Arc;

use blixard_model::EndpointId;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use iroh::endpoint::{Connection, SendStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::admission::peers::GreetedConnection;
use crate::context::Context;
use crate::limits::{HELLO_LEN_MAX, HELLO_TIMEOUT};
use crate::link::hello::{self, Hello, Welcome};
use crate::socket::protocol::{ConnectionSide, InboundConnection, Protocol};
use crate::wire;
use crate::wire::close::Close;
use crate::wire::frame;

/// The link protocol: always offered, and spoken with the peers in the list.
#[derive(Debug)]
pub(crate) struct LinkProtocol {
    context: Arc<Context>,
}

impl LinkProtocol {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

impl Protocol for LinkProtocol {
    fn alpn(&self) -> &'static [u8] {
        wire::LINK_ALPN
    }

    fn is_offered(&self) -> bool {
        true
    }

    fn admit(&self, other: EndpointId, _side: ConnectionSide) -> Result<(), Close> {
        let (peers, refused) = (&self.context.peers, &self.context.peers.refused);
        peers.check(&other).inspect_err(|close| match close {
            Close::Left(word) => {
                refused.removed.add(1);
                peers.log_refusal(other, &format!("removed from the cluster ({word})"));
            }
            _ => {
                refused.not_listed.add(1);
                peers.log_refusal(other, "not in the list of members");
            }
        })
    }

    fn serve(&self, inbound: InboundConnection) -> BoxFuture<'_, ()> {
        greet(&self.context, inbound).boxed()
    }
}

async fn greet(context: &Context, inbound: InboundConnection) {
    let InboundConnection { connection, from, source: _, place } = inbound;
    let refused = &context.peers.refused;
    let result = match timeout(HELLO_TIMEOUT, introduce(context, from, &connection)).await {
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
                context.peers.log_refusal(from, why);
            }
            Close::NotListed => refused.not_listed.add(1),
            Close::Left(_) => refused.removed.add(1),
            _ => {}
        }
        tracing::debug!(peer = %from.short(), reason = %close.text(), "inbound connection closed");
        close.apply(&connection);
    }
    drop(place);
}

/// Reads the hello and lets the peer's task decide.
async fn introduce(context: &Context, id: EndpointId, connection: &Connection) -> Result<(), Close> {
    let gone = |_| Close::Broken("the connection ended".to_owned());
    let (mut send, mut receive) = connection.accept_bi().await.map_err(gone)?;
    let bytes = wire::read_introduction(&mut receive, HELLO_LEN_MAX, HELLO_TIMEOUT).await;
    let bytes = bytes.map_err(|error| Close::Refused(format!("the hello cannot be read: {error}")))?;
    // The dialler may have given way to this node's own attempt.
    let bytes = bytes.ok_or_else(|| Close::Broken("the dialler hung up before its hello".to_owned()))?;
    let hello = Hello::parse(&bytes, &context.cluster_name).map_err(Close::Refused)?;
    // The list may have changed since the handshake.
    context.peers.check(&id)?;
    let peer = context.peers.get(&id).ok_or(Close::NotListed)?;
    let (verdict, answer) = oneshot::channel();
    let inbound = GreetedConnection { connection: connection.clone(), hello, verdict };
    peer.inbox.try_send(inbound).map_err(|_| Close::Broken("too many connections at a time".to_owned()))?;
    let task_ended = || match peer.parting.get() {
        _ if context.cancel.is_cancelled() => Close::Shutdown,
        Some(parting) => parting.clone(),
        None => Close::Unlisted,
    };
    answer.await.unwrap_or_else(|_| Err(task_ended()))?;

    // From here on the task owns the connection. If the welcome cannot be written, the dialler is gone or
    // will give up, and the task notices that.
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
