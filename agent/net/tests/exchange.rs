//! What two nodes with a link say to each other.

use std::time::{Duration, Instant};

use blixard_net::limits::{
    RAFT_FRAME_LEN_MAX, REQUEST_LEN_MAX, REQUESTS_PER_PEER_MAX, SNAPSHOT_LEN_MAX,
    STREAMED_ANSWERS_PER_PEER_MAX, STREAMED_ANSWERS_TO_PEER_MAX,
};
use blixard_net::{
    Incoming, LinkState, NodeKey, NotSent, PeerConfig, ReplyStream, RequestError, SendOutcome, SnapshotError,
};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::support::{LONG, Node, Raw, frame, node, pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_messages_arrive_in_order_both_ways_with_their_sender() {
    let (mut a, mut b) = pair().await;
    let large = Bytes::from(vec![7; RAFT_FRAME_LEN_MAX]);
    for (from, to) in [(&a, &mut b), (&node().await, &mut node().await)].into_iter().take(1) {
        for i in 0..100u8 {
            assert_eq!(
                from.net.send_raft(to.id(), Bytes::from(vec![i; usize::from(i)])),
                SendOutcome::Queued
            );
        }
        for i in 0..100u8 {
            assert_eq!(to.next_raft().await, (from.id(), Bytes::from(vec![i; usize::from(i)])));
        }
    }
    assert_eq!(b.net.send_raft(a.id(), large.clone()), SendOutcome::Queued);
    assert_eq!(a.next_raft().await, (b.id(), large));
    let too_long = Bytes::from(vec![0; RAFT_FRAME_LEN_MAX + 1]);
    assert_eq!(a.net.send_raft(b.id(), too_long), SendOutcome::TooLong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_confirmed_when_the_receiver_has_it() {
    let (a, mut b) = pair().await;
    let snapshot =
        Bytes::from((0..40_000_000u32).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect::<Vec<_>>());
    let delivery = a.net.send_snapshot(b.id(), snapshot.clone());
    match b.next().await {
        Incoming::Snapshot { from, bytes } => assert!(from == a.id() && bytes == snapshot),
        other => panic!("expected a snapshot, got {other:?}"),
    }
    assert_eq!(timeout(LONG, delivery).await.expect("in time"), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_sent_fails_with_the_reason() {
    let (a, b) = pair().await;
    let small = Bytes::from_static(b"state");
    let stranger = NodeKey::generate().endpoint_id();
    assert_eq!(a.net.send_snapshot(stranger, small.clone()).await, Err(SnapshotError::NotAPeer));
    let too_long = Bytes::from(vec![0; SNAPSHOT_LEN_MAX + 1]);
    assert_eq!(a.net.send_snapshot(b.id(), too_long).await, Err(SnapshotError::TooLong));

    // The first two wait for a window that the receiver never opens, because its application reads nothing.
    let large = Bytes::from(vec![1; 64 << 20]);
    let under_way: Vec<_> = (0..8).map(|_| a.net.send_snapshot(b.id(), large.clone())).collect();
    b.net.clone().close().await;
    let results = timeout(LONG, join_all(under_way)).await.expect("every delivery has a result");
    assert!(results.contains(&Err(SnapshotError::QueueFull)), "{results:?}");
    assert!(results.iter().any(|result| matches!(result, Err(SnapshotError::LinkDown))), "{results:?}");
    a.until_down(b.id()).await;
    assert_eq!(a.net.send_snapshot(b.id(), small).await, Err(SnapshotError::LinkDown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_many_at_a_time() {
    let (a, b) = pair().await;
    let b_id = b.id();
    let (_b, _echo) = b.spawn_echo();
    let asked = (0..8 * REQUESTS_PER_PEER_MAX).map(|i| {
        let net = a.net.clone();
        async move {
            let bytes = Bytes::from(i.to_string());
            assert_eq!(net.request(b_id, bytes.clone(), LONG).await, Ok(bytes));
        }
    });
    timeout(LONG, join_all(asked)).await.expect("all answered");
    let largest = Bytes::from(vec![9; REQUEST_LEN_MAX]);
    assert_eq!(a.net.request(b_id, largest.clone(), LONG).await, Ok(largest));
    assert_eq!(a.net.request(b_id, Bytes::new(), LONG).await, Ok(Bytes::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsent_request_and_an_unknown_outcome_are_different_errors() {
    let (a, mut b) = pair().await;
    let question = Bytes::from_static(b"?");
    let b_id = b.id();
    let ask = |wait| a.net.request(b_id, question.clone(), wait);

    let stranger = NodeKey::generate().endpoint_id();
    let answer = a.net.request(stranger, question.clone(), LONG).await;
    assert_eq!(answer, Err(RequestError::NotSent(NotSent::NotAPeer)));
    let too_long = a.net.request(b.id(), Bytes::from(vec![0; REQUEST_LEN_MAX + 1]), LONG).await;
    assert_eq!(too_long, Err(RequestError::NotSent(NotSent::TooLong)));

    // The request is taken and not answered in time: the answering side learns that nobody waits any more.
    let started = Instant::now();
    let asked = ask(Duration::from_millis(200));
    assert!(matches!(asked.await, Err(RequestError::Unknown(_))));
    assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
    let (_, _, mut reply) = b.next_request().await;
    timeout(LONG, reply.abandoned()).await.expect("the asker's end is noticed");

    let (answer, ()) = tokio::join!(ask(LONG), async { drop(b.next_request().await) });
    assert!(matches!(answer, Err(RequestError::Unknown(_))), "dropped: {answer:?}");
    let (answer, ()) = tokio::join!(ask(LONG), async { b.next_request().await.2.not_taken("no leader") });
    assert_eq!(answer, Err(RequestError::NotSent(NotSent::NotTaken("no leader".to_owned()))));
    let too_long = Bytes::from(vec![0; REQUEST_LEN_MAX + 1]);
    let (answer, ()) = tokio::join!(ask(LONG), async { b.next_request().await.2.send(too_long) });
    assert!(matches!(answer, Err(RequestError::Unknown(_))), "too long an answer: {answer:?}");

    // The link is lost while the asker waits for the answer.
    let (answer, ()) = tokio::join!(a.net.request(b_id, question.clone(), LONG), async {
        let held = b.next_request().await;
        b.net.clone().close().await;
        drop(held);
    });
    assert!(matches!(answer, Err(RequestError::Unknown(_))), "link lost: {answer:?}");
    a.until_down(b_id).await;
    let answer = a.net.request(b_id, question, LONG).await;
    assert_eq!(answer, Err(RequestError::NotSent(NotSent::LinkDown)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_the_limit_wait_and_are_not_sent_after_their_deadline() {
    let (a, mut b) = pair().await;
    let (b_id, one) = (b.id(), Bytes::from_static(b"1"));
    let limit = REQUESTS_PER_PEER_MAX;
    let many = join_all((0..limit).map(|_| a.net.request(b_id, one.clone(), LONG)));
    let held_and_refused = async {
        let mut held = Vec::new();
        while held.len() < limit {
            held.push(b.next_request().await.2);
        }
        let wait = Duration::from_millis(500);
        let mut more = Box::pin(join_all((0..limit).map(|_| a.net.request(b_id, one.clone(), wait))));
        let refused = loop {
            tokio::select! {
                refused = &mut more => break refused,
                request = b.next_request() => held.push(request.2),
            }
        };
        assert!(
            refused.iter().all(|result| *result == Err(RequestError::NotSent(NotSent::Busy))),
            "{refused:?}"
        );
        assert!(held.len() <= limit, "{}", held.len());
        // Requests that end give their places back.
        let mut answered = held.len();
        held.into_iter().for_each(|reply| reply.send(one.clone()));
        while answered < limit {
            b.next_request().await.2.send(one.clone());
            answered += 1;
        }
    };
    let (answers, ()) = tokio::join!(many, held_and_refused);
    assert!(answers.iter().all(|answer| *answer == Ok(one.clone())), "{answers:?}");
}

/// Answers each of the next `count` requests with a stream that does not end. Anything but a request is a
/// failure.
async fn follow(b: &mut Node, count: usize) -> Vec<ReplyStream> {
    let mut streams = Vec::new();
    while streams.len() < count {
        let mut stream = b.next_request().await.2.stream();
        stream.send(Bytes::from_static(b"line")).await.expect("followed");
        streams.push(stream);
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streamed_answers_are_bounded_and_nothing_else_waits_for_them() {
    let (a, mut b) = pair().await;
    let (a_net, b_id, one) = (a.net.clone(), b.id(), Bytes::from_static(b"1"));
    let most = STREAMED_ANSWERS_PER_PEER_MAX;
    let asked = join_all((0..most).map(|_| a_net.request_stream(b_id, one.clone(), LONG)));
    let (mut followed, _streams) = tokio::join!(asked, follow(&mut b, most));
    assert!(followed.iter().all(Result::is_ok));
    // A further streamed answer is refused at once, with the way out, and its request is not sent.
    for _ in 0..48 {
        let refused = a_net.request_stream(b_id, one.clone(), LONG).await.err().expect("one too many");
        assert_eq!(refused, RequestError::NotSent(NotSent::TooManyStreamed));
        assert!(refused.to_string().contains("end one of them"), "{refused}");
    }
    // As many requests as there may be, and a snapshot beside them.
    let asked = join_all((0..REQUESTS_PER_PEER_MAX).map(|_| a_net.request(b_id, one.clone(), LONG)));
    let snapshot = a_net.send_snapshot(b_id, Bytes::from_static(b"snapshot"));
    let arrived = async {
        let (mut replies, mut snapshots) = (Vec::new(), 0);
        while replies.len() < REQUESTS_PER_PEER_MAX || snapshots == 0 {
            match b.next().await {
                Incoming::Request { reply, .. } => replies.push(reply),
                Incoming::Snapshot { .. } => snapshots += 1,
                other => panic!("unexpected {other:?}"),
            }
        }
        replies.into_iter().for_each(|reply| reply.send(Bytes::new()));
    };
    let (answers, snapshot, ()) = tokio::join!(asked, snapshot, arrived);
    assert!(answers.iter().all(Result::is_ok) && snapshot == Ok(()), "{answers:?} {snapshot:?}");
    // A streamed answer that ends makes room for another one.
    followed.pop();
    let (again, _stream) = tokio::join!(a_net.request_stream(b_id, one.clone(), LONG), follow(&mut b, 1));
    assert!(again.is_ok());
    let other = node().await;
    b.set_peers(vec![a.as_peer(), other.as_peer()]);
    other.set_peers(vec![b.as_peer()]);
    other.until_up(b_id).await;
    let (theirs, _stream) = tokio::join!(other.net.request_stream(b_id, one, LONG), follow(&mut b, 1));
    assert!(theirs.is_ok(), "each peer has its own share");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_follows_too_many_answers_is_refused_and_its_requests_go_on() {
    let (mut a, raw) = (node().await, Raw::new().await);
    a.set_peers(vec![raw.as_peer()]);
    let (connection, _send, _receive) = raw.link(&a).await;
    let mut raft = connection.open_uni().await.expect("stream");
    raft.write_all(&[1]).await.expect("kind");
    let ask = async || {
        let (mut send, receive) = timeout(LONG, connection.open_bi()).await.expect("room").expect("stream");
        send.write_all(&[&[2][..], &frame(b"ask")].concat()).await.expect("question");
        send.finish().expect("open");
        receive
    };
    let (mut streams, mut followed) = (Vec::new(), Vec::new());
    for _ in 0..STREAMED_ANSWERS_TO_PEER_MAX {
        let mut receive = ask().await;
        streams.extend(follow(&mut a, 1).await);
        let mut kind = [0];
        receive.read_exact(&mut kind).await.expect("an item");
        assert_eq!(kind, [2]);
        followed.push(receive);
    }
    // A peer of a version without a bound of its own goes on asking.
    for _ in 0..100 {
        let mut receive = ask().await;
        let stream = a.next_request().await.2.stream();
        let refusal = timeout(LONG, receive.read_to_end(1 << 10)).await.expect("in time").expect("answer");
        assert!(refusal[0] == 5 && String::from_utf8_lossy(&refusal).contains("end one of"), "{refusal:?}");
        timeout(LONG, stream.closed()).await.expect("the application learns of it");
    }
    let mut receive = ask().await;
    a.next_request().await.2.send(Bytes::from_static(b"yes"));
    let answer = timeout(LONG, receive.read_to_end(1 << 10)).await.expect("in time").expect("answer");
    assert_eq!(answer, [&[1][..], &frame(b"yes")].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_no_streams_delays_a_snapshot_no_longer_than_its_deadline() {
    let (a, raw) = (node().await, Raw::with_streams(1).await);
    let addresses = raw.endpoint.bound_sockets();
    a.set_peers(vec![PeerConfig { endpoint_id: raw.id(), addresses, relay_url: None }]);
    let incoming = timeout(LONG, raw.endpoint.accept()).await.expect("dialled").expect("open");
    let connection = incoming.await.expect("handshake");
    // The stream of the hello is the only one that the peer allows, and it does not end.
    let (mut send, _hello) = connection.accept_bi().await.expect("hello");
    send.write_all(&frame(br#"{"incarnation":7}"#)).await.expect("welcome");
    let mut raft = connection.open_uni().await.expect("stream");
    raft.write_all(&[1]).await.expect("kind");
    a.until_up(raw.id()).await;
    let delivery = a.net.send_snapshot(raw.id(), Bytes::from_static(b"snapshot"));
    let refused = timeout(LONG, delivery).await.expect("in time");
    assert!(
        matches!(&refused, Err(SnapshotError::NotTaken(why)) if why.contains("no more streams")),
        "{refused:?}"
    );
    assert!(a.net.links().borrow()[&raw.id()].is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_can_be_a_stream() {
    let (a, mut b) = pair().await;
    let b_id = b.id();
    let question = || a.net.request_stream(b_id, Bytes::from_static(b"logs"), LONG);

    // A streamed answer that is completed.
    let answer = async {
        let mut stream = b.next_request().await.2.stream();
        for i in 0..1000u32 {
            stream.send(Bytes::from(i.to_string())).await.expect("the asker reads");
        }
        stream.end();
    };
    let (stream, ()) = tokio::join!(
        async {
            let items: Vec<_> = question().await.expect("begins").collect().await;
            items
        },
        answer
    );
    assert_eq!(stream.len(), 1000);
    assert!(stream.iter().enumerate().all(|(i, item)| *item == Ok(Bytes::from(i.to_string()))));

    // An empty stream, and a plain answer.
    let (stream, ()) = tokio::join!(question(), async { b.next_request().await.2.stream().end() });
    assert_eq!(stream.expect("begins").count().await, 0);
    let one = Bytes::from_static(b"one");
    let (stream, ()) = tokio::join!(question(), async { b.next_request().await.2.send(one.clone()) });
    assert_eq!(stream.expect("begins").collect::<Vec<_>>().await, [Ok(one.clone())]);

    // A stream that is dropped before its end.
    let broken = async {
        let mut stream = b.next_request().await.2.stream();
        stream.send(Bytes::from_static(b"half")).await.expect("the asker reads");
    };
    let (stream, ()) = tokio::join!(question(), broken);
    let items: Vec<_> = stream.expect("begins").collect().await;
    assert!(items.len() == 2 && items[0].is_ok() && items[1].is_err(), "{items:?}");

    // The asker drops the stream.
    let (stream, mut reply) = tokio::join!(question(), async {
        let mut stream = b.next_request().await.2.stream();
        stream.send(Bytes::from_static(b"first")).await.expect("the asker reads");
        stream
    });
    drop(stream);
    timeout(LONG, reply.closed()).await.expect("noticed without sending");
    assert!(reply.send(Bytes::from_static(b"second")).await.is_err());

    // The node that answers is closed.
    let (stream, mut reply) = tokio::join!(question(), async {
        let mut stream = b.next_request().await.2.stream();
        stream.send(Bytes::from_static(b"first")).await.expect("the asker reads");
        stream
    });
    let mut stream = stream.expect("begins");
    assert!(matches!(stream.next().await, Some(Ok(_))));
    b.net.close().await;
    assert!(matches!(timeout(LONG, stream.next()).await.expect("noticed"), Some(Err(_))));
    assert!(stream.next().await.is_none());
    assert!(reply.send(Bytes::from_static(b"late")).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_a_stream_slows_its_writer_and_nobody_else() {
    let (a, mut b) = pair().await;
    let b_id = b.id();
    let item = Bytes::from(vec![3; REQUEST_LEN_MAX]);
    let (stream, mut reply) = tokio::join!(a.net.request_stream(b_id, Bytes::new(), LONG), async {
        let mut stream = b.next_request().await.2.stream();
        stream.send(item.clone()).await.expect("the asker reads");
        stream
    });
    let _stream = stream.expect("begins");
    let mut sent = 0;
    while timeout(Duration::from_millis(300), reply.send(item.clone())).await.is_ok() {
        sent += 1;
        assert!(sent < 100, "nothing holds the writer back");
    }
    assert_eq!(a.net.send_raft(b_id, Bytes::from_static(b"r")), SendOutcome::Queued);
    assert_eq!(b.next_raft().await.1, Bytes::from_static(b"r"));
    let (answer, ()) = tokio::join!(a.net.request(b_id, Bytes::new(), LONG), async {
        b.next_request().await.2.send(Bytes::new());
    });
    assert_eq!(answer, Ok(Bytes::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dialling_at_the_same_time_end_with_one_connection() {
    for _ in 0..25 {
        let (a, b) = (node().await, node().await);
        let (for_a, for_b) = (vec![b.as_peer()], vec![a.as_peer()]);
        tokio::join!(async { a.set_peers(for_a) }, async { b.set_peers(for_b) });
        let (mut a_sees, mut b_sees) = (a.until_up(b.id()).await, b.until_up(a.id()).await);
        let (a_net, a_id, b_id) = (a.net.clone(), a.id(), b.id());
        let (b_net, _echo) = b.spawn_echo();
        // A few round trips settle whatever is still on its way.
        let mut agreed = false;
        for _ in 0..50 {
            let word = Bytes::from_static(b"x");
            agreed = a_net.request(b_id, word.clone(), LONG).await == Ok(word);
            let now = (a_net.links().borrow()[&b_id].clone(), b_net.links().borrow()[&a_id].clone());
            agreed = agreed && now == (a_sees.clone(), b_sees.clone());
            (a_sees, b_sees) = now;
        }
        assert!(agreed, "{a_sees:?} {b_sees:?}");
        let (LinkState::Up { dialled: a_dialled, .. }, LinkState::Up { dialled: b_dialled, .. }) =
            (a_sees, b_sees)
        else {
            panic!("a link is down");
        };
        assert!(a_dialled != b_dialled, "both ends of one connection");
    }
}
