//! How clusters are formed.

use blixard_model::Role;
use blixard_model::api::{NodePhase, StatusView};

use super::cluster::{Cluster, Node};

#[test]
fn nodes_with_the_same_list_form_a_cluster_in_any_order_of_starts() {
    for order in [[2, 0, 1], [1, 2, 0]] {
        let mut c = Cluster::new(3);
        c.nodes[order[0]].start();
        c.nodes[order[1]].start();
        c.until("the first two wait for the third", |c| {
            let missing = &c.nodes[order[2]].name;
            order[..2].iter().all(|n| {
                c.nodes[*n].status().is_some_and(|s| {
                    s.phase == NodePhase::Forming && s.waiting_for == [format!("{missing}: has not answered")]
                })
            })
        });
        c.nodes[order[2]].start();
        c.await_formed(3);
        let ids: Vec<_> = c.nodes.iter().map(|n| n.status().expect("answers").cluster_id).collect();
        assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}

#[test]
fn a_node_without_a_list_forms_a_cluster_of_one() {
    let mut c = Cluster::new(1);
    c.configure(1, &[]);
    c.nodes[0].start();
    c.await_formed(1);
    assert_eq!(c.nodes[0].blixard("vm create a --kernel /k").code, 0);
}

#[test]
fn a_newly_listed_node_becomes_a_learner_and_a_voter_when_one_has_left() {
    let mut c = Cluster::new(4);
    (1..=3).for_each(|n| c.configure(n, &[1, 2, 3]));
    c.nodes[..3].iter_mut().for_each(Node::start);
    c.await_formed(3);
    assert_eq!(c.nodes[0].blixard("vm create kept --kernel /k").code, 0);
    for n in 0..3 {
        c.nodes[n].stop();
        c.configure(n + 1, &[1, 2, 3, 4]);
        c.nodes[n].start();
    }
    c.nodes[3].start();
    c.until("the new node has the log", |c| c.nodes[3].stale_names() == ["kept"]);
    c.until("all four are known everywhere", |c| {
        let known = |s: StatusView| s.members.len() == 4 && s.members.iter().all(|m| m.capacity.is_some());
        c.nodes.iter().all(|node| node.status().is_some_and(known))
    });
    // Every node has the same table, and each member is in it as it described itself.
    let tables: Vec<_> = c.nodes.iter().map(members).collect();
    for table in &tables {
        assert_eq!(*table, tables[0]);
    }
    for member in tables[0].as_array().expect("a list") {
        assert_eq!(member["relay_url"], serde_json::Value::Null);
        assert_eq!(member["capacity"], serde_json::json!({"cpus": 4, "memory_mib": 2048}));
    }
    assert_eq!(c.nodes[3].status().expect("answers").voters.map(|voters| voters.total), Some(3));
    let leaves = c.nodes[..3].iter().find(|node| !node.vms().iter().any(|vm| vm.node.as_str() == node.name));
    let run = leaves.expect("two have no VM").blixard("cluster leave");
    assert_eq!(run.code, 0, "{run:?}");
    c.until("it votes", |c| {
        let votes = |m: &blixard_model::api::NodeView| m.name.as_str() == "n4" && m.role == Role::Voter;
        c.nodes[3].status().is_some_and(|s| s.members.iter().any(votes))
    });
}

/// The members in a node's own log: only what is the same on every node, under the names of the API.
fn members(node: &Node) -> serde_json::Value {
    let run = node.blixard("node list --json --stale");
    assert_eq!(run.code, 0, "{run:?}");
    let mut list: serde_json::Value = run.json();
    let mut items = list["items"].take();
    for item in items.as_array_mut().expect("a list") {
        let item = item.as_object_mut().expect("an object");
        let reached = ["reachable", "unreachable_for_ms", "silent_for_ms"];
        let of_the_moment = ["leader", "lease", "behind", "snapshot", "lost"];
        for of_the_moment in reached.into_iter().chain(of_the_moment) {
            item.remove(of_the_moment).expect("there");
        }
    }
    items
}

#[test]
fn nodes_with_different_lists_form_no_cluster_and_say_so() {
    let mut c = Cluster::new(3);
    let path = c.nodes[1].dir.join("config.toml");
    let text = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, text.replace(".3:7431\"", ".3:7432\"")).expect("written");
    c.nodes.iter_mut().for_each(Node::start);
    c.until("the difference is named", |c| {
        let status = c.nodes[0].status();
        status.is_some_and(|s| s.waiting_for.iter().any(|w| w.contains("n2: declares other members")))
    });
}
