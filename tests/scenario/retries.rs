//! What fails and is tried again is shown, and is no longer shown once it has succeeded.

use blixard_model::api::{RetryKind, RetryView};

use super::cluster::{Cluster, Node};

/// How often a member is frozen, at most, until a question to it was seen to fail. Its link may end before
/// that.
const FREEZES_MAX: usize = 5;

/// What a node shows about this retry, with this peer if the retry is about one.
fn shown(node: &Node, what: RetryKind, with: Option<&str>) -> Option<RetryView> {
    let is_it = |retry: &RetryView| retry.what == what && retry.peer.as_ref().map(|p| p.as_str()) == with;
    node.status()?.retrying.into_iter().find(is_it)
}

fn connects(node: &Node, to: &str) -> Option<RetryView> {
    shown(node, RetryKind::Connect, Some(to))
}

/// The line of this retry in the table of `blixard status`.
fn line(node: &Node, what: RetryKind) -> String {
    let run = node.blixard("status");
    assert!(run.code == 0 && run.stdout.contains("RETRYING"), "{run:?}");
    let mut lines = run.stdout.lines();
    let line = lines.find(|line| line.split_whitespace().next() == Some(what.name()));
    line.unwrap_or_else(|| unreachable!("no line: {run:?}")).to_owned()
}

#[test]
fn a_node_that_is_down_shows_as_a_growing_retry_until_it_is_back() {
    let mut c = Cluster::formed();
    let down = c.followers()[0];
    let other = c.followers()[1];
    let name = c.nodes[down].name.clone();
    assert_eq!(connects(&c.nodes[other], &name), None);
    c.nodes[down].kill();
    let mut first = None;
    c.until("it fails", |c| {
        first = connects(&c.nodes[other], &name);
        first.is_some()
    });
    let first = first.expect("found");
    assert!(!first.last_error.is_empty(), "{first:?}");
    c.until("it fails more often", |c| {
        connects(&c.nodes[other], &name).is_some_and(|now| now.failures > first.failures)
    });
    let line = line(&c.nodes[other], RetryKind::Connect);
    assert!(line.contains(&name), "{line}");
    c.nodes[down].start();
    c.until("it is shown no more", |c| {
        c.nodes[other].status().is_some_and(|status| status.retrying.is_empty())
    });
}

#[test]
fn forming_shows_as_a_bounded_retry_while_a_member_is_missing() {
    let mut c = Cluster::new(3);
    c.nodes[0].start();
    c.nodes[1].start();
    let form = |c: &Cluster, n: usize| shown(&c.nodes[n], RetryKind::Form, None);
    for n in 0..2 {
        c.until("its pauses have grown", |c| {
            form(c, n).is_some_and(|r| r.failures >= 5 && r.next_try_in_ms.is_some_and(|ms| ms > 600))
        });
        let shown = form(&c, n).expect("the third is missing");
        assert!(shown.next_try_in_ms.is_none_or(|ms| ms <= 2_000), "{shown:?}");
        assert_eq!(shown.last_error, "n3: has not answered");
        let line = line(&c.nodes[n], RetryKind::Form);
        assert!(line.contains("n3: has not answered"), "{line}");
    }
    c.nodes[2].start();
    c.await_formed(3);
    assert!((0..3).all(|n| form(&c, n).is_none()), "it is over");
}

#[test]
fn a_member_that_does_not_answer_is_shown_as_a_retried_question() {
    let c = Cluster::formed();
    let (leader, frozen) = (c.leader(), c.followers()[0]);
    let name = c.nodes[frozen].name.clone();
    let identify = |c: &Cluster| shown(&c.nodes[leader], RetryKind::Identify, Some(&name));
    let well = |c: &Cluster| c.nodes[leader].status().is_some_and(|status| status.retrying.is_empty());
    let mut seen = None;
    for _ in 0..FREEZES_MAX {
        c.until("all is well", well);
        c.nodes[frozen].freeze();
        c.until("a question fails, or the link ends", |c| {
            seen = identify(c);
            seen.is_some() || connects(&c.nodes[leader], &name).is_some()
        });
        c.nodes[frozen].thaw();
        if seen.is_some() {
            break;
        }
    }
    let seen = seen.expect("a question was seen to fail");
    assert!(seen.failures >= 1 && !seen.last_error.is_empty(), "{seen:?}");
    assert!(seen.next_try_in_ms.is_none_or(|ms| ms <= 10_000), "{seen:?}");
    c.until("it is shown no more", well);
}
