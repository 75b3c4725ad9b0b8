//! Who leads, and what everybody has in the end, through crashes and cuts.

use blixard_consensus::{Inbound, Limits, ProposeError, RaftRole};
use blixard_model::{MembershipChange, RaftId};

use crate::nodes::{Cluster, member, vote_request};

#[test]
fn one_node_leads_itself_and_applies() {
    let mut c = Cluster::new(1);
    let leader = c.elect();
    let key = c.propose(leader, "a").expect("leads");
    assert!(c.acked(leader, key));
    assert_eq!(c.lines(1), ["a"]);
}

#[test]
fn three_nodes_elect_one_leader_and_replicate_in_order() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    assert_eq!(c.nodes.values().filter(|n| n.status().role == RaftRole::Leader).count(), 1);
    for text in ["a", "b", "c"] {
        let key = c.propose(leader, text).expect("leads");
        assert!(c.acked(leader, key));
    }
    c.tick(5);
    for id in 1..=3 {
        assert_eq!(c.lines(id), ["a", "b", "c"], "node {id}");
    }
}

#[test]
fn a_follower_refuses_proposals_and_names_the_leader() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let follower = (1..=3).find(|id| *id != leader).expect("three");
    let refused = c.nodes.get_mut(&follower).expect("up").propose(b"x".to_vec());
    assert_eq!(refused, Err(ProposeError::NotLeader(Some(RaftId(leader)))));
}

#[test]
fn losing_the_leader_elects_another_and_keeps_what_was_acknowledged() {
    let mut c = Cluster::new(3);
    let first = c.elect();
    c.propose(first, "before").expect("leads");
    c.crash(first);
    let second = c.elect();
    assert_ne!(first, second);
    let key = c.propose(second, "after").expect("leads");
    assert!(c.acked(second, key));
    c.start(first);
    c.tick(30);
    assert_eq!(c.lines(first), ["before", "after"]);
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_the_leader_steps_down() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    others.iter().for_each(|id| c.crash(*id));
    let key = c.propose(leader, "lost?");
    c.tick(40);
    assert!(key.is_none_or(|key| !c.acked(leader, key)));
    assert_eq!(c.nodes[&leader].status().leader, None);
    let read = c.nodes.get_mut(&leader).expect("up").read().expect("room");
    c.tick(10);
    assert!(!c.reads[&leader].contains(&read), "a read without a quorum must not be served");
}

#[test]
fn a_crash_of_everybody_keeps_everything_acknowledged() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let lines: Vec<String> = (0..20).map(|n| format!("line {n}")).collect();
    for line in &lines {
        let key = c.propose(leader, line).expect("leads");
        assert!(c.acked(leader, key));
    }
    (1..=3).for_each(|id| c.crash(id));
    (1..=3).for_each(|id| c.start(id));
    c.elect();
    c.tick(5);
    for id in 1..=3 {
        assert_eq!(c.lines(id), lines, "node {id}");
    }
}

#[test]
fn a_restart_keeps_term_and_vote() {
    let mut c = Cluster::new(3);
    c.elect();
    let before = c.nodes[&2].status();
    c.crash(2);
    c.start(2);
    let after = c.nodes[&2].status();
    assert_eq!(before.term, after.term);
    assert_eq!(after.voters, [RaftId(1), RaftId(2), RaftId(3)]);
}

/// Whether node 2 grants a vote in term 2 to `from`.
fn asks_for_vote(c: &mut Cluster, from: u64) -> bool {
    use protobuf::Message as _;
    let inbound = Inbound::decode(&vote_request(from, 2, 2), false).expect("a message");
    let node = c.nodes.get_mut(&2).expect("up");
    node.step(inbound).expect("taken");
    let effects = c.effects(2);
    let mut answer = raft::eraftpb::Message::default();
    answer
        .merge_from_bytes(&effects.messages.last().expect("an answer").encode_behind(&[]))
        .expect("a message");
    !answer.reject
}

#[test]
fn a_vote_survives_a_crash() {
    let mut c = Cluster::new(3);
    assert!(asks_for_vote(&mut c, 1));
    c.crash(2);
    c.start(2);
    assert!(!asks_for_vote(&mut c, 3), "two votes in one term");
    assert!(asks_for_vote(&mut c, 1), "the same vote again is no second one");
}

#[test]
fn a_learner_does_not_believe_in_a_dead_leader_for_ever() {
    let mut c = Cluster::new(1);
    c.elect();
    let admit = MembershipChange::AddLearner { member: member(2), ticket: None };
    c.nodes.get_mut(&1).expect("up").propose_membership(&admit).expect("fits");
    c.tick(5);
    c.start(2);
    c.tick(20);
    assert_eq!(c.nodes[&2].status().leader, Some(RaftId(1)));
    c.crash(1);
    c.tick(30);
    assert_eq!(c.nodes[&2].status().leader, None);
}

