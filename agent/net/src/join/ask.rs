//! The asking side of a join: how a node that is no member asks a member to let it in.
//!
//! The request holds the ticket's secret, and is opaque here. Callers must be able to rely on this: nothing
//! of the request is sent before the other side has proved, in the handshake, the key that was dialled, and
//! has named the expected cluster.

use std::time::Duration;

use blixard_model::{ClusterId, ClusterName, Contact};
use bytes::Bytes;
use iroh::Endpoint;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::key;
use crate::limits::{
    CLOSE_TIMEOUT, CONNECT_TIMEOUT, HELLO_LEN_MAX, HELLO_TIMEOUT, JOIN_REQUEST_LEN_MAX, STALL_TIMEOUT,
};
use crate::link::whereabouts::Whereabouts;
use crate::wire::close::{self, Close, JoinClosed, NotConnected, peer_text};
use crate::wire::frame;
use crate::wire::{self, MessageKind};

/// Version of the join protocol's messages.
const VERSION: u32 = 1;

/// The first message on a join, sent by the node that was dialled: the cluster that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    version: u32,
    cluster_id: ClusterId,
    /// Unchecked text of the other side: it is only shown, through [`peer_text`].
    cluster_name: String,
}

/// Why a join was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// This node has no endpoint. Nothing was sent.
    #[error("this node has no network: {0}")]
    NoTransport(String),
    /// The request is larger than [`JOIN_REQUEST_LEN_MAX`]. Nothing was sent.
    #[error("the request to join is larger than {JOIN_REQUEST_LEN_MAX} bytes")]
    TooLong,
    /// Nobody answers, or not in time. The request was not sent.
    #[error("nobody answers there: {0}")]
    Unreachable(String),
    /// The node that answers does not have the key that the contact names. The request was not sent.
    #[error(
        "another node answers there, it was refused before the secret was sent: make a ticket with the \
         addresses of today"
    )]
    AnotherKey,
    /// The node is in another cluster than the ticket's. The request was not sent.
    #[error(
        "that node is in the cluster {cluster_name:?} ({cluster_id}) and not in the ticket's, it was refused \
         before the secret was sent: make a ticket with the cluster that this node is to join"
    )]
    AnotherCluster {
        /// The cluster id that the node named.
        cluster_id: ClusterId,
        /// The cluster name that the node gave.
        cluster_name: String,
    },
    /// What the node says is not understood. The request was not sent.
    #[error("what that node says is not understood ({0}): upgrade the older node")]
    NotUnderstood(String),
    /// The node serves no joins: its cluster has no open ticket. Its application did not see the request.
    #[error("that node lets nobody in: its cluster has no open ticket, make one")]
    NotServed,
    /// The node cannot take the request at this moment, and its application did not look at it. The caller
    /// may try again.
    #[error("that node cannot take the request at this moment: {0}")]
    Busy(String),
    /// The request was sent, and its outcome is not known: this node may have been admitted.
    #[error("sent, but not answered: {0}")]
    Unknown(String),
}

impl Named {
    pub(crate) fn new(cluster_id: ClusterId, cluster_name: &ClusterName) -> Self {
        Self { version: VERSION, cluster_id, cluster_name: cluster_name.as_str().to_owned() }
    }

