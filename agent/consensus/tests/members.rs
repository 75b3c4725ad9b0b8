//! The real table of members over real Raft: every node ends with the same one, its roles are Raft's, and
//! what cannot be read stops the node.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use blixard_consensus::{
    Consensus, ConsensusConfig, Durable, Effects, HardState, Inbound, Limits, Machine, Outgoing,
    ProposeError, PumpError, StoredEntry, UnderWay, genesis_snapshot,
};
use blixard_core::ClusterState;
use blixard_model::formation::Genesis;
use blixard_model::{
    Capacity, ClusterVersion, EndpointId, Member, MembershipChange, NodeFacts, Offer, Outcome, RaftId,
    Refusal, Removal, Role, StoreId,
};
use proptest::prelude::*;

/// [`ClusterState`] behind the port, as the agent has it.
#[derive(Debug)]
struct Table(ClusterState);

impl Machine for Table {
    type Outcome = Outcome;
    type State = ClusterState;
    fn apply(&mut self, at: (u64, u64), data: &[u8]) -> Result<Outcome, String> {
        let request = serde_json::from_slice(data).map_err(|error| error.to_string())?;
        Ok(self.0.apply_entry(at, &request))
    }
    fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal> {
        self.0.check_membership(change, voters)
    }
    fn apply_membership(&mut self, change: &MembershipChange) {
        self.0.apply_membership(change);
    }
    fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(&self.0).expect("json")
    }
    fn read_snapshot(&self, data: &[u8]) -> Result<ClusterState, String> {
        serde_json::from_slice(data).map_err(|error| error.to_string())
    }

    fn restore(&mut self, state: ClusterState) {
        self.0 = state;
    }
}

/// All of a pump, on a disk that nobody reads.
fn pump(node: &mut Node) -> Result<Effects<Outcome>, PumpError> {
    let mut effects = node.pump()?;
    while effects.write.is_some() {
        effects.extend(node.written()?);
    }
    Ok(effects)
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 77, 0, n], 7431))
}

fn genesis(voters: u8) -> Genesis {
    let voter = |n: u8| NodeFacts {
        name: format!("n{n}").parse().expect("a name"),
        endpoint_id: EndpointId::from_bytes([n; 32]),
        store_id: StoreId::from_bytes([n; 16]),
        offer: Offer {
            addresses: vec![address(n)],
            relay_url: None,
            capacity: Some(Capacity { cpus: 4, memory_mib: 2048 }),
            witness: false,
            ..Offer::default()
        },
    };
    Genesis {
        cluster_name: "lab".parse().expect("a name"),
        voters: (1..=voters).map(voter).collect(),
        origin: None,
        version: ClusterVersion::NEWEST,
    }
}

fn member(raft_id: u64, who: u8) -> Member {
    Member {
        raft_id: RaftId(raft_id),
        node: NodeFacts {
            name: format!("n{who}").parse().expect("a name"),
            endpoint_id: EndpointId::from_bytes([who; 32]),
            store_id: StoreId::from_bytes([u8::try_from(raft_id).expect("small"); 16]),
            offer: Offer {
                addresses: vec![address(who)],
                relay_url: Some("https://relay.example.org".parse().expect("a url")),
                capacity: Some(Capacity { cpus: 8, memory_mib: 4096 }),
                witness: false,
                ..Offer::default()
            },
        },
        role: Role::Learner,
    }
}

type Node = Consensus<Table>;

/// Nodes that are never down and a network that loses nothing: only the changes matter.
struct Cluster {
    nodes: BTreeMap<u64, Node>,
    in_flight: Vec<(u64, Outgoing)>,
    voters: u8,
}

impl Cluster {
    fn new(voters: u8) -> Self {
        let mut cluster = Self { nodes: BTreeMap::new(), in_flight: Vec::new(), voters };
        let ids: Vec<RaftId> = (1..=voters.into()).map(RaftId).collect();
        let state = Table(ClusterState::new(genesis(voters))).snapshot();
        let (snapshot, hard_state) = genesis_snapshot(&ids, state);
        for id in &ids {
            let durable = Durable { hard_state, snapshot: Some(snapshot.clone()), entries: Vec::new() };
            cluster.start(id.0, &durable);
        }
        cluster
    }

    fn start(&mut self, id: u64, durable: &Durable) {
        let config =
            ConsensusConfig { raft_id: RaftId(id), incarnation: id, seed: 7, limits: Limits::default() };
        let table = Table(ClusterState::new(genesis(self.voters)));
        let node = Consensus::new(config, durable, table).expect("the disk is whole");
        self.nodes.insert(id, node);
    }

    fn pump(&mut self, id: u64) {
        let effects = pump(self.nodes.get_mut(&id).expect("there")).expect("memory does not fail");
        self.in_flight.extend(effects.messages.into_iter().map(|message| (id, message)));
    }

