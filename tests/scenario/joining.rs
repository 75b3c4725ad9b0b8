//! Nodes that join with a ticket, and nodes that leave.

use blixard_model::api::{Listing, NodePhase, TicketMade, TicketView};
use blixard_model::{Role, TicketState};

use super::cluster::{Cluster, Node};

fn ticket(node: &Node, flags: &str) -> TicketMade {
    let run = node.blixard(&format!("cluster ticket create --json {flags}"));
    assert_eq!(run.code, 0, "{run:?}");
    run.json()
}

fn tickets(node: &Node) -> Vec<TicketView> {
    let run = node.blixard("cluster ticket list --json");
    assert_eq!(run.code, 0, "{run:?}");
    run.json::<Listing<TicketView>>().items
}

/// Writes the ticket to a file from which the node's command line reads it. Returns the path.
fn carry(node: &Node, text: &str) -> String {
    let path = node.dir.join("ticket");
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn join(node: &Node, text: &str) -> crate::binary::Run {
    let path = carry(node, text);
    let run = node.blixard(&format!("cluster join --ticket-file {path} --timeout 30"));
    if run.code > 2 {
        println!("{:#?}", node.status());
    }
    run
}

fn create(node: &Node, name: &str) {
    let run = node.blixard(&format!("vm create {name} --kernel /k"));
    assert_eq!(run.code, 0, "{run:?}");
}

/// Three listed nodes in a cluster, and a fourth node that is to join.
fn three_and_one() -> Cluster {
    let mut c = Cluster::formed_of(3, 1);
    c.nodes[3].start();
    c.until("the fourth waits for a ticket", |c| {
        c.nodes[3].status().is_some_and(|s| s.waiting_for.iter().any(|line| line.contains("a ticket")))
    });
    c
}

#[test]
fn a_node_with_a_ticket_becomes_a_learner_and_the_ticket_is_used_up() {
    let mut c = three_and_one();
    create(&c.nodes[0], "before");
    let made = ticket(&c.nodes[1], "--ttl 10m");
    let run = join(&c.nodes[3], &made.ticket);
    assert_eq!(run.code, 0, "{run:?}\n{}", c.nodes[3].log());
    c.until("it has the log", |c| c.nodes[3].stale_names() == ["before"]);
    let status = c.nodes[0].status().expect("answers");
    let member = status.members.iter().find(|m| m.name.as_str() == "n4").expect("a member");
    assert_eq!(member.role, Role::Learner, "three vote already");
    c.until("its capacity is known", |c| {
        let status = c.nodes[0].status();
        status.is_some_and(|s| s.members.iter().all(|member| member.capacity.is_some()))
    });
    let state = tickets(&c.nodes[2]).into_iter().find(|t| t.id == made.id).map(|t| t.state);
    assert!(matches!(state, Some(TicketState::Used { node, .. }) if node.as_str() == "n4"));
    assert!(!c.nodes[3].dir.join("join.ticket").exists(), "the kept ticket is forgotten");
    // After a restart it goes on as a member, without a ticket and without a list.
    c.nodes[3].kill();
    create(&c.nodes[3 - 1], "meanwhile");
    c.nodes[3].start();
    c.until("it caught up", |c| c.nodes[3].stale_names() == ["before", "meanwhile"]);
}

#[test]
fn a_ticket_admits_one_node_and_says_so_to_the_next() {
    let mut c = Cluster::formed_of(3, 2);
    c.nodes[3].start();
    c.nodes[4].start();
    c.until("they answer", |c| c.nodes[3].status().is_some() && c.nodes[4].status().is_some());
    let made = ticket(&c.nodes[0], "");
    // A second ticket stays open, so that the cluster still answers requests to join.
    let other = ticket(&c.nodes[0], "--name n9");
    let run = join(&c.nodes[3], &made.ticket);
    assert_eq!(run.code, 0, "{run:?}\n{}", c.nodes[3].log());
    join(&c.nodes[4], &made.ticket).ends(1, "it has admitted n4");
    join(&c.nodes[4], &other.ticket).ends(1, "it is for a node named n9");
    let run = c.nodes[0].blixard(&format!("cluster ticket revoke {}", other.id));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(c.nodes[0].status().expect("answers").members.iter().all(|m| m.name.as_str() != "n5"));
}

#[test]
fn revoked_and_damaged_tickets_admit_nobody() {
    let c = three_and_one();
    let (made, open) = (ticket(&c.nodes[0], ""), ticket(&c.nodes[0], "--name n9"));
    let run = c.nodes[1].blixard(&format!("cluster ticket revoke {}", made.id));
    assert_eq!(run.code, 0, "{run:?}");
    join(&c.nodes[3], &made.ticket).ends(1, "it was revoked");
    let mut damaged = made.ticket.clone();
    damaged.truncate(damaged.len() - 3);
    join(&c.nodes[3], &damaged).ends(2, "damaged");
    join(&c.nodes[3], "blixard").ends(2, "damaged");
    join(&c.nodes[3], "").ends(2, "ticket");
    assert_eq!(c.nodes[3].status().expect("answers").phase, NodePhase::Forming);
    let run = c.nodes[0].blixard(&format!("cluster ticket revoke {}", open.id));
    assert_eq!(run.code, 0, "{run:?}");
}

#[test]
fn a_join_with_a_revoked_ticket_says_so_when_no_ticket_is_open() {
    let c = three_and_one();
    let made = ticket(&c.nodes[0], "");
    let run = c.nodes[1].blixard(&format!("cluster ticket revoke {}", made.id));
    assert_eq!(run.code, 0, "{run:?}");
    c.until("all know", |c| {
        let revoked = |node: &Node| {
            let list = node.blixard("cluster ticket list --json --stale").json::<Listing<TicketView>>();
            list.items.iter().any(|ticket| matches!(ticket.state, TicketState::Revoked))
        };
        c.nodes[..3].iter().all(revoked)
    });
    let run = join(&c.nodes[3], &made.ticket);
    assert!(run.stderr.contains("blixard cluster ticket create"), "{run:?}");
    run.ends(1, "no ticket is open in that cluster any more");
    // The node does not give the ticket up because of this answer: the members that it asked may have been
    // behind.
    assert!(c.nodes[3].dir.join("join.ticket").exists());
    let again = ticket(&c.nodes[0], "");
    let run = join(&c.nodes[3], &again.ticket);
    assert_eq!(run.code, 0, "{run:?}\n{}", c.nodes[3].log());
}

#[test]
fn a_ticket_of_another_cluster_is_not_shown_to_this_one() {
    let c = three_and_one();
    let other = Cluster::formed();
    let _open = ticket(&c.nodes[0], "");
    let theirs = ticket(&other.nodes[0], "");
    let path = carry(&c.nodes[0], &theirs.ticket);
    c.nodes[0].blixard(&format!("cluster join --ticket-file {path}")).ends(1, "belongs to cluster");
    let run = join(&c.nodes[3], &theirs.ticket);
    assert_eq!(run.code, 0, "{run:?}\n{}", c.nodes[3].log());
    let ids = |c: &Cluster| c.nodes[0].status().and_then(|s| s.cluster_id);
    assert_eq!(c.nodes[3].status().and_then(|s| s.cluster_id), ids(&other));
}

#[test]
fn a_join_resumes_after_a_crash_of_the_joiner() {
    let mut c = three_and_one();
    let made = ticket(&c.nodes[0], "");
    let path = carry(&c.nodes[3], &made.ticket);
    let run = c.nodes[3].blixard(&format!("cluster join --ticket-file {path} --no-wait"));
    assert_eq!(run.code, 0, "{run:?}");
    c.nodes[3].kill();
    c.nodes[3].start();
    c.until("it is a member", |c| {
        c.nodes[3].status().is_some_and(|s| s.phase == NodePhase::Member && s.members.len() == 4)
    });
}

#[test]
fn a_member_leaves_and_says_so_also_after_a_restart() {
    let mut c = Cluster::formed();
    create(&c.nodes[0], "kept");
    let on = c.nodes[0].vms()[0].node.clone();
    let leaving = c.nodes.iter().position(|n| n.name != on.as_str()).expect("another");
    let run = c.nodes[leaving].blixard("cluster leave");
    assert_eq!(run.code, 0, "{run:?}\n{}", c.nodes[leaving].log());
    let removed = |c: &Cluster| c.nodes[leaving].status().is_some_and(|s| s.phase == NodePhase::Removed);
    c.until("it knows", removed);
    let others: Vec<usize> = (0..3).filter(|n| *n != leaving).collect();
    c.until("the others are two", |c| {
        others.iter().all(|n| c.nodes[*n].status().is_some_and(|s| s.members.len() == 2 && s.quorum))
    });
    create(&c.nodes[others[0]], "after");
    c.nodes[leaving].blixard("vm list").ends(3, "was removed from its cluster");
    c.nodes[leaving].kill();
    c.nodes[leaving].start();
    c.until("it still knows", removed);
    // After it has lost its store, the node is still on the lists of the others, but is not let in.
    c.nodes[leaving].kill();
    c.nodes[leaving].wipe();
    c.nodes[leaving].start();
    c.until("it is refused with the reason", |c| {
        c.nodes[leaving].status().is_some_and(|s| s.warnings.iter().any(|line| line.contains("removed")))
    });
    assert_eq!(c.nodes[others[1]].status().expect("answers").members.len(), 2);
}

#[test]
fn a_leader_that_leaves_transfers_its_leadership_first() {
    let c = Cluster::formed();
    let leader = c.leader();
    let run = c.nodes[leader].blixard("cluster leave");
    assert_eq!(run.code, 0, "{run:?}\n{}", c.nodes[leader].log());
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    c.until("another leads two", |c| {
        others.iter().all(|n| c.nodes[*n].status().is_some_and(|s| s.members.len() == 2 && s.quorum))
    });
    create(&c.nodes[others[0]], "after");
}

#[test]
fn a_dead_node_is_removed_only_by_force_and_with_a_choice_about_its_vms() {
    let mut c = Cluster::formed();
    create(&c.nodes[0], "placed");
    let on = c.nodes[0].vms()[0].node.clone();
    let dead = c.nodes.iter().position(|n| n.name == on.as_str()).expect("a node");
    let other = (0..3).find(|n| *n != dead).expect("another");
    let remove = |c: &Cluster, flags: &str| c.nodes[other].blixard(&format!("node remove {on} {flags}"));
    remove(&c, "").ends(1, "VMs are placed on");
    c.nodes[dead].kill();
    c.until("a leader", |c| c.nodes[other].status().is_some_and(|s| s.leader.is_some_and(|l| l != on)));
    c.until("it is missed", |c| {
        let run = remove(c, "");
        run.code == 1 && run.stderr.contains("cannot be reached")
    });
    remove(&c, "--force").ends(1, "VMs are placed on");
    // Whether it is refused without the last word rests on whether this machine can keep a lease.
    let run = remove(&c, "--force --vms delete --i-know-it-is-off");
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(c.nodes[other].vms(), [], "forgotten with its node");
    assert_eq!(remove(&c, "--force --vms delete").code, 0, "asked for again it changes nothing more");
    // The dead node comes back with its old store, and learns that it was removed.
    c.nodes[dead].start();
    c.until("it knows", |c| c.nodes[dead].status().is_some_and(|s| s.phase == NodePhase::Removed));
}

/// Creates VMs until one is placed on the fourth node. Returns how many there are then.
fn create_until_n4_has_one(c: &Cluster) -> usize {
    let mut created = 0;
    c.until("it is given a VM", |c| {
        created += 1;
        create(&c.nodes[0], &format!("vm{created}"));
        c.nodes[0].vms().iter().any(|vm| vm.node.as_str() == "n4")
    });
    created
}

/// A cluster in which the fourth node has joined, was given a VM, lost its store and is back; and the number
/// of VMs.
fn n4_lost_its_store_with_vms() -> (Cluster, usize) {
    let mut c = three_and_one();
    let made = ticket(&c.nodes[0], "");
    assert_eq!(join(&c.nodes[3], &made.ticket).code, 0, "{}", c.nodes[3].log());
    let created = create_until_n4_has_one(&c);
    c.nodes[3].kill();
    c.nodes[3].wipe();
    // The fourth node lists the others, so they see its new store. They do not list the fourth node, so it is
    // not admitted.
    c.configure(4, &[1, 2, 3, 4]);
    c.nodes[3].start();
    (c, created)
}

#[test]
fn a_node_that_lost_its_store_and_never_comes_back_can_be_forgotten_with_its_vms() {
    let (mut c, created) = n4_lost_its_store_with_vms();
    c.until("its place is let go", |c| c.nodes[0].status().is_some_and(|s| s.members.len() == 3));
    c.nodes[3].kill();
    let remove = |flags: &str| c.nodes[0].blixard(&format!("node remove n4 {flags}"));
    remove("").ends(1, "VMs are placed on");
    assert_eq!(remove("--force --vms keep").code, 0);
    assert_eq!(c.nodes[0].vms().len(), created, "kept");
    remove("--force --vms delete").ends(1, "--i-know-it-is-off");
    // From when the node has not been heard of for a while.
    let run = remove("--force --vms delete --i-know-it-is-off");
    assert_eq!(run.code, 0, "{run:?}");
    let vms = c.nodes[0].vms();
    assert!(vms.len() == created - 1 && vms.iter().all(|vm| vm.node.as_str() != "n4"), "{vms:?}");
    remove("").ends(1, "no node named n4");
}

#[test]
fn a_removal_also_deletes_the_vms_of_a_node_that_just_lost_its_store() {
    let (c, created) = n4_lost_its_store_with_vms();
    let first = &c.nodes[0];
    let run = std::thread::scope(|scope| {
        let removal = scope
            .spawn(|| first.blixard("node remove n4 --force --vms delete --i-know-it-is-off --timeout 30"));
        // Either the loss of the store or the removal makes it leave the cluster.
        c.until("it is no member", |c| c.nodes[1].status().is_some_and(|s| s.members.len() == 3));
        c.nodes[3].freeze();
        removal.join().expect("no panic")
    });
    c.nodes[3].thaw();
    assert_eq!(run.code, 0, "{run:?}");
    let vms = c.nodes[0].vms();
    assert!(vms.len() == created - 1 && vms.iter().all(|vm| vm.node.as_str() != "n4"), "{vms:?}");
}

#[test]
fn a_removal_that_would_cost_the_quorum_is_refused() {
    let mut c = Cluster::formed();
    let leader = c.leader();
    let [one, two] = c.followers()[..] else { panic!("two followers") };
    let name = c.nodes[one].name.clone();
    c.nodes[two].kill();
    c.until("it is refused", |c| {
        let run = c.nodes[leader].blixard(&format!("node remove {name}"));
        run.code == 1 && run.stderr.contains("are no quorum")
    });
    c.nodes[leader].blixard("node remove nobody").ends(1, "no node named nobody");
}

#[test]
fn a_cluster_of_one_grows_and_its_first_node_forms_no_other_after_losing_its_store() {
    let mut c = Cluster::new(3);
    c.configure_with(1, &[], "");
    c.configure_with(2, &[], "join = true\n");
    c.configure_with(3, &[], "join = true\n");
    c.nodes[0].start();
    c.until("it is a cluster of one", |c| {
        c.nodes[0].status().is_some_and(|s| s.quorum && s.members.iter().all(|m| m.capacity.is_some()))
    });
    create(&c.nodes[0], "kept");
    for n in [1, 2] {
        c.nodes[n].start();
        c.until("it answers", |c| c.nodes[n].status().is_some());
        let made = ticket(&c.nodes[0], "");
        let run = join(&c.nodes[n], &made.ticket);
        assert_eq!(run.code, 0, "{run:?}\n{}", c.nodes[n].log());
    }
    c.await_formed(3);
    c.nodes[0].kill();
    c.nodes[0].wipe();
    c.nodes[0].start();
    c.until("it knows that it was in a cluster", |c| {
        c.nodes[0].status().is_some_and(|s| s.waiting_for.iter().any(|w| w.contains("its store is gone")))
    });
    // The other nodes do not reach it for a moment before they take its store for lost.
    let made = ticket(&c.nodes[1], "");
    let run = join(&c.nodes[0], &made.ticket);
    assert_eq!(run.code, 0, "{run:?}\n{}", c.nodes[0].log());
    c.await_formed(3);
    c.until("it has the log", |c| c.nodes[0].stale_names() == ["kept"]);
    let ids: Vec<_> = c.nodes.iter().map(|node| node.status().and_then(|s| s.cluster_id)).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
}
