//! What crashes, lost disks and lost quorums may take, and what they must not.

use super::cluster::{Cluster, Node};

fn create(node: &Node, name: &str) {
    let run = node.blixard(&format!("vm create {name} --kernel /k"));
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn writes_go_on_after_the_leader_dies_and_it_catches_up() {
    let mut c = Cluster::formed();
    let leader = c.leader();
    let other = c.followers()[0];
    create(&c.nodes[other], "before");
    c.nodes[leader].kill();
    // The write is sent at once, through a node that still believes in the dead leader. The next leader
    // answers it.
    create(&c.nodes[other], "after");
    let on = c.nodes[other].vms().into_iter().find(|vm| vm.name.as_str() == "after").expect("listed").node;
    assert_ne!(on.as_str(), c.nodes[leader].name, "placed on the dead node");
    c.nodes[leader].start();
    c.until("the old leader has the log", |c| c.nodes[leader].stale_names() == ["after", "before"]);
}

#[test]
fn acknowledged_writes_survive_a_crash_of_all_nodes() {
    let mut c = Cluster::formed();
    for n in 0..6 {
        create(&c.nodes[n % 3], &format!("vm{n}"));
    }
    c.nodes.iter_mut().for_each(Node::kill);
    c.nodes.iter_mut().for_each(Node::start);
    c.until("all six are known everywhere", |c| c.nodes.iter().all(|node| node.stale_names().len() == 6));
}

#[test]
fn acknowledged_writes_survive_a_wiped_voter_beside_a_dead_one() {
    let mut c = Cluster::formed();
    let [dead, wiped] = c.followers()[..] else { panic!("two followers") };
    let leader = c.leader();
    let old_id = c.nodes[wiped].status().expect("answers").members;
    // One voter is dead, so only the other two hold what is acknowledged now.
    c.nodes[dead].kill();
    create(&c.nodes[leader], "precious");
    c.nodes[wiped].kill();
    c.nodes[wiped].wipe();
    c.nodes[wiped].start();
    c.until("the wiped node knows that it is not known", |c| {
        let status = c.nodes[wiped].status();
        status.is_some_and(|s| s.waiting_for.iter().any(|w| w.contains("does not know this node's store")))
    });
    // One voter of three is no quorum, so no write is taken; and nothing is lost either.
    let run = c.nodes[leader].blixard("vm create refused --kernel /k --timeout 20");
    assert!(run.code == 3 || run.code == 4, "{run:?}");
    c.nodes[dead].start();
    c.await_formed(3);
    c.until("everybody has the log", |c| {
        c.nodes.iter().all(|node| node.stale_names().contains(&"precious".to_owned()))
    });
    let name = &c.nodes[wiped].name;
    let raft_id = |members: &[blixard_model::api::NodeView]| {
        members.iter().find(|m| m.name.as_str() == name).map(|m| (m.raft_id, m.store_id))
    };
    let (before, after) = (raft_id(&old_id), raft_id(&c.nodes[leader].status().expect("answers").members));
    let (Some(before), Some(after)) = (before, after) else { panic!("{name} is no member") };
    assert!(after.0 > before.0, "the raft id was used again");
    assert_ne!(after.1, before.1);
}

#[test]
fn without_a_quorum_writes_and_reads_fail_fast_and_stale_reads_say_so() {
    let mut c = Cluster::formed();
    create(&c.nodes[0], "known");
    let [a, b] = c.followers()[..] else { panic!("two followers") };
    let alone = c.leader();
    c.until("replicated", |c| c.nodes[alone].stale_names() == ["known"]);
    c.nodes[a].kill();
    c.nodes[b].kill();
    c.until("the leader steps down", |c| c.nodes[alone].status().is_some_and(|s| !s.quorum));
    let write = c.nodes[alone].blixard("vm create x --kernel /k --timeout 20");
    write.ends(3, "no quorum");
    c.nodes[alone].blixard("vm list --timeout 20").ends(3, "no quorum");
    assert_eq!(c.nodes[alone].stale_names(), ["known"]);
}

#[test]
fn a_leader_that_is_stopped_transfers_its_leadership() {
    let mut c = Cluster::formed();
    let leader = c.leader();
    let other = c.followers()[0];
    assert!(c.nodes[leader].stop().success(), "{}", c.nodes[leader].log());
    c.until("another leads", |c| {
        let status = c.nodes[other].status();
        status.and_then(|s| s.leader).is_some_and(|name| name.as_str() != c.nodes[leader].name)
    });
    assert!(!c.nodes[leader].log().contains("nobody took the leadership over"));
}

#[test]
fn a_restart_resumes_and_keeps_the_term() {
    let mut c = Cluster::formed();
    let follower = c.followers()[0];
    let before = c.nodes[follower].status().expect("answers");
    c.nodes[follower].kill();
    c.nodes[follower].start();
    c.await_formed(3);
    let after = c.nodes[follower].status().expect("answers");
    assert_eq!(
        (before.term, before.store_id, before.cluster_id),
        (after.term, after.store_id, after.cluster_id)
    );
}
