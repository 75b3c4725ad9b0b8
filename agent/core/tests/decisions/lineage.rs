//! A new cluster that begins with the state of another one.

use std::collections::BTreeSet;

use crate::common::{
    Cluster, address, declared, empty, endpoint, genesis, name as vm_name, node, spec, store,
};
use blixard_core::ClusterState;
use blixard_core::formation::{FormationStep, FormationView, plan_formation};
use blixard_core::genesis::cluster_id;
use blixard_core::lineage::{Founder, Lineage, LineageError, begin};
use blixard_core::state::VMS_MAX;
use blixard_core::state::{Availability, NodeTable};
use blixard_model::formation::{Identity, Origin, Phase};
use blixard_model::removal::{REMOVED_MAX, RemovedNode};
use blixard_model::{
    Command, EndpointId, Member, MembershipChange, NodeFacts, Offer, Outcome, RaftId, Refusal, Removal, Role,
    TicketHash, TicketId, VmSpec, VmsFate,
};
use proptest::prelude::*;

/// Node `n` as a founder, with a store of its own.
fn founder(n: u8, nonce: u64) -> Founder {
    let me = NodeFacts {
        name: node(&format!("n{n}")),
        endpoint_id: endpoint(n),
        store_id: store(100 + n),
        offer: Offer {
            addresses: vec![address(n)],
            relay_url: None,
            capacity: None,
            witness: false,
            ..Offer::default()
        },
    };
    Founder { me, cluster_name: "lab".parse().expect("a cluster name"), index: 40, nonce }
}

fn learner(state: &ClusterState, n: u8, raft_id: u64) -> Member {
    let mut member = state.nodes.members().next().expect("one").to_member();
    (member.raft_id, member.role) = (RaftId(raft_id), Role::Learner);
    (member.node.name, member.node.endpoint_id) = (node(&format!("n{n}")), endpoint(n));
    (member.node.store_id, member.node.offer.addresses) = (store(n), vec![address(n)]);
    member
}

fn availability(state: &ClusterState, endpoint_id: EndpointId) -> Option<Availability> {
    state.nodes.get(endpoint_id).map(|node| node.availability)
}

/// Anything that a cluster may come to: nodes that came, went and were removed, VMs on all of them, tickets.
fn states() -> impl Strategy<Value = ClusterState> {
    let members = (1u8..=5, prop::collection::vec(0u8..4, 0..12), 0u8..8, any::<bool>());
    members.prop_map(|(count, changes, vms, ticket)| {
        let mut cluster = Cluster::of(count);
        for vm in 0..vms {
            cluster.create(spec(&format!("vm{vm}")));
        }
        if ticket {
            cluster.apply(Command::CreateTicket {
                id: TicketId::from_bytes([1; 8]),
                name: None,
                hash: TicketHash::from_bytes([2; 32]),
                ttl_ms: 60_000,
                at_ms: 5,
            });
        }
        for (n, change) in (10u8..).zip(changes) {
            let next = cluster.state.next_raft_id;
            let last = cluster.state.nodes.raft_ids().max().expect("one");
            let vms = Some(VmsFate::Keep);
            let change = match change {
                0 => MembershipChange::Remove { raft_id: last, why: Removal::LostStore },
                1 => MembershipChange::Remove { raft_id: last, why: Removal::Operator { vms } },
                _ => {
                    let member = learner(&cluster.state, n, next.0);
                    MembershipChange::AddLearner { member, ticket: None }
                }
            };
            let voters = [RaftId(1)];
            if cluster.state.check_membership(&change, &voters).is_ok() {
                cluster.state.apply_membership(&change);
            }
        }
        cluster.state
    })
}

