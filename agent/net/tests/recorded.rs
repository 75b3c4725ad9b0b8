//! Streams that earlier builds wrote (`tests/fixtures`) are sent to the current code through real
//! connections. What the current code sends is compared with the streams of the build that [`SENT_TODAY`]
//! names.

use std::path::{Path, PathBuf};

use blixard_model::{ClusterId, Contact};
use blixard_net::{Incoming, PeerConfig, RequestError, SendOutcome, SnapshotError};
use bytes::Bytes;
use futures_util::StreamExt;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::support::{JOIN_ALPN, LONG, Node, Raw, node};

/// The build whose streams the current code sends, byte for byte.
const SENT_TODAY: &str = "0.1.0-beb3c5d";

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// One stream that a build wrote.
fn stream(build: &str, name: &str) -> Vec<u8> {
    let path = home().join(build).join("wire").join(format!("{name}.stream"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All builds of which there are streams.
fn builds() -> Vec<String> {
    let entries =
        std::fs::read_dir(home()).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let dirs = entries.filter(|path| path.join("wire").is_dir());
    let names: Vec<String> =
        dirs.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name == SENT_TODAY));
    names
}

/// The content of each frame of a stream in which `head` bytes come before each frame.
fn frames(mut bytes: &[u8], head: usize) -> Vec<Bytes> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes[head..].split_first_chunk::<4>().expect("a length");
        let (frame, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*len)).expect("short"));
        found.push(Bytes::copy_from_slice(frame));
        bytes = rest;
    }
    found
}

/// Sends a whole stream. Returns the receiving half, on which the answer comes.
async fn exchange(connection: &Connection, bytes: &[u8]) -> RecvStream {
    let (mut send, receive) = connection.open_bi().await.expect("stream");
    send.write_all(bytes).await.expect("written");
    send.finish().expect("finished");
    receive
}

async fn whole(mut stream: RecvStream) -> Vec<u8> {
    timeout(LONG, stream.read_to_end(1 << 20)).await.expect("in time").expect("whole")
}

