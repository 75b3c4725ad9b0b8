//! What a node offers reaches the log, whichever node leads.

use std::fs;

use blixard_model::Capacity;

use super::cluster::{Cluster, Node};

/// Writes another capacity into a node's configuration. It applies from the next start on.
fn offer(node: &Node, cpus: u32) {
    let path = node.dir.join("config.toml");
    let text = fs::read_to_string(&path).expect("configuration");
    fs::write(path, text.replace("cpus = 4\n", &format!("cpus = {cpus}\n"))).expect("written");
}

fn all_know(c: &Cluster, of: usize, cpus: u32) -> bool {
    let name = &c.nodes[of].name;
    c.nodes.iter().all(|node| {
        node.status().is_some_and(|status| {
            let member = status.members.iter().find(|member| member.name.as_str() == name);
            member.is_some_and(|m| m.capacity == Some(Capacity { cpus, memory_mib: 2048 }))
        })
    })
}

#[test]
fn a_new_capacity_of_a_follower_becomes_known_everywhere() {
    let mut c = Cluster::formed();
    let follower = c.followers()[0];
    assert!(c.nodes[follower].stop().success());
    offer(&c.nodes[follower], 3);
    c.nodes[follower].start();
    c.until("every table has it", |c| all_know(c, follower, 3));
    assert_ne!(c.leader(), follower, "through the one that leads");
    let status = c.nodes[follower].status().expect("answers");
    assert!(status.retrying.iter().all(|r| r.what != blixard_model::api::RetryKind::Register), "{status:?}");
}

#[test]
fn a_registration_waits_until_there_is_a_leader() {
    let mut c = Cluster::formed();
    c.nodes.iter_mut().for_each(Node::kill);
    offer(&c.nodes[0], 2);
    c.nodes[0].start();
    c.until("it is a member without a leader", |c| {
        c.nodes[0].status().is_some_and(|status| !status.quorum && !status.members.is_empty())
    });
    // Nobody is asked meanwhile, so nothing fails.
    c.until("the first links have failed", |c| {
        c.nodes[0].status().is_some_and(|s| s.retrying.iter().filter(|r| r.failures >= 3).count() == 2)
    });
    let status = c.nodes[0].status().expect("answers");
    let tried = |kind| status.retrying.iter().any(|retry| retry.what == kind);
    use blixard_model::api::RetryKind::{Forward, Register};
    assert!(!tried(Register) && !tried(Forward), "{status:?}");
    c.nodes[1].start();
    c.nodes[2].start();
    c.until("every table has it", |c| all_know(c, 0, 2));
}
