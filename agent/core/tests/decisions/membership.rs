//! When a cluster is born, and who belongs to it afterwards.

use std::collections::BTreeMap;

use crate::common::{CAPACITY, Cluster, address, declared, empty, endpoint, genesis, node, store};
use blixard_core::ClusterState;
use blixard_core::declared::DeclaredMember;
use blixard_core::formation::{FormationStep, FormationView, phase_of, plan_formation};
use blixard_core::genesis::cluster_id;
use blixard_core::planner::membership::{Claim, MembershipView, Progress, plan_membership};
use blixard_model::formation::{Genesis, Identity, Phase};
use blixard_model::{
    Capacity, ClusterVersion, EndpointId, MembershipChange, RaftId, RelayUrl, Removal, Role,
};
use proptest::prelude::*;

fn step(me: &Identity, listed: u8, answers: &[Identity]) -> FormationStep {
    let answers: BTreeMap<EndpointId, Identity> =
        answers.iter().map(|a| (a.node.endpoint_id, a.clone())).collect();
    plan_formation(&FormationView {
        me,
        cluster_name: &"lab".parse().expect("a cluster name"),
        declared: &declared(listed),
        joins: false,
        answers: &answers,
    })
}

fn formed(n: u8, genesis: &Genesis, your_raft_id: Option<u64>) -> Identity {
    let phase = Phase::Formed {
        applied: 1,
        members: Vec::new(),
        you_were_removed: false,
        cluster_id: cluster_id(genesis),
        genesis: genesis.clone(),
        raft_id: Some(RaftId(u64::from(n))),
        your_raft_id: your_raft_id.map(RaftId),
        you_left: false,
    };
    Identity { phase, ..empty(n, n, None) }
}

fn waits(step: FormationStep) -> String {
    match step {
        FormationStep::Wait(lines) => lines.join("\n"),
        other => panic!("does not wait: {other:?}"),
    }
}

#[test]
fn without_a_list_a_node_is_its_own_cluster() {
    let step = step(&empty(1, 1, None), 0, &[]);
    let FormationStep::Form(genesis) = step else { panic!("{step:?}") };
    assert_eq!(genesis.voters.len(), 1);
}

#[test]
fn it_waits_for_every_declared_voter_by_name() {
    let text = waits(step(&empty(1, 1, None), 3, &[empty(2, 2, None)]));
    assert_eq!(text, "n3: has not answered");
}

#[test]
fn it_promises_before_it_forms_and_forms_when_all_promised_the_same() {
    let others = [empty(2, 2, None), empty(3, 3, None)];
    assert_eq!(step(&empty(1, 1, None), 3, &others), FormationStep::Promise(genesis(3)));
    let me = empty(1, 1, Some(genesis(3)));
    assert!(waits(step(&me, 3, &others)).contains("n2: has not agreed yet"));
    let agreed = [empty(2, 2, Some(genesis(3))), empty(3, 3, Some(genesis(3)))];
    assert_eq!(step(&me, 3, &agreed), FormationStep::Form(genesis(3)));
}

#[test]
fn a_disk_lost_before_the_birth_asks_for_a_new_promise() {
    let me = empty(1, 1, Some(genesis(3)));
    let others = [empty(2, 22, None), empty(3, 3, Some(genesis(3)))];
    let FormationStep::Promise(anew) = step(&me, 3, &others) else { panic!("no new promise") };
    assert_ne!(anew, genesis(3));
}

#[test]
fn a_node_that_was_born_with_a_formed_cluster_follows_it_into_it() {
    let me = empty(1, 1, Some(genesis(3)));
    let others = [formed(2, &genesis(3), Some(1)), empty(3, 3, Some(genesis(3)))];
    assert_eq!(step(&me, 3, &others), FormationStep::Form(genesis(3)));
}

#[test]
fn a_node_with_a_new_disk_forms_nothing_beside_a_formed_cluster() {
    let me = empty(1, 11, None);
    let others = [formed(2, &genesis(3), None), empty(3, 3, Some(genesis(3)))];
    assert!(waits(step(&me, 3, &others)).contains("its leader admits it"));
    let admitted = [formed(2, &genesis(3), Some(4)), formed(3, &genesis(3), None)];
    let FormationStep::Join { raft_id, .. } = step(&me, 3, &admitted) else { panic!("not joined") };
    assert_eq!(raft_id, RaftId(4));
}