/// A link that an earlier build has dialled, and the stream of its hello, which stays open.
async fn linked(raw: &Raw, a: &Node, hello: &[u8]) -> (Connection, SendStream) {
    let connection = raw.dial(a).await;
    let (mut send, mut receive) = connection.open_bi().await.expect("stream");
    send.write_all(hello).await.expect("hello");
    let mut len = [0; 4];
    timeout(LONG, receive.read_exact(&mut len)).await.expect("in time").expect("a welcome");
    (connection, send)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_of_an_earlier_build_are_understood() {
    for build in builds() {
        let (mut a, raw) = (node().await, Raw::new().await);
        a.set_peers(vec![raw.as_peer()]);
        let first = linked(&raw, &a, &stream(&build, "hello")).await;
        a.until_up(raw.id()).await;
        // The earlier build has lost that connection and dials again.
        drop(first);
        a.until_down(raw.id()).await;
        let (connection, _hello) = linked(&raw, &a, &stream(&build, "hello-again")).await;

        let raft = stream(&build, "raft");
        let mut uni = connection.open_uni().await.expect("stream");
        uni.write_all(&raft).await.expect("written");
        for wanted in frames(&raft[1..], 0) {
            assert_eq!(a.next_raft().await, (raw.id(), wanted));
        }

        let request = stream(&build, "request");
        let answer = exchange(&connection, &request).await;
        let (_, bytes, reply) = a.next_request().await;
        assert_eq!(bytes, frames(&request, 1)[0]);
        reply.send(frames(&stream(SENT_TODAY, "answer"), 1).remove(0));
        assert_eq!(whole(answer).await, stream(SENT_TODAY, "answer"));

        let request = stream(&build, "logs-request");
        let answer = exchange(&connection, &request).await;
        let (_, bytes, reply) = a.next_request().await;
        assert_eq!(bytes, frames(&request, 1)[0]);
        let mut items = frames(&stream(SENT_TODAY, "logs-answer"), 1);
        items.pop();
        let mut reply = reply.stream();
        for item in items {
            reply.send(item).await.expect("an asker");
        }
        reply.end();
        assert_eq!(whole(answer).await, stream(SENT_TODAY, "logs-answer"));

        let answer = exchange(&connection, &request).await;
        drop(a.next_request().await);
        assert_eq!(whole(answer).await, stream(SENT_TODAY, "answer-failed"));

        let snapshot = stream(&build, "snapshot");
        let answer = exchange(&connection, &snapshot).await;
        let arrived = a.next().await;
        assert!(
            matches!(&arrived, Incoming::Snapshot { bytes, .. } if *bytes == frames(&snapshot, 1)[0]),
            "{arrived:?}"
        );
        assert_eq!(whole(answer).await, stream(SENT_TODAY, "snapshot-taken"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_of_an_earlier_build_is_answered() {
    for build in builds() {
        let (mut a, raw) = (node().await, Raw::new().await);
        a.net.serve_joins(Some(cluster_id(&build)));
        let connection = raw.dial_as(&a, JOIN_ALPN).await.expect("served");
        let (mut send, mut receive) =
            timeout(LONG, connection.accept_bi()).await.expect("in time").expect("told");
        let mut named = vec![0; stream(SENT_TODAY, "join-named").len()];
        timeout(LONG, receive.read_exact(&mut named)).await.expect("in time").expect("told");
        assert_eq!(named, stream(SENT_TODAY, "join-named"));

        let request = stream(&build, "join-request");
        send.write_all(&request).await.expect("written");
        match a.next().await {
            Incoming::Join { bytes, reply, .. } => {
                assert_eq!(bytes, frames(&request, 0)[0]);
                reply.send(frames(&stream(SENT_TODAY, "join-answer"), 1).remove(0));
            }
            other => panic!("expected a join, got {other:?}"),
        }
        assert_eq!(whole(receive).await, stream(SENT_TODAY, "join-answer"));
    }
}

fn cluster_id(build: &str) -> ClusterId {
    let path = home().join(build).join("formation/genesis.cluster-id");
    std::fs::read_to_string(path).expect("an id").trim_end().parse().expect("an id")
}

/// A connection that the current code has dialled.
async fn accepted(raw: &Raw) -> Connection {
    let incoming = timeout(LONG, raw.endpoint.accept()).await.expect("dialled").expect("open");
    incoming.await.expect("connected")
}

async fn next_stream(connection: &Connection) -> (SendStream, RecvStream) {
    timeout(LONG, connection.accept_bi()).await.expect("in time").expect("a stream")
}

/// Reads as many bytes as `wanted` has, and compares.
async fn receives(receive: &mut RecvStream, wanted: &[u8]) {
    let mut bytes = vec![0; wanted.len()];
    timeout(LONG, receive.read_exact(&mut bytes)).await.expect("in time").expect("so many");
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(wanted));
}

/// Takes the next stream, compares what was sent on it, and answers.
async fn answers(connection: &Connection, wanted: &[u8], answer: &[u8]) {
    let (mut send, mut receive) = next_stream(connection).await;
    receives(&mut receive, wanted).await;
    send.write_all(answer).await.expect("written");
    send.finish().expect("finished");
}

/// Accepts a link as an earlier build does. The numbers in the node's hello are random.
async fn welcomed(raw: &Raw, build: &str) -> (Connection, SendStream) {
    let connection = accepted(raw).await;
    let (mut send, mut receive) = next_stream(&connection).await;
    let mut len = [0; 4];
    timeout(LONG, receive.read_exact(&mut len)).await.expect("in time").expect("a length");
    let mut hello = vec![0; usize::try_from(u32::from_be_bytes(len)).expect("short")];
    timeout(LONG, receive.read_exact(&mut hello)).await.expect("in time").expect("a hello");
    let mut said: serde_json::Value = serde_json::from_slice(&hello).expect("json");
    let wanted: serde_json::Value =
        serde_json::from_slice(&frames(&stream(SENT_TODAY, "hello"), 0)[0]).expect("json");
    for random in ["incarnation", "dial"] {
        assert!(said[random].is_u64(), "{said}");
        said[random] = wanted[random].clone();
    }
    assert_eq!(said, wanted);
    send.write_all(&stream(build, "welcome")).await.expect("welcome");
    (connection, send)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_that_are_sent_equal_those_of_the_recorded_build() {
    for build in builds() {
        let (a, raw) = (node().await, Raw::new().await);
        let addresses = raw.endpoint.bound_sockets();
        a.set_peers(vec![PeerConfig { endpoint_id: raw.id(), addresses, relay_url: None }]);
        let (connection, _hello) = welcomed(&raw, &build).await;
        let mut uni = connection.open_uni().await.expect("stream");
        uni.write_all(&stream(&build, "raft")).await.expect("written");
        a.until_up(raw.id()).await;

        let raft = stream(SENT_TODAY, "raft");
        for frame in frames(&raft[1..], 0) {
            assert_eq!(a.net.send_raft(raw.id(), frame), SendOutcome::Queued);
        }
        let mut received = timeout(LONG, connection.accept_uni()).await.expect("in time").expect("a stream");
        receives(&mut received, &raft).await;

        let request = stream(SENT_TODAY, "request");
        let bytes = frames(&request, 1).remove(0);
        for (answer, wanted) in [("answer", true), ("answer-failed", false), ("not-taken", false)] {
            let said = stream(&build, answer);
            let asked = a.net.request(raw.id(), bytes.clone(), LONG);
            let (end, ()) = tokio::join!(asked, answers(&connection, &request, &said));
            let is_looked_at = !matches!(end, Err(RequestError::NotSent(_)));
            assert_eq!((end.is_ok(), is_looked_at), (wanted, answer != "not-taken"), "{end:?}");
            assert!(end.is_err() || end == Ok(frames(&said, 1).remove(0)));
        }

        let request = stream(SENT_TODAY, "logs-request");
        let said = stream(&build, "logs-answer");
        let asked = a.net.request_stream(raw.id(), frames(&request, 1).remove(0), LONG);
        let (items, ()) = tokio::join!(asked, answers(&connection, &request, &said));
        let items: Vec<_> = items.expect("a stream").collect().await;
        let mut wanted = frames(&said, 1);
        wanted.pop();
        assert_eq!(items, wanted.into_iter().map(Ok).collect::<Vec<_>>());

        let snapshot = stream(SENT_TODAY, "snapshot");
        for (answer, taken) in [("snapshot-taken", true), ("not-taken", false)] {
            let said = stream(&build, answer);
            let delivery = a.net.send_snapshot(raw.id(), frames(&snapshot, 1).remove(0));
            let (end, ()) = tokio::join!(delivery, answers(&connection, &snapshot, &said));
            assert_eq!(end.is_ok(), taken);
            assert!(taken || matches!(end, Err(SnapshotError::NotTaken(_))));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_of_a_join_equal_those_of_the_recorded_build() {
    for build in builds() {
        let (a, raw) = (node().await, Raw::new().await);
        let contact =
            Contact { endpoint_id: raw.id(), addresses: raw.endpoint.bound_sockets(), relay_url: None };
        let request = stream(SENT_TODAY, "join-request");
        let asked = a.net.join(&contact, cluster_id(&build), frames(&request, 0).remove(0), LONG);
        let member = async {
            let connection = accepted(&raw).await;
            let (mut send, mut receive) = connection.open_bi().await.expect("stream");
            send.write_all(&stream(&build, "join-named")).await.expect("written");
            receives(&mut receive, &request).await;
            send.write_all(&stream(&build, "join-answer")).await.expect("written");
            send.finish().expect("finished");
            let _ = timeout(LONG, send.stopped()).await.expect("in time");
            connection.close(0u32.into(), b"");
        };
        let (answer, ()) = tokio::join!(asked, member);
        assert_eq!(answer, Ok(frames(&stream(&build, "join-answer"), 1).remove(0)));
    }
}
