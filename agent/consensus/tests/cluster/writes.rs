//! The write of a Ready, between what rests on nothing and what rests on it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use blixard_consensus::{HardState, Inbound, Limits};
use blixard_model::{MembershipChange, RaftId};

use crate::nodes::{Cluster, Node, member, vote_request};

/// Node 2 of a new cluster, asked for its vote in term 2 by node 1, up to the write that this asks for.
fn asked(c: &mut Cluster) -> &mut Node {
    let node = c.nodes.get_mut(&2).expect("up");
    node.step(Inbound::decode(&vote_request(1, 2, 2), false).expect("a message")).expect("taken");
    node
}

#[test]
fn a_vote_comes_out_only_after_it_is_written() {
    let mut c = Cluster::new(3);
    let node = asked(&mut c);
    let effects = node.pump().expect("goes on");
    let write = effects.write.expect("term and vote have to be durable");
    assert_eq!((write.hard_state, write.sync), (Some(HardState { term: 2, vote: 1, commit: 1 }), true));
    assert!(effects.messages.is_empty() && write.entries.is_empty() && write.snapshot.is_none());
    let effects = node.written().expect("goes on");
    assert!(effects.write.is_none(), "nothing is left");
    assert_eq!(effects.messages.iter().map(|message| message.to).collect::<Vec<_>>(), [RaftId(1)]);
}

#[test]
fn a_node_that_ends_before_its_write_has_promised_nothing() {
    let mut c = Cluster::new(3);
    assert!(asked(&mut c).pump().expect("goes on").write.is_some());
    c.crash(2);
    c.start(2);
    assert_eq!(c.nodes[&2].status().term, 1);
}

#[test]
fn an_entry_is_acknowledged_only_after_it_is_written() {
    let mut c = Cluster::new(2);
    let leader = c.elect();
    let follower = 3 - leader;
    c.nodes.get_mut(&leader).expect("up").propose(b"a".to_vec()).expect("leads");
    c.pump(leader);
    let (_, append) = c.in_flight.pop().expect("sent before the leader's own write");
    let node = c.nodes.get_mut(&follower).expect("up");
    node.step(Inbound::decode(&append.encode_behind(&[]), false).expect("a message")).expect("taken");
    let effects = node.pump().expect("goes on");
    let write = effects.write.expect("the entry has to be durable");
    assert!(write.sync && write.entries.len() == 1 && effects.messages.is_empty());
    assert_eq!(node.written().expect("goes on").messages.len(), 1);
}

#[test]
fn the_log_is_cut_only_after_the_snapshot_behind_it_is_written() {
    let limits = Limits { compact_entries: 4, keep_entries: 0, ..Limits::default() };
    let mut c = Cluster::with_limits(1, limits);
    c.elect();
    let node = c.nodes.get_mut(&1).expect("up");
    for _ in 0..9 {
        node.propose(b"x".to_vec()).expect("leads");
    }
    let mut effects = node.pump().expect("goes on");
    let cut = loop {
        let write = effects.write.expect("a large log is cut");
        if write.snapshot.is_some() {
            break write;
        }
        effects = node.written().expect("goes on");
    };
    assert!(cut.sync && !cut.clear_log && cut.hard_state.is_some());
    let index = cut.snapshot.expect("just seen").index;
    let before = node.log_stats();
    assert!(before.entries >= 9 && before.snapshot_index < index, "{before:?}");
    assert!(node.written().expect("goes on").write.is_none());
    let after = node.log_stats();
    assert_eq!((after.entries, after.snapshot_index), (0, index));
}

/// Something that a node takes when it is at rest.
type Input = fn(&mut Node, &MembershipChange);

#[test]
fn while_a_write_is_under_way_a_node_takes_no_input_and_can_be_looked_at() {
    let change = MembershipChange::AddLearner { member: member(4), ticket: None };
    let inputs: [(&str, Input); 9] = [
        ("tick", |node, _| node.tick()),
        ("step", |node, _| {
            let _ = node.step(Inbound::decode(&vote_request(3, 2, 3), false).expect("a message"));
        }),
        ("propose", |node, _| {
            let _ = node.propose(Vec::new());
        }),
        ("propose_membership", |node, change| {
            let _ = node.propose_membership(change);
        }),
        ("read", |node, _| {
            let _ = node.read();
        }),
        ("report_unreachable", |node, _| node.report_unreachable(RaftId(1))),
        ("report_snapshot", |node, _| node.report_snapshot(RaftId(1), true)),
        ("transfer_leadership", |node, _| {
            let _ = node.transfer_leadership();
        }),
        ("pump", |node, _| {
            let _ = node.pump();
        }),
    ];
    let mut c = Cluster::new(3);
    let node = asked(&mut c);
    assert!(node.pump().expect("goes on").write.is_some());
    for (name, input) in inputs {
        let refused = catch_unwind(AssertUnwindSafe(|| input(node, &change)));
        let words = refused.expect_err(name).downcast_ref::<&str>().copied().map(str::to_owned);
        assert!(words.expect("a text").contains("call Consensus::written first"), "{name}");
    }
    node.forget_proposal(1);
    node.forget_read(1);
    assert_eq!((node.status().term, node.leads(), node.is_member()), (2, false, true));
    assert_eq!(node.written().expect("goes on").messages.len(), 1, "and goes on as if nothing had been");
    let refused = catch_unwind(AssertUnwindSafe(|| node.written().is_ok()));
    assert!(refused.is_err(), "nothing was to be written");
}