proptest! {
    #[test]
    fn whatever_the_state_the_founder_is_alone_and_everything_else_is_kept(
        old in states(),
        n in 1u8..7,
        nonces in (any::<u64>(), any::<u64>()),
    ) {
        let Lineage { state, raft_id, given_up } = begin(old.clone(), founder(n, nonces.0)).expect("begun");
        prop_assert_eq!(state.nodes.raft_ids().collect::<Vec<_>>(), [raft_id]);
        let me = state.nodes.member(raft_id).expect("it is there");
        prop_assert_eq!(me.role, Role::Voter);
        prop_assert_eq!((me.node.endpoint_id, me.node.store_id), (endpoint(n), store(100 + n)));
        // Never used, and never used again.
        prop_assert!(raft_id >= old.next_raft_id && state.next_raft_id > raft_id);
        prop_assert!((1..raft_id.0).all(|id| state.has_left(RaftId(id))));
        prop_assert_eq!((&state.vms, &state.requests), (&old.vms, &old.requests));
        prop_assert!(state.tickets.is_empty());
        prop_assert!(!state.leases.is_on && state.leases.disarmed.is_none());
        // Whoever is given up can be told apart, and nobody else is.
        let others: BTreeSet<EndpointId> =
            old.nodes.members().map(|m| m.node.endpoint_id).filter(|id| *id != endpoint(n)).collect();
        prop_assert_eq!(given_up.iter().map(|m| m.node.endpoint_id).collect::<BTreeSet<_>>(), others.clone());
        for id in &others {
            prop_assert_eq!(availability(&state, *id), Some(Availability::GivenUp));
        }
        for (id, removed) in old.nodes.departed() {
            prop_assert!(id == endpoint(n) || state.nodes.get(id) == Some(removed));
        }
        prop_assert_eq!(availability(&state, endpoint(n)), Some(Availability::Member));
        // Two clusters of one state are two, and neither is the old one.
        let twin = begin(old.clone(), founder(n, nonces.1)).expect("begun").state;
        prop_assert_ne!(state.cluster_id(), old.cluster_id());
        prop_assert_eq!(state.cluster_id() == twin.cluster_id(), nonces.0 == nonces.1);
        let origin = Origin { cluster_id: old.cluster_id(), index: 40, nonce: nonces.0 };
        prop_assert_eq!(state.genesis.origin.as_ref(), Some(&origin));
        // And once more, from there.
        let again = begin(state.clone(), founder(n, nonces.1)).expect("begun");
        prop_assert!(again.raft_id > raft_id && again.state.cluster_id() != state.cluster_id());
    }
}

#[test]
fn vms_of_nodes_that_were_given_up_can_be_deleted_and_those_of_the_founder_confirmed() {
    let mut cluster = Cluster::of(3);
    for (vm, on) in [("here", "n1"), ("there", "n2")] {
        let mut spec = spec(vm);
        spec.node = Some(node(on));
        assert!(matches!(cluster.create(spec), Outcome::Done { .. }));
    }
    cluster.state = begin(cluster.state.clone(), founder(1, 7)).expect("begun").state;
    for vm in ["here", "there"] {
        let name = vm.parse().expect("a VM name");
        assert!(matches!(cluster.apply(Command::DeleteVm { name }), Outcome::Done { .. }), "{vm}");
    }
    let left: Vec<&str> = cluster.state.vms.keys().map(|name| name.as_str()).collect();
    assert_eq!(left, ["here"], "its own node says when it is gone");
    assert!(cluster.state.vms.len() < VMS_MAX);
}

#[test]
fn what_a_new_cluster_writes_at_an_index_of_the_old_one_is_another_order() {
    let mut cluster = Cluster::of(1);
    for vm in ["kept", "changed", "made"] {
        cluster.create(spec(vm));
    }
    let order = |cluster: &Cluster, vm: &str| cluster.state.vms[&vm_name(vm)].order_id();
    let change = |cluster: &mut Cluster| {
        let quiet = VmSpec { cmdline: "quiet".to_owned(), ..spec("changed") };
        let changed = cluster.apply(Command::ChangeVm { spec: quiet, seen: None });
        assert!(matches!(changed, Outcome::Done { .. }), "{changed:?}");
    };
    let before = cluster.state.clone();
    let index = cluster.index();
    change(&mut cluster);
    let old = cluster;
    let reborn = |nonce| {
        let mut cluster = Cluster::of(1);
        cluster.state = begin(before.clone(), founder(1, nonce)).expect("begun").state;
        cluster.go_on_from(index);
        change(&mut cluster);
        cluster
    };
    let (one, other) = (reborn(7), reborn(8));
    assert_eq!(order(&one, "kept"), order(&old, "kept"), "its unit goes on");
    let orders = [&old, &one, &other].map(|cluster| order(cluster, "changed"));
    assert!(orders.iter().all(|order| order.revision == orders[0].revision), "{orders:?}");
    let different: BTreeSet<_> = orders.into_iter().collect();
    assert_eq!(different.len(), 3, "{different:?}");
}

