//! Three nodes over real iroh on loopback: a cluster of the usual size does what it has to do, and does it
//! every time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use blixard_model::Role;
use blixard_model::api::{NodeView, StatusView};

use super::cluster::{Cluster, Node};

/// Clusters that are formed one after another.
const CLUSTERS: usize = 30;
/// The time within which all of them have to be formed and torn down.
const ALL_WITHIN: Duration = Duration::from_secs(90);

/// The status of every node.
fn views(c: &Cluster) -> Vec<StatusView> {
    c.nodes.iter().map(|node| node.status().expect("answers")).collect()
}

/// Checks that every node shows everything about every member, that all nodes show the same, and that it is
/// what each member says about itself.
fn assert_full_peer_information(c: &Cluster) {
    let views = views(c);
    let stores: BTreeMap<String, _> = views.iter().map(|v| (v.node.to_string(), v.store_id)).collect();
    assert_eq!(stores.values().collect::<BTreeSet<_>>().len(), 3, "{stores:?}");
    let facts = |m: &NodeView| (m.raft_id, m.name.clone(), m.endpoint_id, m.store_id, m.addresses.clone());
    for view in &views {
        let names: Vec<String> = view.members.iter().map(|m| m.name.to_string()).collect();
        assert_eq!(names, ["n1", "n2", "n3"], "{}", view.node);
        assert_eq!(view.cluster_id, views[0].cluster_id);
        assert!(view.cluster_id.is_some());
        for (n, member) in view.members.iter().enumerate() {
            let said = format!("{} of {}", view.node, member.name);
            assert_eq!(member.endpoint_id.to_string(), c.ids[n], "{said}");
            assert_eq!(member.store_id, stores[&names[n]], "{said}");
            assert_eq!(member.addresses, [format!("{}:7431", c.address(n + 1)).parse().expect("address")]);
            assert_eq!(member.role, Role::Voter, "{said}");
            let capacity = member.capacity.expect("known from birth");
            assert_eq!((capacity.cpus, capacity.memory_mib), (4, 2048), "{said}");
            assert_eq!(facts(member), facts(&views[0].members[n]), "{said}");
        }
        let ids: BTreeSet<_> = view.members.iter().map(|m| m.raft_id).collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
    }
}

/// Makes a write through this node. After that, every running node lists all of these VMs, read through a
/// quorum.
fn create(c: &Cluster, through: &Node, name: &str, all: &[&str]) {
    let run = through.blixard(&format!("vm create {name} --kernel /k"));
    assert_eq!(run.code, 0, "{run:?}");
    for node in c.nodes.iter().filter(|node| node.runs()) {
        let names: Vec<String> = node.vms().iter().map(|vm| vm.name.to_string()).collect();
        assert_eq!(names, all, "{}", node.name);
    }
}

#[test]
fn three_nodes_comprehensive() {
    let mut c = Cluster::formed();
    assert_full_peer_information(&c);
    let leader = c.leader();
    c.until("everybody reaches everybody", |c| {
        c.nodes.iter().all(|n| n.status().is_some_and(|s| s.members.iter().all(|m| m.reachable)))
    });
    create(&c, &c.nodes[0], "a", &["a"]);
    create(&c, &c.nodes[1], "b", &["a", "b"]);
    create(&c, &c.nodes[2], "c", &["a", "b", "c"]);
    c.until("replicated", |c| c.nodes.iter().all(|node| node.stale_names() == ["a", "b", "c"]));

    // The leader is stopped: the others go on, and when it comes back it gets what it missed.
    assert!(c.nodes[leader].stop().success());
    let other = (leader + 1) % 3;
    c.until("the others have a leader", |c| {
        let elected =
            |s: StatusView| s.quorum && s.leader.is_some_and(|l| l.as_str() != c.nodes[leader].name);
        c.nodes.iter().filter(|n| n.runs()).all(|n| n.status().is_some_and(elected))
    });
    create(&c, &c.nodes[other], "d", &["a", "b", "c", "d"]);
    c.nodes[leader].start();
    c.await_formed(3);
    c.until("it has what it missed", |c| {
        c.nodes.iter().all(|node| node.stale_names() == ["a", "b", "c", "d"])
    });
    assert_full_peer_information(&c);
    create(&c, &c.nodes[leader], "e", &["a", "b", "c", "d", "e"]);
}

#[test]
fn formed_and_torn_down_thirty_times() {
    let begun = Instant::now();
    let mut times: Vec<Duration> = (0..CLUSTERS).map(|_| formed_once()).collect();
    times.sort();
    let (median, whole) = (times[CLUSTERS / 2], begun.elapsed());
    let (first, last) = (times[0], times[CLUSTERS - 1]);
    println!("MEASURED {CLUSTERS} clusters in {whole:.1?}; formed: {first:.2?}, {median:.2?}, {last:.2?}");
    assert!(whole < ALL_WITHIN, "{whole:?}, {times:?}");
}

/// Forms one cluster and tears it down. Returns how long it took from the first start until all three nodes
/// saw three voters.
fn formed_once() -> Duration {
    let mut c = Cluster::new(3);
    let begun = Instant::now();
    c.nodes.iter_mut().for_each(Node::start);
    c.await_formed(3);
    let formed = begun.elapsed();
    assert_full_peer_information(&c);
    let follower = c.followers()[0];
    create(&c, &c.nodes[follower], "a", &["a"]);
    formed
}
