//! With what an agent refuses to start, and whom it refuses to talk to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::cluster::{Cluster, Node, keygen};
use crate::binary::{self, Run};

/// Starts an agent that is expected to refuse, and waits for its end.
fn refused(node: &Node) -> Run {
    let output = Command::new(binary::path())
        .arg("agent")
        .arg("--config")
        .arg(node.dir.join("config.toml"))
        .output()
        .expect("the agent runs");
    output.into()
}

#[test]
fn a_key_that_is_not_the_listed_one_is_refused_with_the_local_id() {
    let c = Cluster::new(3);
    let key = c.nodes[0].dir.join("node.key");
    fs::remove_file(&key).expect("removed");
    let local = keygen(&key);
    refused(&c.nodes[0]).ends(1, &local);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let c = Cluster::new(3);
    let key = c.nodes[0].dir.join("node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("changed");
    refused(&c.nodes[0]).ends(1, "chmod 0600");
}

#[test]
fn an_unknown_key_of_the_configuration_is_refused_with_the_nearest() {
    let c = Cluster::new(1);
    let path = c.nodes[0].dir.join("config.toml");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, format!("prot = 1\n{text}")).expect("written");
    refused(&c.nodes[0]).ends(1, "did you mean `port`");
    let check = format!("agent --check-config --config {}", path.display());
    c.nodes[0].blixard(&check).ends(1, "did you mean `port`");
    fs::write(&path, text).expect("written");
    let run = c.nodes[0].blixard(&check);
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn a_list_with_an_address_that_others_cannot_reach_is_refused_with_its_key() {
    let c = Cluster::new(3);
    let path = c.nodes[0].dir.join("config.toml");
    let text = fs::read_to_string(&path).expect("read");
    let second = text.lines().filter(|line| line.starts_with("addresses")).nth(1).expect("listed").to_owned();
    let cases = [
        ("[\"10.77.0.2:7431\"]", "members.n1.addresses", "loopback address beside 10.77.0.2:7431 (n2)"),
        ("[\"0.0.0.0:7431\"]", "members.n2.addresses", "is the unspecified address"),
        ("[]", "members.n2.addresses", "no address and no relay"),
    ];
    for (addresses, key, wanted) in cases {
        fs::write(&path, text.replace(&second, &format!("addresses = {addresses}"))).expect("written");
        let check = format!("agent --check-config --config {}", path.display());
        for run in [refused(&c.nodes[0]), c.nodes[0].blixard(&check)] {
            assert!(run.stderr.contains(key), "{run:?}");
            run.ends(1, wanted);
        }
    }
}

#[test]
fn an_own_address_with_another_port_is_valid_and_warned_about() {
    let mut c = Cluster::new(1);
    let path = c.nodes[0].dir.join("config.toml");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, format!("port = 7500\n{text}")).expect("written");
    let run = c.nodes[0].blixard(&format!("agent --check-config --config {}", path.display()));
    assert!(run.code == 0 && run.stdout.ends_with(": valid\n"), "{run:?}");
    let warning = "members.n1.addresses: ";
    assert!(run.stderr.contains("warning: ") && run.stderr.contains(warning), "{run:?}");
    c.nodes[0].start();
    c.until("it warns", |c| c.nodes[0].log().contains("is not at port 7500, which this node listens on"));
}

#[test]
fn a_store_of_another_node_or_cluster_is_refused() {
    let mut c = Cluster::new(2);
    (1..=2).for_each(|n| c.configure(n, &[]));
    c.nodes[0].start();
    c.until("formed", |c| c.nodes[0].status().is_some_and(|s| s.quorum));
    c.nodes[0].stop();
    let (ours, theirs) = (c.nodes[0].dir.join("store.redb"), c.nodes[1].dir.join("store.redb"));
    fs::copy(&ours, &theirs).expect("copied");
    refused(&c.nodes[1]).ends(1, "belongs to endpoint");

    let path = c.nodes[0].dir.join("config.toml");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text.replace("\"test\"", "\"other\"")).expect("written");
    refused(&c.nodes[0]).ends(1, "belongs to cluster");
}

#[test]
fn a_second_agent_on_the_same_data_is_refused() {
    let mut c = Cluster::new(1);
    c.configure(1, &[]);
    c.nodes[0].start();
    c.until("it runs", |c| c.nodes[0].status().is_some());
    refused(&c.nodes[0]).ends(1, "in use by another process");
}

#[test]
fn a_node_that_is_not_listed_is_not_let_in() {
    let mut c = Cluster::new(4);
    (1..=3).for_each(|n| c.configure(n, &[1, 2, 3]));
    c.nodes.iter_mut().for_each(Node::start);
    c.until("the three formed", |c| c.nodes[..3].iter().all(|n| n.status().is_some_and(|s| s.quorum)));
    c.until("the stranger is told", |c| {
        let status = c.nodes[3].status();
        status.is_some_and(|s| s.warnings.iter().any(|w| w.contains("refuses this node")))
    });
    let members = c.nodes[0].status().expect("answers").members;
    assert_eq!(members.len(), 3);
}