    fn settle(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        ids.iter().for_each(|id| self.pump(*id));
        while !self.in_flight.is_empty() {
            for (from, message) in std::mem::take(&mut self.in_flight) {
                if message.is_snapshot {
                    self.nodes.get_mut(&from).expect("there").report_snapshot(message.to, true);
                }
                let Some(node) = self.nodes.get_mut(&message.to.0) else { continue };
                let inbound =
                    Inbound::decode(&message.encode_behind(&[]), message.is_snapshot).expect("ours");
                let _refused = node.step(inbound);
                self.pump(message.to.0);
                self.pump(from);
            }
        }
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.nodes.values_mut().for_each(Consensus::tick);
            self.settle();
        }
    }

    /// Ticks until somebody leads.
    fn leader(&mut self) -> u64 {
        for _ in 0..200 {
            if let Some((id, _)) = self.nodes.iter().find(|(_, node)| node.leads()) {
                return *id;
            }
            self.tick(1);
        }
        panic!("no leader within 200 ticks");
    }

    /// Proposes a change, starts whom it admits, and waits until it has reached everybody.
    fn change(&mut self, change: &MembershipChange) -> Result<(), ProposeError> {
        let leader = self.leader();
        self.nodes.get_mut(&leader).expect("there").propose_membership(change)?;
        self.settle();
        match change {
            MembershipChange::AddLearner { member, .. } => self.start(member.raft_id.0, &Durable::default()),
            // Who has left is not told so; its machine goes away.
            MembershipChange::Remove { raft_id, .. } => drop(self.nodes.remove(&raft_id.0)),
            MembershipChange::Promote { .. } | MembershipChange::Demote { .. } => {}
        }
        self.tick(20);
        Ok(())
    }

    /// Every node has the leader's table, and it gives each member the role that Raft gives it.
    fn check(&mut self) {
        let leader = self.leader();
        let table = self.nodes[&leader].machine().0.nodes.clone();
        for (id, node) in &self.nodes {
            assert_eq!(node.machine().0.nodes, table, "node {id}");
            let of = |role| {
                let of_role = table.members().filter(move |member| member.role == role);
                of_role.map(|member| member.raft_id).collect::<std::collections::BTreeSet<_>>()
            };
            let status = node.status();
            assert_eq!(of(Role::Voter), status.voters.into_iter().collect(), "node {id}");
            assert_eq!(of(Role::Learner), status.learners.into_iter().collect(), "node {id}");
        }
    }
}

#[test]
fn everything_about_a_member_is_on_every_node_from_its_first_entry_on() {
    let mut c = Cluster::new(3);
    c.check();
    let admitted = member(4, 4);
    c.change(&MembershipChange::AddLearner { member: admitted.clone(), ticket: None }).expect("fits");
    c.check();
    assert_eq!(c.nodes[&4].machine().0.nodes.members_form()[&RaftId(4)], admitted);
    c.change(&MembershipChange::Promote { raft_id: RaftId(4) }).expect("fits");
    c.check();
    let promoted = Member { role: Role::Voter, ..admitted };
    assert_eq!(c.nodes[&1].machine().0.nodes.members_form()[&RaftId(4)], promoted);
}

#[test]
fn a_leader_shows_the_change_that_is_under_way_until_it_is_applied() {
    let mut c = Cluster::new(3);
    let leader = c.leader();
    c.tick(5);
    assert_eq!(c.nodes[&leader].under_way(), UnderWay::default());
    let change = MembershipChange::AddLearner { member: member(4, 4), ticket: None };
    let node = c.nodes.get_mut(&leader).expect("there");
    node.propose_membership(&change).expect("fits");
    node.propose(b"no request".to_vec()).expect("taken");
    assert_eq!(c.nodes[&leader].under_way().change, Some(change));
    for (id, node) in &c.nodes {
        assert!(*id == leader || node.under_way() == UnderWay::default(), "node {id} does not lead");
    }
}

#[test]
fn a_leader_shows_to_whom_it_hands_over_and_sends_its_state() {
    let mut c = Cluster::new(3);
    let leader = c.leader();
    c.nodes.get_mut(&leader).expect("there").transfer_leadership();
    let to = c.nodes[&leader].under_way().hands_over_to.expect("somebody");
    assert_ne!(to, RaftId(leader));
    c.tick(30);
    let leader = c.leader();
    assert_eq!(c.nodes[&leader].under_way(), UnderWay::default());
    let change = MembershipChange::AddLearner { member: member(4, 4), ticket: None };
    c.nodes.get_mut(&leader).expect("there").propose_membership(&change).expect("fits");
    c.settle();
    c.start(4, &Durable::default());
    // Up to the snapshot, which is on its way until its end is reported.
    let mut is_sent = false;
    for _ in 0..50 {
        c.nodes.values_mut().for_each(Consensus::tick);
        for id in [leader, 4] {
            c.pump(id);
            let mut in_flight = std::mem::take(&mut c.in_flight);
            is_sent |= in_flight.iter().any(|(_, message)| message.is_snapshot);
            in_flight.retain(|(from, message)| !message.is_snapshot && [*from, message.to.0].contains(&4));
            for (_, message) in in_flight {
                let inbound = Inbound::decode(&message.encode_behind(&[]), false).expect("ours");
                let _refused = c.nodes.get_mut(&message.to.0).expect("there").step(inbound);
            }
        }
        if is_sent {
            break;
        }
    }
    assert!(is_sent && c.nodes[&leader].under_way().snapshots.contains(&RaftId(4)));
    c.nodes.get_mut(&leader).expect("there").report_snapshot(RaftId(4), false);
    assert!(c.nodes[&leader].under_way().snapshots.is_empty());
}