#[test]
fn who_was_given_up_is_admitted_when_it_is_listed_and_who_was_sent_away_is_not() {
    let mut old = ClusterState::new(genesis(3));
    let vms = Some(VmsFate::Keep);
    old.apply_membership(&MembershipChange::Remove { raft_id: RaftId(3), why: Removal::Operator { vms } });
    let Lineage { mut state, raft_id, .. } = begin(old, founder(1, 7)).expect("begun");
    let voters = [raft_id];
    let sent_away = learner(&state, 3, state.next_raft_id.0);
    let refused =
        state.check_membership(&MembershipChange::AddLearner { member: sent_away, ticket: None }, &voters);
    assert!(matches!(refused, Err(Refusal::Membership { ref why }) if why.contains("needs a ticket")));
    let member = learner(&state, 2, state.next_raft_id.0);
    let back = MembershipChange::AddLearner { member, ticket: None };
    state.check_membership(&back, &voters).expect("admitted");
    state.apply_membership(&back);
    assert_eq!(availability(&state, endpoint(2)), Some(Availability::Member));
}

#[test]
fn who_was_given_up_is_remembered_longest() {
    let mut old = ClusterState::new(genesis(3));
    let gone = |n: usize| {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let removed = RemovedNode { name: node("gone"), raft_id: RaftId(4 + n as u64), given_up: false };
        (EndpointId::from_bytes(id), removed)
    };
    let removed = (0..REMOVED_MAX).map(gone).collect();
    old.nodes = NodeTable::from_forms(old.nodes.members_form(), removed).expect("a table");
    let state = begin(old, founder(1, 7)).expect("begun").state;
    assert_eq!(state.nodes.departed().count(), REMOVED_MAX);
    assert!(state.is_removed(&node("n2")) && state.is_removed(&node("n3")));
    // Raft ids go on after those of the removed ones too, although this state did not count them.
    assert_eq!(state.nodes.raft_ids().next(), Some(RaftId(4 + REMOVED_MAX as u64)));
}

#[test]
fn another_machine_takes_a_members_place_and_not_another_members_name() {
    let old = ClusterState::new(genesis(3));
    let mut other_key = founder(1, 7);
    other_key.me.endpoint_id = endpoint(9);
    let Lineage { state, given_up, .. } = begin(old.clone(), other_key).expect("begun");
    assert_eq!(given_up.len(), 3, "the one whose place it takes as well");
    assert_eq!(availability(&state, endpoint(1)), Some(Availability::GivenUp));
    assert!(!state.is_removed(&node("n1")));

    let mut other_name = founder(1, 7);
    other_name.me.name = node("n2");
    let refused = begin(old, other_name).expect_err("n1's key");
    assert_eq!(refused, LineageError::OtherName { theirs: node("n1") });
    assert!(refused.to_string().contains("set node_name to n1"), "{refused}");
}

#[test]
fn what_no_cluster_comes_to_is_refused() {
    let mut old = ClusterState::new(genesis(1));
    old.next_raft_id = RaftId(u64::MAX);
    assert_eq!(begin(old, founder(1, 7)), Err(LineageError::NoRaftId));
    let mut nowhere = founder(1, 7);
    nowhere.me.offer.addresses = vec!["0.0.0.0:1".parse().expect("an address")];
    let refused = begin(ClusterState::new(genesis(1)), nowhere).expect_err("no address");
    assert!(matches!(refused, LineageError::NoMember { .. }), "{refused}");
}

/// The store that a lineage was founded with has its place in the genesis, but not the state that it began
/// with: an empty one of that id is an old copy, and would be a second cluster of the same id.
#[test]
fn an_empty_store_forms_no_cluster_that_was_made_of_another() {
    let state = begin(ClusterState::new(genesis(3)), founder(1, 7)).expect("begun").state;
    let phase = Phase::Formed {
        you_were_removed: false,
        applied: 1,
        members: Vec::new(),
        cluster_id: cluster_id(&state.genesis),
        genesis: state.genesis.clone(),
        raft_id: Some(RaftId(5)),
        your_raft_id: None,
        you_left: false,
    };
    let answer = Identity { phase, ..empty(2, 2, None) };
    let step = plan_formation(&FormationView {
        joins: false,
        me: &empty(1, 101, None),
        cluster_name: &"lab".parse().expect("a cluster name"),
        declared: &declared(3),
        answers: &[(endpoint(2), answer)].into(),
    });
    let FormationStep::Wait(lines) = step else { panic!("{step:?}") };
    assert!(lines[0].contains("does not know this node's store yet"), "{lines:?}");
}
