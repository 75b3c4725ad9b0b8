//! What fails and is tried again is shown, and is shown no more when it went well.

use blixard_model::api::{RetryKind, RetryView};

use super::cluster::{Cluster, Node};

fn connects(node: &Node, to: &str) -> Option<RetryView> {
    let status = node.status()?;
    let to = |retry: &RetryView| {
        retry.what == RetryKind::Connect && retry.peer.as_ref().is_some_and(|peer| peer.as_str() == to)
    };
    status.retrying.into_iter().find(to)
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
    let run = c.nodes[other].blixard("status");
    assert!(run.code == 0 && run.stdout.contains("RETRYING"), "{run:?}");
    let line = run.stdout.lines().find(|line| line.starts_with("connect ")).expect("a line");
    assert!(line.contains(&name), "{line}");
    c.nodes[down].start();
    c.until("it is shown no more", |c| {
        c.nodes[other].status().is_some_and(|status| status.retrying.is_empty())
    });
}
