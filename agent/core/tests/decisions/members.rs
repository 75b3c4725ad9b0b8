//! What a member has to be beside the others: before a change is proposed, when it is applied, and when a
//! node says something new of itself.

use std::net::SocketAddr;

use crate::common::{CAPACITY, Cluster, address, declared, endpoint, genesis, node, store};
use blixard_core::ClusterState;
use blixard_core::state::MemberRef;
use blixard_core::state::member_check::{CheckedMember, MemberError, MemberField, check_members};
use blixard_model::member::MEMBERS_MAX;
use blixard_model::node::ADDRESSES_MAX;
use blixard_model::{
    Capacity, Command, Member, MembershipChange, NodeFacts, Offer, Outcome, RaftId, Refusal, RelayUrl,
    Removal, Role, StoreId, VmsFate,
};
use proptest::prelude::*;

fn at(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

fn relay() -> Option<RelayUrl> {
    Some("https://relay.example.org".parse().expect("a url"))
}

/// n4 as it may join a cluster of three.
fn fourth() -> Member {
    Member {
        raft_id: RaftId(4),
        node: NodeFacts {
            name: node("n4"),
            endpoint_id: endpoint(4),
            store_id: store(4),
            offer: Offer {
                addresses: vec![address(4)],
                relay_url: None,
                capacity: Some(CAPACITY),
                witness: false,
                ..Offer::default()
            },
        },
        role: Role::Learner,
    }
}

fn fourth_at(addresses: Vec<SocketAddr>) -> Member {
    let mut fourth = fourth();
    fourth.node.offer.addresses = addresses;
    fourth
}

/// Three members on one machine.
fn on_loopback() -> ClusterState {
    let mut genesis = genesis(3);
    for (voter, n) in genesis.voters.iter_mut().zip(1..) {
        voter.offer.addresses = vec![SocketAddr::from(([127, 0, 0, n], 7431))];
    }
    ClusterState::new(genesis)
}

fn admit(state: &ClusterState, member: Member) -> Result<(), String> {
    let change = MembershipChange::AddLearner { member, ticket: None };
    let voters: Vec<RaftId> = state.nodes.raft_ids().collect();
    state.check_membership(&change, &voters).map_err(|refusal| refusal.to_string())
}

type Spoil = fn(&mut Member);

/// Everything that keeps n4 out, and what is said then.
const REFUSED: &[(Spoil, &str)] = &[
    (|m| m.raft_id = RaftId(3), "raft id 3 was given before"),
    (|m| m.raft_id = RaftId(0), "raft id 0 was given before"),
    (|m| m.raft_id = RaftId(u64::MAX), "is none"),
    (|m| m.role = Role::Voter, "add it as learner"),
    (|m| m.node.name = node("n2"), "node n2 is a member already"),
    (|m| m.node.endpoint_id = endpoint(2), "is n2's as well: every node has a key of its own"),
    (|m| m.node.store_id = store(2), "belongs to n2"),
    (|m| m.node.offer.addresses.clear(), "no address and no relay"),
    (
        |m| m.node.offer.addresses = (0..=8).map(|n| SocketAddr::from(([10, 77, 1, n], 1))).collect(),
        "9 addresses",
    ),
    (|m| m.node.offer.addresses.push(address(4)), "10.77.0.4:7431 is there twice"),
    (|m| m.node.offer.addresses = at(&["10.77.0.4:1", "[::ffff:10.77.0.4]:1"]), "is there twice"),
    (|m| m.node.offer.addresses.push(address(1)), "10.77.0.1:7431 is n1's as well"),
    (|m| m.node.offer.addresses = at(&["[::ffff:10.77.0.1]:7431"]), "is n1's as well"),
    (|m| m.node.offer.addresses = at(&["10.77.0.4:0"]), "has port 0"),
    (|m| m.node.offer.addresses = at(&["0.0.0.0:1"]), "is the unspecified address"),
    (|m| m.node.offer.addresses = at(&["[::]:1"]), "is the unspecified address"),
    (|m| m.node.offer.addresses = at(&["[::ffff:0.0.0.0]:1"]), "is the unspecified address"),
    (|m| m.node.offer.addresses = at(&["224.0.0.1:1"]), "is a multicast address"),
    (|m| m.node.offer.addresses = at(&["[ff02::1]:1"]), "is a multicast address"),
    (|m| m.node.offer.addresses = at(&["255.255.255.255:1"]), "is the broadcast address"),
    (
        |m| m.node.offer.addresses = at(&["127.0.0.1:1"]),
        "127.0.0.1:1 (n4) is a loopback address beside 10.77.0.1:7431 (n1)",
    ),
    (
        |m| m.node.offer.addresses.extend(at(&["[::1]:1"])),
        "[::1]:1 (n4) is a loopback address beside 10.77.0.4:7431 (n4)",
    ),
    (|m| m.node.offer.addresses = at(&["[::ffff:127.0.0.1]:1"]), "is a loopback address"),
    (|m| m.node.offer.capacity = Some(Capacity { cpus: 1 << 30, memory_mib: 1 }), "are not believable"),
];

#[test]
fn a_member_that_fits_is_taken() {
    let state = Cluster::of(3).state;
    assert_eq!(admit(&state, fourth()), Ok(()));
    let fits: [Spoil; 5] = [
        |m| m.node.offer = Offer { relay_url: relay(), ..Offer::default() },
        |m| m.node.offer.relay_url = relay(),
        |m| m.node.offer.capacity = None,
        |m| m.raft_id = RaftId(17),
        |m| m.node.offer.addresses = at(&["10.77.0.1:7432", "[2001:db8::4]:7431"]),
    ];
    for change in fits {
        let mut member = fourth();
        change(&mut member);
        assert_eq!(admit(&state, member.clone()), Ok(()), "{member:?}");
    }
    let most =
        (0..u8::try_from(ADDRESSES_MAX).expect("small")).map(|n| SocketAddr::from(([10, 77, 1, n], 1)));
    assert_eq!(admit(&state, fourth_at(most.collect())), Ok(()));
}

#[test]
fn a_member_that_does_not_fit_is_refused_before_it_is_proposed() {
    let state = Cluster::of(3).state;
    for (spoil, wanted) in REFUSED {
        let mut member = fourth();
        spoil(&mut member);
        let said = admit(&state, member).expect_err(wanted);
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

#[test]
fn a_node_does_not_move_to_where_it_could_not_have_come() {
    for (spoil, wanted) in REFUSED {
        let mut member = fourth();
        spoil(&mut member);
        let offer = member.node.offer;
        if offer == fourth().node.offer {
            continue;
        }
        let mut c = Cluster::of(4);
        let before = c.state.clone();
        let outcome = c.apply(Command::SetNode { endpoint_id: endpoint(4), offer });
        let Outcome::Refused { refusal: Refusal::Invalid { why } } = outcome else { panic!("{outcome:?}") };
        let why = why.to_string();
        assert!(why.starts_with("n4: ") && why.contains(wanted), "{wanted}: {why}");
        assert_eq!(c.state, before, "a refusal changes nothing");
    }
}

#[test]
fn a_node_says_what_is_new_of_it_once() {
    let mut c = Cluster::of(3);
    let offer = Offer {
        witness: false,
        capacity: Some(Capacity { cpus: 8, memory_mib: 1 }),
        addresses: at(&["10.77.0.2:7431", "[2001:db8::2]:7431"]),
        relay_url: relay(),
        ..Offer::default()
    };
    let say = |offer: &Offer| Command::SetNode { endpoint_id: endpoint(2), offer: offer.clone() };
    assert_eq!(c.state.check_offer(endpoint(2), &offer).map(|member| member.raft_id), Ok(RaftId(2)));
    assert_eq!(c.apply(say(&offer)), Outcome::done(Some(node("n2"))));
    assert_eq!(c.apply(say(&offer)), Outcome::unchanged(Some(node("n2"))));
    assert_eq!(c.state.member_by_endpoint(endpoint(2)).map(|member| member.node.offer), Some(&offer));
    assert_eq!(c.state.capacity_of(&node("n2")), offer.capacity);
    let stranger = c.state.check_offer(endpoint(9), &offer);
    assert_eq!(stranger.map(|member| member.raft_id), Err(Refusal::NotAMember { endpoint_id: endpoint(9) }));
}

#[test]
fn a_whole_cluster_may_be_on_loopback_and_nobody_else_joins_it() {
    let state = on_loopback();
    let fifth = at(&["127.0.0.9:7431", "[::1]:7431"]);
    assert_eq!(admit(&state, fourth_at(fifth)), Ok(()));
    let said = admit(&state, fourth()).expect_err("from another machine");
    assert!(said.contains("127.0.0.1:7431 (n1) is a loopback address beside 10.77.0.4:7431 (n4)"), "{said}");
    let mut homeless = fourth_at(Vec::new());
    homeless.node.offer.relay_url = relay();
    let said = admit(&state, homeless).expect_err("from anywhere");
    assert!(said.contains("beside n4, which has no address"), "{said}");
}

#[test]
fn a_node_that_is_alone_may_say_loopback_or_nothing() {
    let c = Cluster::of(1);
    for addresses in [vec![], at(&["127.0.0.1:7431"]), at(&["127.0.0.1:7431", "10.77.0.1:7431"])] {
        let offer = Offer {
            capacity: Some(CAPACITY),
            addresses,
            relay_url: None,
            witness: false,
            ..Offer::default()
        };
        assert_eq!(c.state.check_offer(endpoint(1), &offer).map(|member| member.raft_id), Ok(RaftId(1)));
    }
    let offer = Offer {
        capacity: Some(CAPACITY),
        addresses: at(&["0.0.0.0:1"]),
        relay_url: None,
        witness: false,
        ..Offer::default()
    };
    assert!(c.state.check_offer(endpoint(1), &offer).is_err(), "not even alone: it says nothing");
}

#[test]
fn there_are_no_more_members_than_the_most() {
    let mut state = Cluster::of(1).state;
    for n in 2..=u16::try_from(MEMBERS_MAX).expect("small") {
        let [high, low] = n.to_be_bytes();
        let mut member = fourth();
        member.raft_id = RaftId(n.into());
        member.node.name = node(&format!("n{n}"));
        let digits = format!("{n:064x}");
        member.node.endpoint_id = digits.parse().expect("an id");
        member.node.store_id = digits[32..].parse().expect("an id");
        member.node.offer.addresses = vec![SocketAddr::from(([10, 78, high, low], 1))];
        assert_eq!(admit(&state, member.clone()), Ok(()), "{n}");
        state.apply_membership(&MembershipChange::AddLearner { member, ticket: None });
    }
    let mut one_more = fourth();
    one_more.raft_id = state.next_raft_id;
    one_more.node.name = node("more");
    one_more.node.store_id = StoreId::from_bytes([0xee; 16]);
    assert!(admit(&state, one_more).expect_err("full").contains("the most that one cluster has"));
}

#[test]
fn a_list_is_checked_whole_and_the_member_and_its_field_are_named() {
    let check = |change: &dyn Fn(&mut Vec<blixard_core::declared::DeclaredMember>)| {
        let mut list = declared(3);
        change(&mut list);
        check_members(&list.iter().map(CheckedMember::from).collect::<Vec<_>>())
    };
    assert_eq!(check(&|_| {}), Ok(()));
    let (name, error) = check(&|list| list[2].addresses = vec![address(1)]).expect_err("twice");
    assert_eq!((name, error.field()), (node("n1"), MemberField::Addresses));
    let (name, error) = check(&|list| list[1].addresses.clear()).expect_err("nowhere");
    assert_eq!((name, error), (node("n2"), MemberError::Unreachable));
    let (_, error) = check(&|list| list[1].endpoint_id = endpoint(3)).expect_err("one key");
    assert_eq!(error.field(), MemberField::EndpointId);
}

/// Changes as somebody might propose them: some fit, some do not.
fn any_change() -> impl Strategy<Value = MembershipChange> {
    let member = (1..9_u64, 1..8_u8, 1..8_u8, 1..8_u8, 1..9_u8, prop::bool::weighted(0.9)).prop_map(
        |(raft_id, name, key, disk, place, learns)| Member {
            raft_id: RaftId(raft_id),
            node: NodeFacts {
                name: node(&format!("n{name}")),
                endpoint_id: endpoint(key),
                store_id: store(disk),
                offer: Offer {
                    // Eight is loopback.
                    addresses: if place == 8 { at(&["127.0.0.1:1"]) } else { vec![address(place)] },
                    relay_url: None,
                    capacity: None,
                    witness: false,
                    ..Offer::default()
                },
            },
            role: if learns { Role::Learner } else { Role::Voter },
        },
    );
    prop_oneof![
        3 => member.prop_map(|member| MembershipChange::AddLearner { member, ticket: None }),
        2 => (1..9_u64).prop_map(|id| MembershipChange::Promote { raft_id: RaftId(id) }),
        1 => (1..9_u64).prop_map(|id| MembershipChange::Demote { raft_id: RaftId(id) }),
        2 => ((1..9_u64).prop_map(RaftId), removal())
            .prop_map(|(raft_id, why)| MembershipChange::Remove { raft_id, why }),
    ]
}

fn removal() -> impl Strategy<Value = Removal> {
    let vms = |fate| Just(Removal::Operator { vms: fate });
    prop_oneof![Just(Removal::LostStore), vms(None), vms(Some(VmsFate::Delete)), vms(Some(VmsFate::Keep))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn whatever_is_applied_the_table_holds_nothing_that_does_not_fit(
        changes in prop::collection::vec(any_change(), 1..60)
    ) {
        let mut state = Cluster::of(3).state;
        let mut given: Vec<RaftId> = state.nodes.raft_ids().collect();
        for change in changes {
            let votes = |m: &MemberRef<'_>| m.role == Role::Voter;
            let voters: Vec<RaftId> = state.nodes.members().filter(votes).map(|m| m.raft_id).collect();
            if state.check_membership(&change, &voters).is_err() {
                continue;
            }
            if let MembershipChange::AddLearner { member, .. } = &change {
                prop_assert!(!given.contains(&member.raft_id), "given twice");
                given.push(member.raft_id);
            }
            state.apply_membership(&change);
            let members = state.nodes.members();
            let facts: Vec<_> = members.map(|member| CheckedMember::from(member.node)).collect();
            prop_assert_eq!(check_members(&facts), Ok(()));
        }
    }
}
