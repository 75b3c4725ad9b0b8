//! `cluster join`: what it waits for, and that it does not wait for what can no longer happen.

use blixard_model::api::{JoinTaken, NodePhase, RetryKind, RetryView, StatusView};
use blixard_model::id::{ClusterId, TicketId};

use super::fake_agent::{FakeAgent, Reply};
use super::views;
use crate::binary;

fn taken() -> Reply {
    Reply::json(&JoinTaken {
        cluster_id: ClusterId::from_bytes([0xef; 16]),
        id: TicketId::from_bytes([0xab; 8]),
    })
}

fn forming() -> StatusView {
    let failed = |what, last_error: &str| RetryView {
        what,
        peer: None,
        failures: 2,
        next_try_in_ms: Some(900),
        last_error: last_error.into(),
        failing_for_ms: Some(1_200),
    };
    StatusView {
        phase: NodePhase::Forming,
        waiting_for: vec!["a member to let this node in".into()],
        retrying: vec![failed(RetryKind::Form, "n2: ?"), failed(RetryKind::Join, "it lets nobody in")],
        ..views::status()
    }
}

fn join(agent: &FakeAgent, flags: &[&str]) -> binary::Run {
    let args = [&["cluster", "join"], flags].concat();
    binary::run_with_input(&agent.socket(), &args, "a-ticket\n")
}

#[test]
fn a_join_waits_until_the_node_is_a_member() {
    let joining = StatusView { phase: NodePhase::Joining, ..views::status() };
    let replies = [forming(), forming(), joining, views::status()];
    let agent = FakeAgent::script([taken()].into_iter().chain(replies.iter().map(Reply::json)).collect());
    let run = join(&agent, &[]);
    assert!(run.code == 0 && run.stdout.starts_with("n1 is a member of lab ("), "{run:?}");
    let lines: Vec<&str> = run.stderr.lines().collect();
    let waits = "waiting for a member to let this node in (it lets nobody in)";
    assert_eq!(lines, [waits, "admitted, waiting for the cluster's state"], "{run:?}");
    assert_eq!(agent.seen()[0].body, r#"{"ticket":"a-ticket"}"#);
}

#[test]
fn a_ticket_that_cannot_be_used_ends_the_join_with_the_reason() {
    let ended = StatusView { ticket_problem: Some("the ticket was revoked".into()), ..forming() };
    let agent = FakeAgent::script(vec![taken(), Reply::json(&forming()), Reply::json(&ended)]);
    let run = join(&agent, &[]);
    run.ends(1, "error: this node was not admitted: the ticket was revoked\n");
    assert!(run.stderr.contains("blixard cluster ticket create"), "{run:?}");
}

#[test]
fn a_join_that_is_not_done_in_time_says_what_it_waits_for() {
    let mut first = true;
    let agent =
        FakeAgent::new(move |_| if std::mem::take(&mut first) { taken() } else { Reply::json(&forming()) });
    let run = join(&agent, &["--timeout", "1"]);
    run.ends(4, "error: not a member yet: waiting for a member to let this node in (it lets nobody in)");
    assert!(run.stderr.contains("if the ticket was used, revoked or has expired"), "{run:?}");
}

#[test]
fn an_empty_ticket_is_not_sent() {
    let agent = FakeAgent::script(Vec::new());
    let run = binary::run_with_input(&agent.socket(), &["cluster", "join"], "\n");
    run.ends(2, "there is no ticket in stdin");
    assert!(agent.asked().is_empty());
}
