//! A cluster to measure, and the node that joins it and leaves it.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant, SystemTime};

use blixard_model::api::{NodePhase, StatusView, TicketMade};
use blixard_model::{NodeName, Role};
use serde::de::IgnoredAny;
use tempfile::TempDir;

use super::client::{Client, ask};
use crate::scenario::cluster::{Cluster, Node};

/// Longest time that any wait may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two checks of a condition.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// A cluster of `listed` nodes, with room for as many VMs as a cluster may hold, and one more node that is to
/// join.
pub(super) fn formed_of(listed: usize) -> Cluster {
    let mut c = Cluster::new(listed + 1);
    for number in 1..=listed {
        c.configure(number, &(1..=listed).collect::<Vec<_>>());
    }
    c.configure_with(listed + 1, &[], "join = true\n");
    for node in &mut c.nodes {
        let path = node.dir.join("config.toml");
        let text = fs::read_to_string(&path).expect("configuration");
        let text = text.replace("cpus = 4\n", "cpus = 4096\n").replace("= 2048\n", "= 1000000000\n");
        fs::write(path, text).expect("written");
    }
    c.nodes.iter_mut().take(listed).for_each(Node::start);
    c.await_formed(listed);
    c
}

/// Gives the last node, which is not started yet, a disk of its own, as another machine would have. Otherwise
/// its writes would be in the way of the other nodes' syncs. The disk is in memory, because there is no
/// second one.
pub(super) fn put_last_apart(c: &Cluster) -> TempDir {
    let node = c.nodes.last().expect("a node");
    let apart = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    for entry in fs::read_dir(&node.dir).expect("listed").map(|entry| entry.expect("an entry")) {
        fs::copy(entry.path(), apart.path().join(entry.file_name())).expect("copied");
    }
    fs::remove_dir_all(&node.dir).expect("removed");
    symlink(apart.path(), &node.dir).expect("linked");
    apart
}

pub(super) fn status(node: &Node) -> Option<StatusView> {
    ask(node, "GET", "/v1/status", "")
}

/// Checks a condition until it holds. Past the deadline it panics and shows the log of every node.
pub(super) fn until(c: &Cluster, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > DEADLINE {
            let log = |node: &Node| {
                let lines: Vec<String> = node.log().lines().map(str::to_owned).collect();
                let status = node.runs().then(|| status(node)).flatten();
                format!(
                    "--- {} {status:?}\n{}\n",
                    node.name,
                    lines[lines.len().saturating_sub(40)..].join("\n")
                )
            };
            panic!("not within {DEADLINE:?}: {what}\n{}", c.nodes.iter().map(log).collect::<String>());
        }
        std::thread::park_timeout(LOOK_PERIOD);
    }
}

/// The role of the member with this name, as `node` knows it.
pub(super) fn role(node: &Node, name: &str) -> Option<Role> {
    let members = status(node)?.members;
    members.into_iter().find(|member| member.name.as_str() == name).map(|member| member.role)
}

/// Starts the last node with an empty store, and sends it a ticket that the first node made.
pub(super) fn join_last(c: &mut Cluster) {
    start_last(c);
    send_ticket(c);
}

/// Starts the last node with an empty store, and waits until it answers.
pub(super) fn start_last(c: &mut Cluster) {
    let last = c.nodes.last_mut().expect("a node");
    if last.runs() {
        last.kill();
        last.wipe();
    }
    last.start();
    until(c, "the joiner answers", || c.nodes.last().and_then(status).is_some());
}

/// Makes a ticket on the first node and sends it to the last.
pub(super) fn send_ticket(c: &Cluster) {
    let last = c.nodes.last().expect("a node");
    let mut made = None;
    until(c, "a ticket", || {
        made = ask::<TicketMade>(&c.nodes[0], "POST", "/v1/tickets", "{}");
        made.is_some()
    });
    let body = serde_json::json!({ "ticket": made.expect("made").ticket }).to_string();
    let taken: Option<IgnoredAny> = ask(last, "POST", "/v1/cluster/join", &body);
    assert!(taken.is_some(), "the ticket was not taken\n{}", last.log());
}

/// Waits until the last node has the cluster's state.
pub(super) fn await_caught_up(c: &Cluster) {
    let last = c.nodes.last().expect("a node");
    until(c, "the joiner has the state", || {
        status(last).is_some_and(|status| status.phase == NodePhase::Member && status.vms > 0)
    });
}

/// Asks a member to remove the last node. Returns when that is answered.
pub(super) fn remove_last(c: &Cluster, by: usize) {
    let name = &c.nodes.last().expect("a node").name;
    until(c, "it is removed", || {
        ask::<IgnoredAny>(&c.nodes[by], "DELETE", &format!("/v1/nodes/{name}"), "").is_some()
    });
}

/// The time of the last line in a node's log that contains all of these texts.
pub(super) fn logged(node: &Node, needles: &[&str]) -> Option<SystemTime> {
    let log = node.log();
    let line = log.lines().rev().find(|line| needles.iter().all(|needle| line.contains(needle)))?;
    let time = line.split_whitespace().next()?;
    humantime::parse_rfc3339(time).ok()
}

/// The term and the leader that `node` knows.
pub(super) fn led(node: &Node) -> Option<(u64, NodeName)> {
    let status = status(node)?;
    Some((status.term, status.leader?))
}

/// The index of the leader among the first `listed` nodes.
pub(super) fn leader(c: &Cluster, listed: usize) -> usize {
    let mut found = None;
    until(c, "a leader", || {
        let leader = led(&c.nodes[0]).map(|(_, name)| name);
        found = leader.and_then(|name| c.nodes[..listed].iter().position(|node| node.name == name.as_str()));
        found.is_some()
    });
    found.expect("found")
}

/// The value of one of a node's metrics.
pub(super) fn metric(node: &Node, name: &str) -> f64 {
    let answer = Client::connect(node).and_then(|mut client| client.request("GET", "/metrics", ""));
    let (_, text) = answer.expect("metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} is not in {text}"))
}