#[test]
fn other_lists_are_named_as_the_reason() {
    let mut other = genesis(3);
    other.voters[0].offer.addresses = vec!["10.0.0.9:1".parse().expect("an address")];
    let me = empty(1, 1, Some(genesis(3)));
    let others = [empty(2, 2, Some(other)), empty(3, 3, Some(genesis(3)))];
    assert!(waits(step(&me, 3, &others)).contains("n2: declares other members"));
}

#[test]
fn other_relays_and_capacities_are_no_other_list() {
    let mut other = genesis(3);
    other.voters[0].offer.capacity = Some(Capacity { cpus: 1, memory_mib: 1 });
    other.voters[0].offer.relay_url = Some("https://relay.example.org".parse().expect("a url"));
    let me = empty(1, 1, Some(genesis(3)));
    let others = [empty(2, 2, Some(other)), empty(3, 3, Some(genesis(3)))];
    assert_eq!(waits(step(&me, 3, &others)), "n2: has not agreed yet");
}

#[test]
fn what_the_others_answered_is_in_the_genesis() {
    let relay: RelayUrl = "https://relay.example.org".parse().expect("a url");
    let offered = Capacity { cpus: 9, memory_mib: 9_000 };
    let mut second = empty(2, 2, None);
    (second.node.offer.relay_url, second.node.offer.capacity) = (Some(relay.clone()), Some(offered));
    let step = step(&empty(1, 1, None), 3, &[second, empty(3, 3, None)]);
    let FormationStep::Promise(genesis) = step else { panic!("{step:?}") };
    let state = ClusterState::new(genesis);
    assert_eq!(state.capacity_of(&node("n2")), Some(offered));
    let second = state.nodes.member(RaftId(2)).expect("a member");
    assert_eq!(second.node.offer.relay_url, Some(relay));
    assert!(state.nodes.members().all(|member| member.role == Role::Voter));
}

/// What n1 waits for when everybody answered and the list or an answer was changed.
fn objection(change: impl FnOnce(&mut Vec<DeclaredMember>, &mut [Identity])) -> String {
    let (mut list, mut answers) = (declared(6), (2..=5).map(|n| empty(n, n, None)).collect::<Vec<_>>());
    change(&mut list, &mut answers);
    waits(plan_formation(&FormationView {
        me: &empty(1, 1, None),
        cluster_name: &"lab".parse().expect("a cluster name"),
        declared: &list,
        joins: false,
        answers: &answers.iter().map(|a| (a.node.endpoint_id, a.clone())).collect(),
    }))
}

#[test]
fn an_invalid_list_is_not_promised_and_says_what_to_correct() {
    let twice = objection(|list, _| list[1].addresses = vec![address(3)]);
    assert_eq!(
        twice,
        "n2: no cluster can be formed with its addresses: 10.77.0.3:7431 is n3's as well: correct one of \
         the two"
    );
    let copied = objection(|_, answers| answers[0].node.store_id = store(3));
    assert!(copied.contains("n2: no cluster can be formed with its store: "), "{copied}");
    let boast = objection(|_, answers| {
        answers[0].node.offer.capacity = Some(Capacity { cpus: 1 << 30, memory_mib: 1 })
    });
    assert!(boast.contains("with its resources: 1073741824 cpus are not believable"), "{boast}");
    let beyond = objection(|list, _| list[5].addresses = vec!["127.0.0.1:7431".parse().expect("one")]);
    assert!(beyond.starts_with("n6: ") && beyond.contains("127.0.0.1:7431 (n6) is a loopback"), "{beyond}");
}

#[test]
fn a_cluster_of_one_is_checked_too() {
    let mut me = empty(1, 1, None);
    me.node.offer.addresses = vec!["0.0.0.0:7431".parse().expect("an address")];
    assert!(waits(step(&me, 0, &[])).contains("0.0.0.0:7431 is the unspecified address"));
    for alone in [vec![], vec!["127.0.0.1:7431".parse().expect("an address")]] {
        me.node.offer.addresses = alone;
        assert!(matches!(step(&me, 0, &[]), FormationStep::Form(_)));
    }
}

#[test]
fn a_cluster_that_can_not_have_been_born_is_not_followed() {
    let mut wrong = genesis(3);
    wrong.voters[2].offer.addresses = vec![address(2)];
    let others = [formed(2, &wrong, Some(1)), empty(3, 3, None)];
    let text = waits(step(&empty(1, 1, None), 3, &others));
    assert!(text.contains("n2: its cluster cannot have been formed so"), "{text}");
}

