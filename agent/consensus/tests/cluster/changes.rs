//! Who votes, through changes and the loss of disks.

use blixard_consensus::{Inbound, ProposeError};
use blixard_model::{MembershipChange, RaftId, Removal};

use crate::nodes::{Cluster, member};

#[test]
fn a_lost_store_leaves_and_comes_back_under_a_new_id_as_learner_then_voter() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.propose(leader, "kept").expect("leads");
    let wiped = (1..=3).find(|id| *id != leader).expect("three");
    c.crash(wiped);
    c.disks.remove(&wiped);

    let change = |c: &mut Cluster, change: MembershipChange| {
        c.nodes.get_mut(&leader).expect("up").propose_membership(&change).expect("fits");
        c.tick(5);
    };
    change(&mut c, MembershipChange::Remove { raft_id: RaftId(wiped), why: Removal::LostStore });
    change(&mut c, MembershipChange::AddLearner { member: member(4), ticket: None });
    c.start(4);
    assert!(!c.nodes[&4].is_member());
    c.tick(20);
    assert!(c.nodes[&4].is_member());
    assert_eq!(c.lines(4), ["kept"]);
    assert_eq!(c.nodes[&leader].status().learners, [RaftId(4)]);
    change(&mut c, MembershipChange::Promote { raft_id: RaftId(4) });
    assert!(c.nodes[&4].status().voters.contains(&RaftId(4)));

    // It is a full voter: with it and one other the cluster goes on.
    c.crash(leader);
    let next = c.elect();
    let key = c.propose(next, "with the new one").expect("leads");
    assert!(c.acked(next, key));
    // And its configuration survives its restart.
    c.crash(4);
    c.start(4);
    c.tick(1);
    assert_eq!(c.nodes[&4].status().voters.len(), 3);
}

/// Without it the two that are left would count with a voter less than there are: with the one that is gone.
#[test]
fn who_votes_is_known_after_a_crash_of_everybody_and_the_loss_of_one_disk() {
    let mut c = Cluster::new(2);
    let leader = c.elect();
    c.start(3);
    for change in [
        MembershipChange::AddLearner { member: member(3), ticket: None },
        MembershipChange::Promote { raft_id: RaftId(3) },
    ] {
        c.nodes.get_mut(&leader).expect("up").propose_membership(&change).expect("fits");
        c.tick(20);
    }
    for id in 1..=3 {
        assert_eq!(c.nodes[&id].status().voters.len(), 3, "node {id} knows who votes");
    }
    (1..=3).for_each(|id| c.crash(id));
    c.disks.remove(&leader);
    let left: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    left.iter().for_each(|id| c.start(*id));
    let next = c.elect();
    let key = c.propose(next, "two of three").expect("leads");
    assert!(c.acked(next, key));
}

/// raft 0.7 takes the second one, and an empty entry comes into the log in its place.
#[test]
fn a_change_is_refused_while_another_one_is_under_way_and_taken_after_it() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.tick(5);
    let admit = |id| MembershipChange::AddLearner { member: member(id), ticket: None };
    let propose = |c: &mut Cluster, id| c.nodes.get_mut(&leader).expect("up").propose_membership(&admit(id));
    assert_eq!(propose(&mut c, 4), Ok(()));
    assert_eq!(propose(&mut c, 5), Err(ProposeError::ChangeUnderWay));
    c.tick(5);
    assert_eq!(c.nodes[&leader].status().learners, [RaftId(4)]);
    assert_eq!(propose(&mut c, 5), Ok(()));
    c.tick(5);
    assert_eq!(c.nodes[&leader].status().learners, [RaftId(4), RaftId(5)]);
}

#[test]
fn a_leader_does_not_remove_itself() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let change = MembershipChange::Remove { raft_id: RaftId(leader), why: Removal::LostStore };
    let refused = c.nodes.get_mut(&leader).expect("up").propose_membership(&change);
    assert!(matches!(refused, Err(ProposeError::Refused(_))), "{refused:?}");
}

/// It is elected with its own removal in its log, commits that, and is out: raft 0.7 would panic as a leader
/// that does not vote.
#[test]
fn who_is_elected_while_it_is_removed_or_demoted_steps_down() {
    for demoted in [false, true] {
        let mut c = Cluster::new(3);
        let leader = c.elect();
        let [out, last] = (1..=3).filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!("three") };
        let raft_id = RaftId(out);
        let change = match demoted {
            true => MembershipChange::Demote { raft_id },
            false => MembershipChange::Remove { raft_id, why: Removal::LostStore },
        };
        // Only the one it is about hears of it, and not that it is committed.
        c.cut.insert(last);
        c.nodes.get_mut(&leader).expect("up").propose_membership(&change).expect("fits");
        c.pump(leader);
        for (_, message) in std::mem::take(&mut c.in_flight) {
            if message.to == raft_id {
                let inbound =
                    Inbound::decode(&message.encode_behind(&[]), message.is_snapshot).expect("ours");
                c.nodes.get_mut(&out).expect("up").step(inbound).expect("taken");
                c.pump(out);
            }
        }
        c.in_flight.clear();
        c.crash(leader);
        c.cut.clear();
        let mut terms = 0;
        while c.nodes[&last].status().voters.contains(&raft_id) {
            c.tick(1);
            terms += 1;
            assert!(terms < 500, "it is never committed");
            let votes = c.nodes[&out].status().voters.contains(&raft_id);
            assert!(votes || !c.nodes[&out].leads(), "it leads and does not vote");
        }
        c.tick(40);
        assert!(!c.nodes[&out].leads());
        assert_eq!(c.nodes[&out].is_member(), demoted);
        c.start(leader);
        let next = c.elect();
        assert_ne!(next, out);
        let key = c.propose(next, "two are left").expect("leads");
        assert!(c.acked(next, key));
    }
}