#[test]
fn a_member_that_does_not_fit_is_not_proposed() {
    let mut c = Cluster::new(3);
    let leader = c.leader();
    let before = c.nodes[&leader].status().commit;
    let mut wrong = member(4, 4);
    wrong.node.offer.addresses = vec![address(1)];
    let refused = c.change(&MembershipChange::AddLearner { member: wrong, ticket: None }).expect_err("taken");
    assert!(matches!(&refused, ProposeError::Refused(why) if why.to_string().contains("is n1's as well")));
    c.tick(5);
    assert_eq!(c.nodes[&leader].status().commit, before);
}

/// A node alone whose log goes on with a configuration change that holds these bytes.
fn alone_with(context: &[u8]) -> Node {
    use protobuf::Message as _;
    let mut change = raft::eraftpb::ConfChangeV2 { context: context.to_vec().into(), ..Default::default() };
    let mut single = raft::eraftpb::ConfChangeSingle { node_id: 2, ..Default::default() };
    single.set_change_type(raft::eraftpb::ConfChangeType::AddLearnerNode);
    change.mut_changes().push(single);
    let mut entry = raft::eraftpb::Entry { index: 2, term: 1, ..Default::default() };
    entry.set_entry_type(raft::eraftpb::EntryType::EntryConfChangeV2);
    entry.set_data(change.write_to_bytes().expect("encodes").into());
    let entry = StoredEntry { index: 2, bytes: entry.write_to_bytes().expect("encodes") };

    let state = Table(ClusterState::new(genesis(1)));
    let (snapshot, _) = genesis_snapshot(&[RaftId(1)], state.snapshot());
    let hard_state = HardState { term: 1, vote: 1, commit: 2 };
    let durable = Durable { hard_state, snapshot: Some(snapshot), entries: vec![entry] };
    let config = ConsensusConfig { raft_id: RaftId(1), incarnation: 1, seed: 7, limits: Limits::default() };
    Consensus::new(config, &durable, state).expect("the log is whole")
}

#[test]
fn a_change_that_can_not_be_read_stops_the_node_and_names_the_way_out() {
    let good = MembershipChange::AddLearner { member: member(2, 2), ticket: None }.encode().expect("fits");
    let newer = [&[2][..], &good[1..]].concat();
    let cases: [(&[u8], &str); 4] = [
        (&newer, "format 2"),
        (&good[..good.len() - 1], "not a membership change"),
        (b"", "without a byte"),
        (&[1; 100_000], "longer than"),
    ];
    for (context, wanted) in cases {
        let error = pump(&mut alone_with(context)).expect_err(wanted);
        assert!(matches!(error, PumpError::Apply { index: 2, .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(wanted) && said.ends_with("upgrade this node"), "{said}");
    }
}

#[test]
fn a_change_that_does_not_fit_is_applied_as_nothing() {
    let mut wrong = member(2, 2);
    wrong.node.offer.addresses = vec![address(1)];
    for (member, taken) in [(member(2, 2), true), (wrong, false)] {
        let context = MembershipChange::AddLearner { member, ticket: None }.encode().expect("fits");
        let mut node = alone_with(&context);
        let _unsent = pump(&mut node).expect("goes on");
        assert_eq!(node.status().applied, 2);
        assert_eq!(node.status().learners, if taken { vec![RaftId(2)] } else { vec![] });
        assert_eq!(node.machine().0.nodes.has_member(RaftId(2)), taken);
    }
}

/// Changes as somebody might propose them: some fit, some do not. Of the first two voters none is removed, so
/// that there is always a quorum of those that run.
fn any_change() -> impl Strategy<Value = MembershipChange> {
    let member = (4..8_u64, 1..8_u8, 0..2_u8).prop_map(|(id, who, moves)| {
        let mut member = member(id, who);
        member.node.offer.addresses = vec![address(who + moves)];
        member
    });
    prop_oneof![
        3 => member.prop_map(|member| MembershipChange::AddLearner { member, ticket: None }),
        2 => (1..8_u64).prop_map(|id| MembershipChange::Promote { raft_id: RaftId(id) }),
        1 => (3..8_u64).prop_map(|id| MembershipChange::Remove {
            raft_id: RaftId(id),
            why: Removal::LostStore
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn after_any_changes_every_table_is_the_same_and_its_roles_are_rafts(
        changes in prop::collection::vec(any_change(), 1..20)
    ) {
        let mut c = Cluster::new(3);
        for change in changes {
            let _refused = c.change(&change);
            c.check();
        }
    }
}