#[test]
fn a_node_under_another_name_is_named() {
    let mut misnamed = empty(2, 2, None);
    misnamed.node.name = node("web");
    let text = waits(step(&empty(1, 1, None), 3, &[misnamed, empty(3, 3, None)]));
    assert!(text.contains("n2: calls itself web"), "{text}");
}

#[test]
fn a_long_list_forms_with_its_first_voters() {
    for (listed, voters) in [(3, 3), (4, 3), (6, 3), (7, 5), (9, 5)] {
        let others: Vec<Identity> = (2..=voters).map(|n| empty(n, n, None)).collect();
        let first = step(&empty(1, 1, None), listed, &others);
        let FormationStep::Promise(genesis) = first else { panic!("{first:?}") };
        assert_eq!(genesis.voters.len(), usize::from(voters), "of {listed}");
        if listed > voters {
            let last = waits(step(&empty(listed, listed, None), listed, &others));
            assert!(last.contains("it admits this node after that"), "{last}");
        }
    }
}

/// Three nodes that ask each other one by one, so that an answer may be old when it is looked at.
struct Births {
    nodes: Vec<Identity>,
    answers: Vec<BTreeMap<usize, Identity>>,
    stores: u8,
    sizes: u32,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// The first asks the second who it is.
    Ask(usize, usize),
    /// A node decides on what it was answered, and does it.
    Decide(usize),
    /// A node's process ends and starts again.
    Restart(usize),
    /// The same, and it offers something else from then on.
    Resize(usize),
    /// The one node that has bad luck loses its disk.
    LoseDisk,
}

/// Whose disk may be lost, any number of times: a minority.
const UNLUCKY: usize = 1;

impl Births {
    fn new() -> Self {
        let nodes = (1..=3).map(|n| empty(n, n, None)).collect();
        Self { nodes, answers: vec![BTreeMap::new(); 3], stores: 100, sizes: 4 }
    }

    /// The different geneses that disks hold as formed. One that only a lost disk held is forgotten with it:
    /// without the others nothing was ever acknowledged in it.
    fn formed(&self) -> Vec<&Genesis> {
        let formed = self.nodes.iter().filter_map(|node| match &node.phase {
            Phase::Formed { genesis, .. } => Some(genesis),
            Phase::Empty { .. } => None,
        });
        let mut formed: Vec<&Genesis> = formed.collect();
        formed.dedup();
        formed
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Ask(asker, asked) if asker != asked => {
                let answer = self.nodes[asked].clone();
                self.answers[asker].insert(asked, answer);
            }
            Event::Ask(..) => {}
            Event::Restart(node) => self.answers[node].clear(),
            Event::Resize(node) => {
                self.answers[node].clear();
                self.sizes += 1;
                self.nodes[node].node.offer.capacity = Some(Capacity { cpus: self.sizes, memory_mib: 2048 });
            }
            Event::LoseDisk => {
                self.stores += 1;
                self.nodes[UNLUCKY] = empty(u8::try_from(UNLUCKY).expect("small") + 1, self.stores, None);
                self.answers[UNLUCKY].clear();
            }
            Event::Decide(node) => self.decide(node),
        }
    }

    fn decide(&mut self, node: usize) {
        if matches!(self.nodes[node].phase, Phase::Formed { .. }) {
            return;
        }
        let answers: Vec<Identity> = std::mem::take(&mut self.answers[node]).into_values().collect();
        match step(&self.nodes[node], 3, &answers) {
            FormationStep::Promise(genesis) => {
                self.nodes[node].phase = Phase::Empty { promise: Some(genesis) }
            }
            FormationStep::Form(genesis) => {
                self.nodes[node].phase = formed(1, &genesis, None).phase;
            }
            FormationStep::Join { .. } | FormationStep::Wait(_) => {}
        }
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..3_usize, 0..3_usize).prop_map(|(a, b)| Event::Ask(a, b)),
        8 => (0..3_usize).prop_map(Event::Decide),
        1 => (0..3_usize).prop_map(Event::Restart),
        1 => (0..3_usize).prop_map(Event::Resize),
        1 => Just(Event::LoseDisk),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn no_order_of_answers_restarts_and_lost_disks_gives_two_births(
        events in prop::collection::vec(any_event(), 1..160)
    ) {
        let mut births = Births::new();
        for event in events {
            births.apply(event);
            prop_assert!(births.formed().len() <= 1, "{:?}", births.formed());
        }
    }
}

