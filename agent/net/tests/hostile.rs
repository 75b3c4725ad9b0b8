//! Members that send what no node of ours sends: garbage, false lengths, silence.

use blixard_net::limits::RAFT_FRAME_LEN_MAX;
use blixard_net::{DownReason, Incoming};
use bytes::Bytes;
use tokio::time::timeout;

use crate::support::{LONG, Raw, closed_with, frame, hello, node};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_instead_of_a_hello_closes_the_connection() {
    let (a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let garbage: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 0],
        &frame(b"{"),
        &frame(b"{\"version\":1}"),
        &frame(br#"{"version":1,"cluster_name":"lab","incarnation":-1,"dial":1,"accepted":null}"#),
        &frame(&[b'['; 1000]),
    ];
    for bytes in garbage {
        let connection = raw.dial(&a).await;
        let (mut send, _receive) = connection.open_bi().await.expect("stream");
        send.write_all(bytes).await.expect("write");
        let _ = send.finish();
        let why = closed_with(&connection).await;
        assert!(why.contains("hello"), "{why}");
    }
    assert!(!a.net.links().borrow()[&raw.id()].is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_instead_of_a_hello_is_given_up() {
    let (a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let connection = raw.dial(&a).await;
    assert!(closed_with(&connection).await.contains("no hello in time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_raft_frame_ends_the_link() {
    let (mut a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    for len in [u32::MAX, u32::try_from(RAFT_FRAME_LEN_MAX).expect("fits") + 1] {
        let (connection, _send, _receive) = raw.link(&a).await;
        let mut raft = connection.open_uni().await.expect("stream");
        raft.write_all(&[1]).await.expect("kind");
        raft.write_all(&frame(b"fine")).await.expect("frame");
        assert_eq!(a.next_raft().await, (raw.id(), Bytes::from_static(b"fine")));
        raft.write_all(&len.to_be_bytes()).await.expect("length");
        let why = closed_with(&connection).await;
        assert!(why.contains("over the limit"), "{why}");
        let reason = a.until_down(raw.id()).await;
        assert!(matches!(&reason, DownReason::Lost(why) if why.contains("over the limit")), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_broken_streams_cost_the_stream_or_the_link_and_nothing_else() {
    let (mut a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let (connection, _send, _receive) = raw.link(&a).await;
    let mut raft = connection.open_uni().await.expect("stream");
    raft.write_all(&[1]).await.expect("kind");
    let broken: [&[u8]; 6] = [
        b"",
        &[99, 1, 2, 3],
        &[2],
        &[2, 0xff, 0xff, 0xff, 0xff],
        &[3, 0xff, 0xff, 0xff, 0xff],
        &[2, 0, 0, 1, 0, 5],
    ];
    for bytes in broken {
        let (mut send, mut receive) = connection.open_bi().await.expect("stream");
        send.write_all(bytes).await.expect("write");
        let _ = send.finish();
        // Each stream is answered or closed, but it ends.
        let _ = timeout(LONG, receive.read_to_end(1 << 16)).await.expect("ended");
    }
    // The link still works.
    let (mut send, _receive) = connection.open_bi().await.expect("stream");
    send.write_all(&[2]).await.expect("kind");
    send.write_all(&frame(b"ask")).await.expect("frame");
    assert_eq!(a.next_request().await.1, Bytes::from_static(b"ask"));

    // While one snapshot arrives, a second one is not taken, and the first one is not harmed. More of the
    // first than a stream's window can be written only when somebody reads it, so it is certain that it came
    // first.
    let snapshot = vec![5; 3 << 20];
    let whole = [&[3][..], &frame(&snapshot)].concat();
    let (mut first, mut first_answer) = connection.open_bi().await.expect("stream");
    first.write_all(&whole[..2 << 20]).await.expect("most of it");
    let (mut second, mut second_answer) = connection.open_bi().await.expect("stream");
    second.write_all(&[3, 0, 0, 0, 2, b'n', b'o']).await.expect("whole");
    let _ = second.finish();
    let refused = whole_answer(&mut second_answer).await;
    assert!(String::from_utf8_lossy(&refused).contains("another snapshot"), "{refused:?}");
    first.write_all(&whole[2 << 20..]).await.expect("the rest");
    match a.next().await {
        Incoming::Snapshot { from, bytes } => assert!(from == raw.id() && *bytes == *snapshot),
        other => panic!("expected a snapshot, got {other:?}"),
    }
    assert_eq!(whole_answer(&mut first_answer).await, [1, 0, 0, 0, 0]);

    // A stream that should hold Raft messages but is of another kind ends the link.
    let (connection, _send, _receive) = raw.link(&a).await;
    let mut raft = connection.open_uni().await.expect("stream");
    raft.write_all(&[42]).await.expect("kind");
    assert!(closed_with(&connection).await.contains("unknown kind"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_trickles_in_does_not_block_snapshots_of_other_members() {
    let (mut a, b, raw) = (node().await, node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer(), b.as_peer()]);
    b.set_peers(vec![a.as_peer()]);
    b.until_up(a.id()).await;
    let (connection, _send, _receive) = raw.link(&a).await;
    let mut raft = connection.open_uni().await.expect("stream");
    raft.write_all(&[1]).await.expect("kind");
    // More than a stream's window can be written only when somebody reads it, so it is certain that the
    // snapshot is arriving.
    let trickled = vec![5; 3 << 20];
    let whole = [&[3][..], &frame(&trickled)].concat();
    let (mut trickle, mut answer) = connection.open_bi().await.expect("stream");
    trickle.write_all(&whole[..2 << 20]).await.expect("most of it");

    let snapshot = Bytes::from(vec![6; 8 << 20]);
    for part in whole[2 << 20..].chunks(256 << 10) {
        trickle.write_all(part).await.expect("a little more");
        let last = part.len() < 256 << 10;
        if !last {
            let delivery = b.net.send_snapshot(a.id(), snapshot.clone());
            assert_eq!(timeout(LONG, delivery).await.expect("in time"), Ok(()));
            match a.next().await {
                Incoming::Snapshot { from, bytes } => assert!(from == b.id() && bytes == snapshot),
                other => panic!("expected a snapshot, got {other:?}"),
            }
        }
    }
    match a.next().await {
        Incoming::Snapshot { from, bytes } => assert!(from == raw.id() && *bytes == *trickled),
        other => panic!("expected a snapshot, got {other:?}"),
    }
    assert_eq!(whole_answer(&mut answer).await, [1, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_of_the_same_key_replaces_the_older() {
    let (mut a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let (older, _send, _receive) = raw.link(&a).await;
    a.until_up(raw.id()).await;
    let (newer, _send, _receive) = raw.link(&a).await;
    assert!(closed_with(&older).await.contains("newer"));
    let mut raft = newer.open_uni().await.expect("stream");
    raft.write_all(&[1]).await.expect("kind");
    raft.write_all(&frame(b"new")).await.expect("frame");
    assert_eq!(a.next_raft().await.1, Bytes::from_static(b"new"));
    assert!(a.net.links().borrow()[&raw.id()].is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_of_a_removed_member_is_refused_although_its_handshake_passed() {
    let (a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let connection = raw.dial(&a).await;
    a.set_peers(Vec::new());
    let (mut send, _receive) = connection.open_bi().await.expect("stream");
    send.write_all(&hello(1, "lab")).await.expect("hello");
    assert!(closed_with(&connection).await.contains("list of members"));
}

async fn whole_answer(stream: &mut iroh::endpoint::RecvStream) -> Vec<u8> {
    timeout(LONG, stream.read_to_end(1 << 16)).await.expect("ended").expect("answer")
}
