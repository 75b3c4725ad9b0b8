//! The answering side of a join: a stranger is told which cluster this is, may send one request, and gets one
//! answer.
//!
//! The content of the request is not looked at here. The joiner may open no streams of its own, so what is
//! read is bounded by the one stream that this side opens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use blixard_model::EndpointId;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use iroh::endpoint::{Connection, SendStream};
use tokio::time::timeout;

use crate::context::Context;
use crate::incoming::Incoming;
use crate::join::ask::Named;
use crate::join::desk::{JoinUnderWay, NoPlace};
use crate::limits::{
    HELLO_LEN_MAX, HELLO_TIMEOUT, JOIN_REQUEST_LEN_MAX, JOIN_TIMEOUT, REQUEST_LEN_MAX, STALL_TIMEOUT,
};
use crate::link::hello;
use crate::link::reply::{HandOverError, Reply, ReplyBody};
use crate::socket::protocol::{ConnectionSide, InboundConnection, Protocol};
use crate::wire::close::Close;
use crate::wire::frame::{self, FrameError};
use crate::wire::{self, MessageKind, OpenStreamError};

/// The join protocol: spoken with strangers, and only while joins are served.
#[derive(Debug)]
pub(crate) struct JoinProtocol {
    context: Arc<Context>,
}

impl JoinProtocol {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

impl Protocol for JoinProtocol {
    fn alpn(&self) -> &'static [u8] {
        wire::JOIN_ALPN
    }

    fn is_offered(&self) -> bool {
        self.context.joins.served().is_some()
    }

    fn admit(&self, _other: EndpointId, side: ConnectionSide) -> Result<(), Close> {
        // The function that dialled decides about this node's own connections.
        if side == ConnectionSide::Dialled || self.is_offered() {
            return Ok(());
        }
        self.context.peers.refused.join_not_served.add(1);
        Err(Close::NoJoins)
    }

    fn serve(&self, inbound: InboundConnection) -> BoxFuture<'_, ()> {
        serve(&self.context, inbound).boxed()
    }
}

/// Serves one join and closes its connection. The half-open place is held until the join has a place of its
/// own.
async fn serve(context: &Context, inbound: InboundConnection) {
    let InboundConnection { connection, from, source, place: half_open } = inbound;
    let connection = &connection;
    let close = match context.joins.begin(source.map(|source| source.ip()), Instant::now()) {
        Err(why) => refuse(context, why),
        Ok(under_way) => {
            drop(half_open);
            let close = tokio::select! {
                close = exchange(context, from, source, connection, &under_way) => close,
                () = opened_by(connection) => bad(context, "a joiner opens no streams"),
            };
            // Dropped before the close, which tells the joiner that the place is free again.
            drop(under_way);
            close
        }
    };
    tracing::debug!(peer = %from.short(), reason = %close.text(), "a join ended");
    close.apply(connection);
}

fn refuse(context: &Context, why: NoPlace) -> Close {
    let refused = &context.peers.refused;
    match why {
        NoPlace::NotServed => {
            refused.join_not_served.add(1);
            Close::NoJoins
        }
        NoPlace::Crowded => {
            refused.join_crowded.add(1);
            Close::Busy("too many nodes join at this moment, or another one from the same address")
        }
        NoPlace::TooSoon => {
            refused.join_rate.add(1);
            Close::Busy("too many nodes have asked to join lately")
        }
    }
}

fn bad(context: &Context, why: &str) -> Close {
    context.peers.refused.bad_join.add(1);
    Close::Broken(why.to_owned())
}

/// Resolves when the other side opens a stream.
async fn opened_by(connection: &Connection) {
    tokio::select! {
        Ok(_) = connection.accept_bi() => {}
        Ok(_) = connection.accept_uni() => {}
        // The connection ended, which is noticed elsewhere.
        else => std::future::pending().await,
    }
}

