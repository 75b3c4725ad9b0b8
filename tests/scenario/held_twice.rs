//! A second machine runs with a copy of the data directory and the configuration of a node that runs as well.

use std::fs;

use blixard_model::api::NodeView;

use super::cluster::{Cluster, Node};

/// Makes the fourth node a copy of the third node, at its own address.
fn copy_third(c: &Cluster) {
    let (from, to) = (&c.nodes[2].dir, &c.nodes[3].dir);
    for file in ["node.key", "store.redb", "cluster"] {
        fs::copy(from.join(file), to.join(file)).expect("copied");
    }
    let text = fs::read_to_string(from.join("config.toml")).expect("read");
    let listens = |number| format!("listen_address = \"{}\"", c.address(number));
    let text = text.replace(&listens(3), &listens(4));
    let text = text.replace(&from.display().to_string(), &to.display().to_string());
    fs::write(to.join("config.toml"), text).expect("written");
}

fn held_at(node: &Node) -> Vec<String> {
    let third = |members: Vec<NodeView>| members.into_iter().find(|member| member.name.as_str() == "n3");
    let addresses = node.status().and_then(|view| third(view.members)).map(|member| member.held_twice_at);
    let mut addresses: Vec<String> = addresses.into_iter().flatten().map(|at| at.to_string()).collect();
    addresses.sort();
    addresses
}

#[test]
fn a_running_copy_of_a_node_is_refused_and_every_node_shows_both() {
    let mut c = Cluster::formed_of(3, 1);
    c.nodes[2].stop();
    copy_third(&c);
    c.nodes[2].start();
    c.await_formed(3);
    c.nodes[3].start();
    let both = [c.address(3), c.address(4)].map(|ip| format!("{ip}:7431"));
    c.until("every member and both holders name both", |c| c.nodes.iter().all(|node| held_at(node) == both));
    for node in &c.nodes {
        let check = node.blixard("status --check");
        check.ends(1, &both[0]);
        assert!(check.stderr.contains(&both[1]), "{check:?}");
        let list = node.blixard("node list --stale");
        assert!(
            list.stdout.contains("held twice") && both.iter().all(|at| list.stdout.contains(at)),
            "{list:?}"
        );
    }
    // The original goes on, and the copy takes no part in what is written.
    let run = c.nodes[2].blixard("vm create web --kernel /k --node n3");
    assert_eq!(run.code, 0, "{run:?}");
    c.until("it is there", |c| c.nodes[2].stale_names() == ["web"]);
    assert_eq!(c.nodes[3].stale_names(), [""; 0]);
    c.nodes[3].blixard("vm list").ends(3, "");
    // Once the copy is switched off, nothing is wrong any more.
    c.nodes[3].kill();
    c.until("it is forgotten", |c| c.nodes[..3].iter().all(|node| node.blixard("status --check").code == 0));
}