    /// Reads the first message and checks that it names the expected cluster.
    fn check(bytes: &[u8], expected: ClusterId) -> Result<(), JoinError> {
        #[derive(Deserialize)]
        struct JoinVersion {
            version: u32,
        }
        let malformed = |_| JoinError::NotUnderstood("its first words are malformed".to_owned());
        let JoinVersion { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != VERSION {
            let why = format!("it speaks version {version} of the join protocol, this node {VERSION}");
            return Err(JoinError::NotUnderstood(why));
        }
        let named: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if named.cluster_id != expected {
            let cluster_name = peer_text(named.cluster_name.as_bytes());
            return Err(JoinError::AnotherCluster { cluster_id: named.cluster_id, cluster_name });
        }
        Ok(())
    }
}

/// Dials the contact, checks its key and its cluster, and sends the request.
pub(crate) async fn ask(
    endpoint: Endpoint,
    contact: &Contact,
    whereabouts: Whereabouts,
    (expected, request): (ClusterId, Bytes),
    patience: Duration,
) -> Result<Bytes, JoinError> {
    if request.len() > JOIN_REQUEST_LEN_MAX {
        return Err(JoinError::TooLong);
    }
    let deadline = Instant::now() + patience;
    let connection = connect(endpoint, contact, whereabouts, deadline).await?;
    // The guard is dropped before the streams are, so that the other side sees the end of the connection
    // first, and does not take a joiner that hangs up for one that says nothing.
    let mut streams = None;
    let _hangs_up = HangUp(&connection);
    let asked = exchange(&connection, &mut streams, expected, request, deadline).await;
    let asked = asked.map_err(|error| match (error, connection.close_reason()) {
        // When the other side closed the connection, that is the cause, whatever the error looked like here.
        (JoinError::Unreachable(_), Some(closed)) => match close::join_closed(&closed) {
            JoinClosed::NoJoins => JoinError::NotServed,
            JoinClosed::Busy(why) => JoinError::Busy(why),
            JoinClosed::Other(why) => JoinError::Unreachable(why),
        },
        (JoinError::Unknown(_), Some(closed)) => match close::join_closed(&closed) {
            JoinClosed::NoJoins => JoinError::NotServed,
            JoinClosed::Busy(why) => JoinError::Busy(why),
            JoinClosed::Other(why) => JoinError::Unknown(why),
        },
        (error, _) => error,
    });
    let answer = asked?;
    // The other side closes the connection once it has freed this join's place. Waiting for that keeps the
    // next attempt from being refused because of this one.
    let most = deadline.min(Instant::now() + CLOSE_TIMEOUT);
    let _ = timeout_at(most, connection.closed()).await;
    Close::Answered.apply(&connection);
    Ok(answer)
}

/// Closes a join's connection when it is dropped, also when it is dropped with the future that holds it.
struct HangUp<'a>(&'a Connection);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        // Has no effect on a connection that is closed already.
        Close::Broken("the joiner left".to_owned()).apply(self.0);
    }
}

async fn connect(
    endpoint: Endpoint,
    contact: &Contact,
    whereabouts: Whereabouts,
    deadline: Instant,
) -> Result<Connection, JoinError> {
    let unreachable = |why: String| JoinError::Unreachable(why);
    let key = key::public_key(&contact.endpoint_id).map_err(|error| unreachable(error.to_string()))?;
    if whereabouts.is_empty() {
        return Err(unreachable(match &contact.relay_url {
            None => "no address of it is known".to_owned(),
            Some(url) => format!(
                "it has no address, only the relay {url}, which is not in this node's list: add it to \
                 net.relay_urls"
            ),
        }));
    }
    let deadline = deadline.min(Instant::now() + CONNECT_TIMEOUT);
    let error = match timeout_at(deadline, endpoint.connect(whereabouts.of(key), wire::JOIN_ALPN)).await {
        Err(_) => return Err(unreachable(NotConnected::NoAnswer.text())),
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => close::not_connected(&error),
    };
    Err(match error {
        NotConnected::NoProtocol => JoinError::NotServed,
        NotConnected::AnotherKey => JoinError::AnotherKey,
        NotConnected::TakesNone => JoinError::Busy(error.text()),
        NotConnected::Closed(closed) => match close::join_closed(&closed) {
            JoinClosed::NoJoins => JoinError::NotServed,
            JoinClosed::Busy(why) => JoinError::Busy(why),
            JoinClosed::Other(why) => unreachable(why),
        },
        other => unreachable(other.text()),
    })
}