async fn exchange(
    context: &Context,
    from: EndpointId,
    source: Option<SocketAddr>,
    connection: &Connection,
    under_way: &JoinUnderWay,
) -> Close {
    let whole = async {
        let (mut send, bytes) = match timeout(HELLO_TIMEOUT, hear(context, connection, under_way)).await {
            Ok(Ok(heard)) => heard,
            // The joiner may have expected another cluster.
            Ok(Err(Unheard::Left)) => return Close::Broken("the joiner left".to_owned()),
            Ok(Err(Unheard::Bad(why))) => {
                return bad(context, &format!("the request to join cannot be read: {why}"));
            }
            Err(_) => return bad(context, "no request to join in time"),
        };
        let (reply, answer) = Reply::new();
        let request = Incoming::Join { from, source, bytes, reply };
        let answered = async {
            let Ok(room) = context.incoming.reserve().await else {
                return Some(Err(HandOverError::Stopping));
            };
            // The joins of this cluster may have ended since the joiner was told about it.
            let served = under_way.while_served(|| {
                context.joins.requests.add(1);
                room.send(request);
            });
            if served { Some(answer.await.map_err(|_| HandOverError::Dropped)) } else { None }
        };
        let answer = tokio::select! {
            // The joiner gave up: dropping `answer` tells the application.
            _ = connection.closed() => return Close::Broken("the joiner left".to_owned()),
            answer = answered => answer,
        };
        let Some(answer) = answer else { return refuse(context, NoPlace::NotServed) };
        let (kind, bytes) = message(answer);
        if wire::write_message(&mut send, kind, bytes).await.is_ok() && send.finish().is_ok() {
            // Waits for the acknowledgement: the close may overtake what was not received yet.
            let _ = timeout(STALL_TIMEOUT, send.stopped()).await;
        }
        Close::Answered
    };
    match timeout(JOIN_TIMEOUT, whole).await {
        Ok(close) => close,
        Err(_) => Close::Broken(format!("not answered within {} s", JOIN_TIMEOUT.as_secs())),
    }
}

/// Why no request to join was read.
enum Unheard {
    /// The joiner hung up.
    Left,
    /// What the joiner sent, or did not accept, is no part of a join.
    Bad(String),
}

impl From<FrameError> for Unheard {
    fn from(error: FrameError) -> Self {
        if error.is_hang_up() { Self::Left } else { Self::Bad(error.to_string()) }
    }
}

/// Tells the joiner which cluster this is, and reads its request.
async fn hear(
    context: &Context,
    connection: &Connection,
    under_way: &JoinUnderWay,
) -> Result<(SendStream, Bytes), Unheard> {
    let by = tokio::time::Instant::now() + HELLO_TIMEOUT;
    let (mut send, mut receive) = wire::open_bi(connection, by).await.map_err(|error| match error {
        OpenStreamError::Ended(_) => Unheard::Left,
        OpenStreamError::TooMany => Unheard::Bad(error.to_string()),
    })?;
    let named = hello::encode(&Named::new(under_way.cluster, &context.cluster_name)).map_err(Unheard::Bad)?;
    let head = frame::header(named.len(), HELLO_LEN_MAX)?;
    let mut chunks = [Bytes::copy_from_slice(&head), named.into()];
    wire::write(&mut send, &mut chunks).await?;
    // The caller's deadline for all of this is shorter.
    let bytes = wire::read_introduction(&mut receive, JOIN_REQUEST_LEN_MAX, JOIN_TIMEOUT).await?;
    Ok((send, bytes.ok_or(Unheard::Left)?))
}

/// The message with which the joiner is answered.
fn message(answer: Result<ReplyBody, HandOverError>) -> (MessageKind, Bytes) {
    let say = |kind, why: &str| (kind, Bytes::copy_from_slice(why.as_bytes()));
    match answer {
        Ok(ReplyBody::One(bytes)) if bytes.len() <= REQUEST_LEN_MAX => (MessageKind::Answer, bytes),
        Ok(ReplyBody::One(bytes)) => {
            tracing::error!(len = bytes.len(), "the answer to a join is too long to be sent");
            say(MessageKind::Failed, "the answer is too long to be sent")
        }
        Ok(ReplyBody::NotTaken(why)) => say(MessageKind::NotTaken, &why),
        Ok(ReplyBody::Stream { .. }) => say(MessageKind::Failed, "a join is not answered by a stream"),
        Err(HandOverError::Stopping) => say(MessageKind::NotTaken, "the node is stopping"),
        Err(HandOverError::Dropped) => say(MessageKind::Failed, "the node dropped the request"),
    }
}