#[test]
fn those_orders_do_give_births() {
    let mut births = Births::new();
    for _ in 0..3 {
        for node in 0..3 {
            (0..3).for_each(|other| births.apply(Event::Ask(node, other)));
            births.apply(Event::Decide(node));
        }
    }
    assert_eq!(births.formed().len(), 1);
    assert!(births.nodes.iter().all(|node| matches!(node.phase, Phase::Formed { .. })));
}

#[test]
fn a_birth_whose_only_disk_is_lost_is_followed_by_another_one() {
    let mut births = Births::new();
    // All promise; then the unlucky one forms first, alone, and loses its disk before anybody has noticed.
    for node in [UNLUCKY, 0, 2, UNLUCKY] {
        (0..3).for_each(|other| births.apply(Event::Ask(node, other)));
        births.apply(Event::Decide(node));
    }
    assert_eq!(births.formed(), [&genesis(3)]);
    births.apply(Event::LoseDisk);
    for node in [0, UNLUCKY, 2, 0, UNLUCKY, 2] {
        (0..3).for_each(|other| births.apply(Event::Ask(node, other)));
        births.apply(Event::Decide(node));
    }
    let formed = births.formed();
    assert!(formed.len() == 1 && *formed[0] != genesis(3), "{formed:?}");
}

/// What a node said, and whether that was often enough.
type Said = (Identity, bool);

/// What was said often enough.
fn settled(identity: Identity) -> Said {
    (identity, true)
}

struct Leader {
    cluster: Cluster,
    claims: BTreeMap<EndpointId, Said>,
    progress: BTreeMap<RaftId, Progress>,
    voters: Vec<RaftId>,
    learners: Vec<RaftId>,
}

impl Leader {
    /// n1 leads three voters that all are as they were.
    fn new() -> Self {
        let ids: Vec<RaftId> = (1..=3).map(RaftId).collect();
        let active = Progress { lost: false, matched: 100, heard: true, recent_active: true };
        Self {
            cluster: Cluster::of(3),
            claims: (2..=3).map(|n| (endpoint(n), settled(formed(n, &genesis(3), None)))).collect(),
            progress: ids.iter().map(|id| (*id, active)).collect(),
            voters: ids,
            learners: Vec::new(),
        }
    }

    /// Nothing comes any more under this raft id.
    fn silence(&mut self, raft_id: u64) {
        self.progress.insert(
            RaftId(raft_id),
            Progress { lost: false, matched: 100, heard: false, recent_active: false },
        );
    }

    fn plan(&self, listed: u8) -> Option<MembershipChange> {
        self.plan_with(&declared(listed))
    }

    fn plan_with(&self, declared: &[DeclaredMember]) -> Option<MembershipChange> {
        let claims = self.claims.iter().map(|(id, (identity, settled))| {
            let settled = *settled;
            (*id, Claim { identity, settled })
        });
        plan_membership(&MembershipView {
            state: &self.cluster.state,
            leader: RaftId(1),
            voters: &self.voters,
            learners: &self.learners,
            declared,
            claims: &claims.collect(),
            progress: &self.progress,
            commit: 100,
            supports: ClusterVersion::NEWEST,
            required: ClusterVersion::NEWEST,
        })
    }
}

#[test]
fn a_healthy_cluster_is_left_alone() {
    assert_eq!(Leader::new().plan(3), None);
}

#[test]
fn a_lost_store_leaves_comes_back_and_votes_again() {
    let mut leader = Leader::new();
    leader.claims.insert(endpoint(3), settled(empty(3, 33, None)));
    leader.silence(3);
    let change = leader.plan(3).expect("something to do");
    assert_eq!(change, MembershipChange::Remove { why: Removal::LostStore, raft_id: RaftId(3) });
    leader.cluster.state.apply_membership(&change);
    leader.voters.pop();

    let change = leader.plan(3).expect("something to do");
    let MembershipChange::AddLearner { member, .. } = &change else { panic!("{change:?}") };
    assert_eq!(
        (member.raft_id, member.node.store_id),
        (RaftId(4), store(33)),
        "a new raft id for the new store"
    );
    assert_eq!(
        (member.role, member.node.offer.capacity),
        (Role::Learner, Some(CAPACITY)),
        "known from the first entry"
    );
    leader.cluster.state.apply_membership(&change);
    leader.learners.push(RaftId(4));

    assert_eq!(leader.plan(3), None, "not caught up yet");
    leader
        .progress
        .insert(RaftId(4), Progress { lost: false, matched: 20, heard: true, recent_active: true });
    assert_eq!(leader.plan(3), None, "still too far behind");
    leader
        .progress
        .insert(RaftId(4), Progress { lost: false, matched: 90, heard: true, recent_active: true });
    assert_eq!(leader.plan(3), Some(MembershipChange::Promote { raft_id: RaftId(4) }));
}