#[test]
fn a_read_sees_everything_acknowledged_before_it_on_every_node() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    for id in 1..=3 {
        c.propose(leader, "x").expect("leads");
        let read = c.nodes.get_mut(&id).expect("up").read().expect("room");
        c.settle();
        c.tick(2);
        assert!(c.reads[&id].contains(&read), "node {id}");
        assert_eq!(c.lines(id).len(), usize::try_from(id).expect("small"));
    }
}

#[test]
fn the_log_is_bounded_in_memory_and_on_disk() {
    let by_entries = Limits { compact_entries: 64, compact_bytes: 1 << 20, keep_entries: 16 };
    let by_bytes = Limits { compact_entries: 100_000, compact_bytes: 8 << 10, keep_entries: 16 };
    for limits in [by_entries, by_bytes] {
        let mut c = Cluster::with_limits(3, limits);
        let leader = c.elect();
        for n in 0..1_000 {
            c.propose(leader, &format!("{n:0>100}")).expect("leads");
            c.settle();
            for (id, node) in &c.nodes {
                let stats = node.log_stats();
                // What can be cut is cut at once; Raft's own window of what is not applied comes on top.
                assert!(stats.entries <= limits.compact_entries + limits.keep_entries + 1, "{id}: {stats:?}");
                assert!(stats.bytes <= limits.compact_bytes + (4 << 10), "{id}: {stats:?}");
                let on_disk = c.disks[id].entries().0;
                assert!(on_disk <= stats.entries, "{id}: {on_disk} entries on disk, {stats:?}");
            }
        }
        assert_eq!(c.lines(leader).len(), 1_000);
    }
}

#[test]
fn a_node_far_behind_is_caught_up_by_a_snapshot() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let behind = (1..=3).find(|id| *id != leader).expect("three");
    c.crash(behind);
    for n in 0..10_000 {
        c.propose(leader, &format!("{n}")).expect("leads");
    }
    c.start(behind);
    c.tick(40);
    assert_eq!(c.lines(behind).len(), 10_000);
    assert_eq!(c.lines(behind), c.lines(leader));
    let kept = c.disks[&leader].entries().1;
    assert!(kept < 9_500, "the log on disk was not cut: {kept} entries");
    // And the one that was cut comes back from its own snapshot.
    c.crash(leader);
    c.start(leader);
    c.elect();
    assert_eq!(c.lines(leader).len(), 10_000);
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.tick(3);
    assert!(c.nodes.get_mut(&leader).expect("up").transfer_leadership());
    c.settle();
    c.tick(3);
    let next = c.leader().expect("somebody leads");
    assert_ne!(next, leader);
}

#[test]
fn a_cut_leader_is_replaced_and_its_unacknowledged_entry_disappears() {
    let mut c = Cluster::new(3);
    let old = c.elect();
    c.cut.insert(old);
    let key = c.propose(old, "never").expect("still believes to lead");
    assert!(!c.acked(old, key));
    let new = c.elect();
    c.propose(new, "real").expect("leads");
    c.cut.clear();
    c.tick(30);
    for id in 1..=3 {
        assert_eq!(c.lines(id), ["real"], "node {id}");
    }
    assert!(!c.acked(old, key));
}

#[test]
fn messages_are_checked_before_raft_sees_them() {
    let mut c = Cluster::new(3);
    c.elect();
    assert!(Inbound::decode(b"\xff\xff\xff", false).is_err());
    assert!(Inbound::decode(&[0x0b; 100_000], false).is_err(), "nested groups");
    // Field 1 is the type, 2 the receiver, 3 the sender.
    let proposal = [0x08, 2, 0x10, 1, 0x18, 2];
    assert!(Inbound::decode(&proposal, false).is_err());
    let heartbeat = [0x08, 8, 0x10, 3, 0x18, 2, 0x20, 1];
    assert!(Inbound::decode(&heartbeat[..6], false).is_err(), "no term");
    let nameless_read = [0x08, 15, 0x10, 1, 0x18, 2];
    assert!(Inbound::decode(&nameless_read, false).is_err(), "a read without its name");
    assert!(Inbound::decode(&heartbeat, true).is_err(), "no snapshot");
    let misdirected = Inbound::decode(&heartbeat, false).expect("a message");
    assert_eq!(misdirected.from(), RaftId(2));
    assert!(c.nodes.get_mut(&1).expect("up").step(misdirected).is_err());
}

#[test]
fn the_same_inputs_give_the_same_run() {
    let run = || {
        let mut c = Cluster::new(3);
        let first = c.elect();
        c.propose(first, "a");
        c.crash(first);
        let second = c.elect();
        c.propose(second, "b");
        c.start(first);
        c.tick(50);
        c.trace
    };
    assert_eq!(run(), run());
}