async fn exchange(
    connection: &Connection,
    streams: &mut Option<(SendStream, RecvStream)>,
    expected: ClusterId,
    request: Bytes,
    deadline: Instant,
) -> Result<Bytes, JoinError> {
    let hello_by = deadline.min(Instant::now() + HELLO_TIMEOUT);
    let (send, receive) = match timeout_at(hello_by, hear(connection, streams, expected)).await {
        Err(_) => return Err(JoinError::Unreachable("it says nothing".to_owned())),
        Ok(streams) => streams?,
    };
    // From here on the secret is being sent, and nobody can say that it did not arrive.
    let unknown = |why: String| JoinError::Unknown(why);
    let head = frame::header(request.len(), JOIN_REQUEST_LEN_MAX).map_err(|_| JoinError::TooLong)?;
    let mut chunks = [Bytes::copy_from_slice(&head), request];
    let chunks = if chunks[1].is_empty() { &mut chunks[..1] } else { &mut chunks[..] };
    match timeout_at(deadline, wire::write(send, chunks)).await {
        Err(_) => return Err(unknown("the deadline passed while it was written".to_owned())),
        Ok(written) => written.map_err(|error| unknown(error.to_string()))?,
    }
    // Fails only when the other side stopped reading: then its answer, or the lack of one, tells the rest.
    let _ = send.finish();
    let (kind, bytes) = match timeout_at(deadline, wire::read_message(receive)).await {
        Err(_) => return Err(unknown("the deadline passed".to_owned())),
        Ok(answer) => answer.map_err(|error| unknown(error.to_string()))?,
    };
    match kind {
        MessageKind::Answer => Ok(bytes),
        MessageKind::NotTaken => Err(JoinError::Busy(peer_text(&bytes))),
        MessageKind::Failed => Err(unknown(peer_text(&bytes))),
        MessageKind::Item | MessageKind::End => Err(unknown("it streams its answer".to_owned())),
    }
}

/// Reads the other side's first message. Returns the streams only when it names the expected cluster.
async fn hear<'a>(
    connection: &Connection,
    streams: &'a mut Option<(SendStream, RecvStream)>,
    expected: ClusterId,
) -> Result<&'a mut (SendStream, RecvStream), JoinError> {
    let unreachable = |why: String| JoinError::Unreachable(why);
    let accepted = connection.accept_bi().await.map_err(|error| unreachable(error.to_string()))?;
    let streams = streams.insert(accepted);
    let words = wire::read_frame(&mut streams.1, HELLO_LEN_MAX, STALL_TIMEOUT).await;
    Named::check(&words.map_err(|error| unreachable(error.to_string()))?, expected)?;
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn valid(cluster: ClusterId) -> Vec<u8> {
        crate::link::hello::encode(&Named::new(cluster, &"lab".parse().expect("name"))).expect("short")
    }

    #[test]
    fn only_the_expected_cluster_in_a_known_version_is_accepted() {
        assert_eq!(Named::check(&valid(CLUSTER), CLUSTER), Ok(()));
        let other = ClusterId::from_bytes([2; 16]);
        let error = Named::check(&valid(other), CLUSTER).expect_err("another");
        assert!(matches!(&error, JoinError::AnotherCluster { cluster_id, .. } if *cluster_id == other));
        assert!(error.to_string().contains("\"lab\"") && error.to_string().contains("before"), "{error}");
        let newer = String::from_utf8(valid(CLUSTER)).expect("text").replace(":1,", ":2,");
        let error = Named::check(newer.as_bytes(), CLUSTER).expect_err("newer").to_string();
        assert!(error.contains("version 2") && error.contains("upgrade"), "{error}");
        for malformed in ["", "{}", "null", "{\"version\":1}", "{\"version\":1,\"cluster_id\":\"x\"}"] {
            let error = Named::check(malformed.as_bytes(), CLUSTER).expect_err("malformed");
            assert!(matches!(error, JoinError::NotUnderstood(_)), "{malformed}: {error}");
        }
    }

    #[test]
    fn fuzz_net_join_named() {
        let target = blixard_hostile::Target::new("net-join-named").valid(valid(CLUSTER));
        let target = target.valid(valid(ClusterId::from_bytes([2; 16]))).len_max(HELLO_LEN_MAX);
        target.run(|bytes| match Named::check(bytes, CLUSTER) {
            Ok(()) => "the expected one".to_owned(),
            Err(error) => error.to_string(),
        });
    }
}