#[test]
fn late_words_of_an_earlier_store_remove_nobody() {
    let mut leader = Leader::new();
    leader.claims.insert(endpoint(3), settled(empty(3, 33, None)));
    assert_eq!(leader.plan(3), None, "it answers under its raft id");
    leader.silence(3);
    leader.claims.insert(endpoint(3), (empty(3, 33, None), false));
    assert_eq!(leader.plan(3), None, "heard once, and may be of a store that is gone since");
    leader.claims.insert(endpoint(3), settled(empty(3, 33, None)));
    assert_eq!(
        leader.plan(3),
        Some(MembershipChange::Remove { why: Removal::LostStore, raft_id: RaftId(3) })
    );
}

#[test]
fn a_node_hears_that_its_raft_id_has_left() {
    let mut cluster = Cluster::of(3);
    let mine = |raft_id: u64, state: &blixard_core::ClusterState| {
        let phase = phase_of(state, (RaftId(raft_id), 1), None);
        Identity { phase, ..empty(3, 3, None) }
    };
    let me = mine(3, &cluster.state);
    let left = |phase: Phase| matches!(phase, Phase::Formed { you_left: true, .. });
    assert!(!left(phase_of(&cluster.state, (RaftId(1), 1), Some(&me))));
    cluster.state.apply_membership(&MembershipChange::Remove { why: Removal::LostStore, raft_id: RaftId(3) });
    assert!(left(phase_of(&cluster.state, (RaftId(1), 1), Some(&me))));
    assert!(!left(phase_of(&cluster.state, (RaftId(1), 1), Some(&mine(4, &cluster.state)))), "not given yet");
}

#[test]
fn a_newly_listed_node_is_admitted_and_an_unlisted_one_is_not() {
    let mut leader = Leader::new();
    leader.claims.insert(endpoint(4), settled(empty(4, 4, None)));
    assert_eq!(leader.plan(3), None);
    assert!(matches!(leader.plan(4), Some(MembershipChange::AddLearner { .. })));
}

#[test]
fn a_node_of_another_cluster_is_not_taken() {
    let mut leader = Leader::new();
    let mut other = formed(4, &genesis(1), None);
    other.node.endpoint_id = endpoint(4);
    leader.claims.insert(endpoint(4), settled(other));
    assert_eq!(leader.plan(4), None);
}

#[test]
fn a_node_that_can_not_be_admitted_does_not_stand_in_the_way_of_others() {
    let mut leader = Leader::new();
    // n3 has a new key under its old name; n4 is new.
    let mut rekeyed = declared(4);
    rekeyed[2].endpoint_id = endpoint(33);
    let mut identity = empty(3, 33, None);
    identity.node.endpoint_id = endpoint(33);
    leader.claims.insert(endpoint(33), settled(identity));
    leader.claims.insert(endpoint(4), settled(empty(4, 4, None)));
    let change = leader.plan_with(&rekeyed);
    let Some(MembershipChange::AddLearner { member, .. }) = change else { panic!("{change:?}") };
    assert_eq!(member.node.name, node("n4"));
}

#[test]
fn a_node_whose_address_is_anothers_is_not_admitted_and_stands_in_nobodys_way() {
    let mut leader = Leader::new();
    let mut list = declared(5);
    list[3].addresses = vec![address(1)];
    leader.claims.insert(endpoint(4), settled(empty(4, 4, None)));
    leader.claims.insert(endpoint(5), settled(empty(5, 5, None)));
    let change = leader.plan_with(&list);
    let Some(MembershipChange::AddLearner { member, .. }) = change else { panic!("{change:?}") };
    assert_eq!(member.node.name, node("n5"));
    assert!(leader.cluster.state.check_declared(&list[3]).is_some_and(|e| e.to_string().contains("n1's")));
}

#[test]
fn an_unreachable_member_stays() {
    let mut leader = Leader::new();
    leader.claims.remove(&endpoint(3));
    leader
        .progress
        .insert(RaftId(3), Progress { lost: false, matched: 0, heard: false, recent_active: false });
    assert_eq!(leader.plan(3), None);
}
