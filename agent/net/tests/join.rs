//! Joins: who is asked, what is sent, and how the join ends.

use std::time::Duration;

use blixard_model::{ClusterId, Contact, EndpointId};
use blixard_net::limits::{JOIN_REQUEST_LEN_MAX, REQUEST_LEN_MAX};
use blixard_net::{Incoming, JoinError, NetStats, NodeKey, Reply};
use bytes::Bytes;
use iroh::endpoint::{Connection, ReadError, RecvStream, VarInt};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use crate::support::{
    JOIN_ALPN, LONG, Node, Raw, any_port, closed_with, frame, named, node, node_with, pair,
};

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
const OTHER: ClusterId = ClusterId::from_bytes([2; 16]);
const SECRET: Bytes = Bytes::from_static(b"ticket 1, secret: open sesame");

async fn serving() -> Node {
    let a = node().await;
    a.net.serve_joins(Some(CLUSTER));
    a
}

async fn next_join(node: &mut Node) -> (EndpointId, Bytes, Reply) {
    match node.next().await {
        Incoming::Join { from, source, bytes, reply } => {
            assert!(source.is_some(), "it has an address");
            (from, bytes, reply)
        }
        other => panic!("expected a join, got {other:?}"),
    }
}

/// Asks to join; the answering side answers with `answer`.
async fn joined(joiner: &Node, a: &mut Node, answer: impl FnOnce(Reply)) -> Result<Bytes, JoinError> {
    let contact = a.as_contact();
    let asked = joiner.net.join(&contact, CLUSTER, SECRET, LONG);
    let answered = async {
        let (from, bytes, reply) = next_join(a).await;
        assert_eq!((from, bytes), (joiner.id(), SECRET));
        answer(reply);
    };
    tokio::join!(asked, answered).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_asks_is_answered_and_gets_nothing_else() {
    let (mut a, joiner) = (serving().await, node().await);
    for answer in [Bytes::from_static(b"come in"), Bytes::new(), Bytes::from(vec![7; REQUEST_LEN_MAX])] {
        // One join after the other from one address: each join gives its place back before its answer is
        // known.
        assert_eq!(joined(&joiner, &mut a, |reply| reply.send(answer.clone())).await, Ok(answer));
    }
    assert_eq!(a.net.stats().joins.requests, 3);
    a.until_stats("over", |stats| stats.joins.under_way == 0 && stats.handshakes == 0).await;
    // The joiner is no peer because of that.
    assert!(a.net.links().borrow().is_empty());
    joiner.set_peers(vec![a.as_peer()]);
    assert!(joiner.until_refused(a.id()).await.contains("list of members"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_join_as_well_and_its_link_stays() {
    let (mut a, b) = pair().await;
    let before = a.net.links().borrow().clone();
    a.net.serve_joins(Some(CLUSTER));
    let answer = joined(&b, &mut a, |reply| reply.send(Bytes::from_static(b"you are in"))).await;
    assert_eq!(answer, Ok(Bytes::from_static(b"you are in")));
    a.net.serve_joins(None);
    assert_eq!(*a.net.links().borrow(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_no_peer_and_may_ask_with_a_ticket() {
    let (mut a, b) = pair().await;
    a.net.set_peers(Vec::new(), [(b.id(), "7".to_owned())].into());
    a.net.serve_joins(Some(CLUSTER));
    assert!(joined(&b, &mut a, |reply| reply.send(Bytes::new())).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_joins_are_not_served_no_joiner_gets_past_the_handshake() {
    let (mut a, joiner, raw) = (node().await, node().await, Raw::new().await);
    let contact = a.as_contact();
    let asked = || joiner.net.join(&contact, CLUSTER, SECRET, LONG);
    assert_eq!(asked().await, Err(JoinError::NotServed));
    let error = raw.dial_as(&a, JOIN_ALPN).await.expect_err("no such protocol");
    assert!(format!("{error:?}").contains("120"), "the alert no_application_protocol: {error:?}");
    a.until_stats("two refused", |stats| stats.refused.handshake == 2).await;

    a.net.serve_joins(Some(CLUSTER));
    assert!(joined(&joiner, &mut a, |reply| reply.send(Bytes::new())).await.is_ok());
    a.net.serve_joins(None);
    assert_eq!(asked().await, Err(JoinError::NotServed));
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_when_joins_are_no_longer_served_is_not_handed_on() {
    for after in [None, Some(OTHER)] {
        let (mut a, raw) = (serving().await, Raw::new().await);
        let connection = raw.dial_as(&a, JOIN_ALPN).await.expect("served");
        let (mut send, mut receive) =
            timeout(LONG, connection.accept_bi()).await.expect("in time").expect("told");
        let mut words = vec![0; named(1, CLUSTER).len()];
        receive.read_exact(&mut words).await.expect("words");
        assert_eq!(words, named(1, CLUSTER));
        a.net.serve_joins(after);
        send.write_all(&frame(&SECRET)).await.expect("request");
        assert!(closed_with(&connection).await.contains("lets nobody in"));
        assert_eq!(a.net.stats().refused.join_not_served, 1);
        assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_under_way_is_sent_when_joins_are_no_longer_served() {
    let (mut a, joiner) = (serving().await, node().await);
    let net = a.net.clone();
    let answer = joined(&joiner, &mut a, |reply| {
        // An application does this when it has just admitted the holder of the last ticket.
        net.serve_joins(None);
        reply.send(Bytes::from_static(b"come in"));
    });
    assert_eq!(answer.await, Ok(Bytes::from_static(b"come in")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_and_a_missing_answer_of_the_application_are_different_errors() {
    let (mut a, joiner) = (serving().await, node().await);
    let answer = joined(&joiner, &mut a, |reply| reply.not_taken("not now")).await;
    assert_eq!(answer, Err(JoinError::Busy("not now".to_owned())));
    let answers: [fn(Reply); 3] =
        [drop, |reply| drop(reply.stream()), |reply| reply.send(vec![0; REQUEST_LEN_MAX + 1].into())];
    for answer in answers {
        // The join ends at once and its place is free again, so the next one is looked at.
        let answer = joined(&joiner, &mut a, answer).await;
        assert!(matches!(answer, Err(JoinError::Unknown(_))), "{answer:?}");
        a.until_stats("over", |stats| stats.joins.under_way == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_gives_up_knows_whether_its_request_was_sent() {
    let (mut a, joiner) = (serving().await, node().await);
    let contact = a.as_contact();
    let asked = joiner.net.join(&contact, CLUSTER, SECRET, Duration::from_secs(1));
    let (asked, (_, _, mut reply)) = tokio::join!(asked, next_join(&mut a));
    assert!(matches!(asked, Err(JoinError::Unknown(_))), "{asked:?}");
    timeout(LONG, reply.abandoned()).await.expect("told");

    let silent = std::net::UdpSocket::bind(any_port()).expect("socket");
    let addresses = vec![silent.local_addr().expect("address")];
    // Here nobody answers at the address, so the request was not sent.
    let contact = Contact { endpoint_id: NodeKey::generate().endpoint_id(), addresses, relay_url: None };
    let asked = joiner.net.join(&contact, CLUSTER, SECRET, Duration::from_millis(300)).await;
    assert!(matches!(asked, Err(JoinError::Unreachable(_))), "{asked:?}");
    let endpoint_id = NodeKey::generate().endpoint_id();
    let contact = Contact { endpoint_id, addresses: Vec::new(), relay_url: None };
    let asked = joiner.net.join(&contact, CLUSTER, SECRET, LONG).await;
    assert!(matches!(asked, Err(JoinError::Unreachable(_))), "{asked:?}");
    let long = Bytes::from(vec![0; JOIN_REQUEST_LEN_MAX + 1]);
    assert_eq!(joiner.net.join(&contact, CLUSTER, long, LONG).await, Err(JoinError::TooLong));
}

/// Accepts one connection, says `words` on it, and records every byte that arrives on any stream until it
/// ends.
async fn record(raw: &Raw, words: Vec<u8>) -> Vec<u8> {
    let incoming = timeout(LONG, raw.endpoint.accept()).await.expect("dialled").expect("open");
    let Ok(connection) = incoming.await else { return Vec::new() };
    let (mut send, receive) = connection.open_bi().await.expect("stream");
    let _ = send.write_all(&words).await;
    let unasked = |connection: Connection| async move {
        tokio::select! {
            Ok((_, stream)) = connection.accept_bi() => read_all(stream).await,
            Ok(stream) = connection.accept_uni() => read_all(stream).await,
            else => Vec::new(),
        }
    };
    let (asked, unasked) = tokio::join!(read_all(receive), unasked(connection));
    [asked, unasked].concat()
}

/// Everything that arrives until the stream or its connection ends.
async fn read_all(mut stream: RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let all = async {
        while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX).await {
            bytes.extend_from_slice(&chunk);
        }
    };
    timeout(LONG, all).await.expect("it ends");
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_never_sees_the_secret() {
    let (joiner, raw) = (node().await, Raw::new().await);
    let addresses = raw.endpoint.bound_sockets();
    let contact = Contact { endpoint_id: raw.id(), addresses, relay_url: None };
    let asked = || joiner.net.join(&contact, CLUSTER, SECRET, LONG);
    // First the check that the recorder would see the secret: in the right cluster it does.
    let (error, seen) = tokio::join!(
        async {
            let asked = joiner.net.join(&contact, CLUSTER, SECRET, Duration::from_secs(1));
            asked.await.expect_err("it never answers")
        },
        record(&raw, named(1, CLUSTER))
    );
    assert!(matches!(error, JoinError::Unknown(_)), "{error}");
    assert_eq!(seen, frame(&SECRET));

    let (error, seen) = tokio::join!(asked(), record(&raw, named(1, OTHER)));
    let error = error.expect_err("another");
    assert!(
        matches!(&error, JoinError::AnotherCluster { cluster_id, .. } if *cluster_id == OTHER),
        "{error}"
    );
    assert_eq!(seen, b"");
    let mut renamed = named(1, CLUSTER);
    renamed.truncate(renamed.len() - 1);
    let garbage = [named(2, CLUSTER), frame(b"{}"), frame(&[b'['; 900]), frame(b"")];
    for words in garbage {
        let (error, seen) = tokio::join!(asked(), record(&raw, words));
        assert!(matches!(error, Err(JoinError::NotUnderstood(_))), "{error:?}");
        assert_eq!(seen, b"");
    }
    // First messages that are too long, that do not end, and none at all.
    for words in [b"\xff\xff\xff\xff".to_vec(), renamed, Vec::new()] {
        let asked = joiner.net.join(&contact, CLUSTER, SECRET, Duration::from_secs(1));
        let (error, seen) = tokio::join!(asked, record(&raw, words));
        assert!(matches!(error, Err(JoinError::Unreachable(_))), "{error:?}");
        assert_eq!(seen, b"");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_key_never_sees_the_secret() {
    let (joiner, raw) = (node().await, Raw::new().await);
    let addresses = raw.endpoint.bound_sockets();
    let endpoint_id = NodeKey::generate().endpoint_id();
    let contact = Contact { endpoint_id, addresses, relay_url: None };
    let asked = joiner.net.join(&contact, CLUSTER, SECRET, LONG);
    let (error, seen) = tokio::join!(asked, record(&raw, named(1, CLUSTER)));
    assert_eq!(error, Err(JoinError::AnotherKey));
    assert_eq!(seen, b"");
    // A real node that serves joins.
    let mut a = serving().await;
    let contact = Contact { endpoint_id, ..a.as_contact() };
    assert_eq!(joiner.net.join(&contact, CLUSTER, SECRET, LONG).await, Err(JoinError::AnotherKey));
    let contact = a.as_contact();
    let error = joiner.net.join(&contact, OTHER, SECRET, LONG).await.expect_err("another");
    assert!(matches!(error, JoinError::AnotherCluster { cluster_id: CLUSTER, .. }), "{error}");
    a.until_stats("over", |stats| stats.joins.under_way == 0).await;
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
    // A joiner that hangs up because it does not like what it hears is not counted as refused.
    assert_eq!(a.net.stats().refused.bad_join, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_hangs_up_is_not_counted_as_a_bad_join() {
    let a = serving().await;
    // The end of the stream arrives alone, as it may arrive before the end of the connection. A joiner that
    // takes back what it began to say hangs up as well.
    for (n, begun) in [(1, None), (2, Some(false)), (3, Some(true))] {
        let raw = Raw::on(format!("127.0.0.{n}:0").parse().expect("address")).await;
        let connection = raw.dial_as(&a, JOIN_ALPN).await.expect("served");
        let (mut send, _receive) =
            timeout(LONG, connection.accept_bi()).await.expect("in time").expect("told");
        match begun {
            None => send.finish().expect("open"),
            Some(begun) => {
                if begun {
                    send.write_all(&[0, 0, 0, 9, 1]).await.expect("a beginning");
                }
                send.reset(VarInt::from_u32(0)).expect("open");
            }
        }
        assert_eq!(closed_with(&connection).await, "the joiner left");
    }
    a.until_stats("over", |stats| stats.joins.under_way == 0).await;
    assert_eq!(a.net.stats().refused.bad_join, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_closes_its_connection_before_its_stream_ends() {
    let (joiner, raw) = (node().await, Raw::new().await);
    let addresses = raw.endpoint.bound_sockets();
    let contact = Contact { endpoint_id: raw.id(), addresses, relay_url: None };
    let seen = async || {
        let incoming = timeout(LONG, raw.endpoint.accept()).await.expect("dialled").expect("open");
        let connection = incoming.await.expect("handshake");
        let (mut send, mut receive) = connection.open_bi().await.expect("stream");
        send.write_all(&named(1, OTHER)).await.expect("words");
        timeout(LONG, receive.read_chunk(usize::MAX)).await.expect("it ends").map(|chunk| chunk.is_some())
    };
    for _ in 0..20 {
        let (asked, seen) = tokio::join!(joiner.net.join(&contact, CLUSTER, SECRET, LONG), seen());
        assert!(matches!(asked, Err(JoinError::AnotherCluster { .. })), "{asked:?}");
        assert!(matches!(seen, Err(ReadError::ConnectionLost(_))), "{seen:?}");
    }
    // The same holds for a joiner whose caller drops its future.
    let (asked, heard) = (joiner.net.join(&contact, CLUSTER, SECRET, LONG), async {
        let incoming = timeout(LONG, raw.endpoint.accept()).await.expect("dialled").expect("open");
        let connection = incoming.await.expect("handshake");
        let (mut send, receive) = connection.open_bi().await.expect("stream");
        send.write_all(&named(1, OTHER)[..9]).await.expect("a beginning");
        (connection, receive, send)
    });
    let (_connection, mut receive, _send) = tokio::select! {
        asked = asked => panic!("it was told nothing yet: {asked:?}"),
        heard = heard => heard,
    };
    let seen = timeout(LONG, receive.read_chunk(usize::MAX)).await.expect("it ends");
    assert!(matches!(seen, Err(ReadError::ConnectionLost(_))), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_close_code_of_a_join_gives_its_own_error() {
    let (joiner, raw) = (node().await, Raw::new().await);
    let addresses = raw.endpoint.bound_sockets();
    let contact = Contact { endpoint_id: raw.id(), addresses, relay_url: None };
    let why = || "why".to_owned();
    let closes = [
        (9, JoinError::NotServed),
        (10, JoinError::Busy(why())),
        (2, JoinError::Unreachable(why())),
        (0, JoinError::Unreachable(why())),
    ];
    for (code, expected) in closes {
        let close = async {
            let incoming = timeout(LONG, raw.endpoint.accept()).await.expect("dialled").expect("open");
            incoming.await.expect("handshake").close(VarInt::from_u32(code), b"why");
        };
        let (error, ()) = tokio::join!(joiner.net.join(&contact, CLUSTER, SECRET, LONG), close);
        assert_eq!(error, Err(expected), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_request_or_an_extra_stream_ends_the_join() {
    let (mut a, source) = (serving().await, |n: u8| format!("127.0.0.{n}:0").parse().expect("address"));
    let long = u32::try_from(JOIN_REQUEST_LEN_MAX).expect("fits") + 1;
    let requests: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 4], &long.to_be_bytes(), &[0, 0, 0, 9, 1]];
    for (n, request) in (2..).zip(requests) {
        let raw = Raw::on(source(n)).await;
        let connection = raw.dial_as(&a, JOIN_ALPN).await.expect("served");
        let (mut send, _receive) =
            timeout(LONG, connection.accept_bi()).await.expect("in time").expect("told");
        send.write_all(request).await.expect("request");
        let _ = send.finish();
        let why = closed_with(&connection).await;
        assert!(why.contains("cannot be read"), "{why}");
    }
    // With streams of its own, a joiner could fill this node's memory.
    let raw = Raw::on(source(9)).await;
    let connection = raw.dial_as(&a, JOIN_ALPN).await.expect("served");
    let mut own = connection.open_uni().await.expect("stream");
    let flood = async { while own.write_all(&[1; 64 << 10]).await.is_ok() {} };
    let (why, ()) = tokio::join!(closed_with(&connection), flood);
    assert!(why.contains("opens no streams"), "{why}");
    let all = |stats: &NetStats| (stats.refused.bad_join, stats.joins.under_way) == (5, 0);
    a.until_stats("refused", all).await;
    assert!(matches!(a.incoming.try_recv(), Err(TryRecvError::Empty)));
    // The node works as before.
    let joiner = node_with(NodeKey::generate(), source(10), "other").await;
    assert!(joined(&joiner, &mut a, |reply| reply.send(Bytes::new())).await.is_ok());
}
