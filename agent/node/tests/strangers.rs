//! Peers of other clusters: told apart, and in nobody's way.

use blixard_core::genesis::cluster_id;
use blixard_model::RaftId;
use blixard_model::formation::{Genesis, Identity, Origin, Phase};
use blixard_node::Kinship;

use crate::group::{Group, endpoint, genesis, identity, store};

fn of(n: u8, genesis: &Genesis) -> Identity {
    let phase = Phase::Formed {
        members: Vec::new(),
        you_were_removed: false,
        applied: 1,
        cluster_id: cluster_id(genesis),
        genesis: genesis.clone(),
        raft_id: Some(RaftId(9)),
        your_raft_id: None,
        you_left: true,
    };
    identity(n, store(n), phase)
}

#[test]
fn who_belongs_to_another_cluster_is_told_with_what_that_one_is_and_until_it_says_otherwise() {
    let mut group = Group::of(3);
    let leader = group.leader();
    let mut made_of_us = genesis(1);
    made_of_us.origin = Some(Origin { cluster_id: cluster_id(&genesis(3)), index: 4, nonce: 5 });
    let members = group.node(leader).state().nodes.clone();
    // Not even who says that this node has left: that is another cluster's raft id.
    for identity in [of(7, &genesis(2)), of(8, &made_of_us), of(9, &genesis(3))] {
        let told = group.node(leader).note_identity(identity.clone(), None);
        assert_eq!(told.is_err(), identity.node.endpoint_id == endpoint(9));
    }
    group.tick(10);
    let strangers = group.node(leader).strangers();
    let told: Vec<_> = strangers.iter().map(|s| (s.endpoint_id, s.cluster_id, s.kinship)).collect();
    assert_eq!(
        told,
        [
            (endpoint(7), cluster_id(&genesis(2)), Kinship::None),
            (endpoint(8), cluster_id(&made_of_us), Kinship::MadeOfUs),
        ]
    );
    assert_eq!(group.node(leader).state().nodes, members, "they disturb nobody");

    let wiped = identity(7, store(70), Phase::Empty { promise: None });
    group.node(leader).note_identity(wiped, None).expect("no end");
    assert_eq!(group.node(leader).strangers().len(), 1);
    group.tick(100);
    assert_eq!(group.node(leader).strangers(), [], "what was said long ago");
}
