//! An old copy of a store is put back: the node has forgotten what it had acknowledged, and must not go on
//! with it.

use std::fs;

use super::cluster::Cluster;

fn create(c: &Cluster, node: usize, name: &str) {
    let run = c.nodes[node].blixard(&format!("vm create {name} --kernel /k"));
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn an_old_store_that_is_put_back_ends_the_agent_with_65_and_the_node_votes_again_without_it() {
    let mut c = Cluster::formed();
    let node = c.followers()[0];
    let other = c.leader();
    create(&c, other, "before");
    let store = c.nodes[node].dir.join("store.redb");
    let copy = c.nodes[node].dir.join("old.redb");
    assert!(c.nodes[node].stop().success());
    fs::copy(&store, &copy).expect("copied");

    c.nodes[node].start();
    c.await_formed(3);
    for name in ["a", "b", "c"] {
        create(&c, other, name);
    }
    let all = ["a", "b", "before", "c"];
    c.until("it has stored them", |c| c.nodes[node].stale_names() == all);
    assert!(c.nodes[node].stop().success());

    fs::copy(&copy, &store).expect("put back");
    c.nodes[node].start();
    assert_eq!(c.await_end(node), 65);
    let log = c.nodes[node].log();
    // What becomes of its VMs is said after that.
    let mut last = log.lines().rev().take(2);
    assert!(last.any(|line| line.contains("move store.redb out of the data directory")), "{log}");

    // The same store ends the agent in the same way again, which is why systemd does not start it again.
    c.nodes[node].start();
    assert_eq!(c.await_end(node), 65);

    fs::rename(&store, c.nodes[node].dir.join("lost.redb")).expect("moved away");
    c.nodes[node].start();
    c.await_formed(3);
    c.until("it lists everything", |c| c.nodes[node].stale_names() == all);
}
