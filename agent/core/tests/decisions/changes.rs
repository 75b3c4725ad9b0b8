//! Who votes, who may leave, and what tickets do to the state.

use std::collections::BTreeMap;

use blixard_core::planner::membership::{MembershipView, Progress, plan_membership};
use blixard_core::planner::removal::{RemovalAsk, RemovalStep, plan_removal};
use blixard_core::ticket::hash_of;
use blixard_model::removal::REMOVED_MAX;
use blixard_model::ticket::{
    TICKET_TTL_MS_DEFAULT, TICKET_TTL_MS_MAX, TICKET_TTL_MS_MIN, TICKETS_MAX, TicketRecord,
};
use blixard_model::{
    ClusterVersion, Command, Member, MembershipChange, NodeFacts, Offer, Outcome, RaftId, Refusal, Removal,
    Role, TicketId, TicketSecret, TicketUse, VmsFate,
};

use crate::common::{CAPACITY, Cluster, address, endpoint, node, spec, store};

const THERE: Progress = Progress { matched: 100, heard: true, recent_active: true, lost: false };
const GONE: Progress = Progress { matched: 100, heard: false, recent_active: false, lost: true };
const MISSED: Progress = Progress { matched: 100, heard: false, recent_active: false, lost: false };
const BEHIND: Progress = Progress { matched: 1, heard: true, recent_active: true, lost: false };

fn learner(n: u8) -> Member {
    Member {
        raft_id: RaftId(n.into()),
        node: NodeFacts {
            name: node(&format!("n{n}")),
            endpoint_id: endpoint(n),
            store_id: store(n),
            offer: Offer {
                addresses: vec![address(n)],
                relay_url: None,
                capacity: Some(CAPACITY),
                witness: false,
                ..Offer::default()
            },
        },
        role: Role::Learner,
    }
}

/// Raft id 1 leads; the others are as they are said to be.
struct Leader {
    cluster: Cluster,
    voters: Vec<RaftId>,
    progress: BTreeMap<RaftId, Progress>,
}

impl Leader {
    /// Of so many voters and learners after them, all there.
    fn of(voters: u8, learners: u8) -> Self {
        let mut cluster = Cluster::of(voters);
        for n in voters + 1..=voters + learners {
            cluster
                .state
                .apply_membership(&MembershipChange::AddLearner { member: learner(n), ticket: None });
        }
        let ids = |range: std::ops::RangeInclusive<u8>| range.map(|n| RaftId(n.into()));
        let progress = ids(1..=voters + learners).map(|id| (id, THERE)).collect();
        Self { cluster, voters: ids(1..=voters).collect(), progress }
    }

    fn is(mut self, n: u64, progress: Progress) -> Self {
        self.progress.insert(RaftId(n), progress);
        self
    }

    fn witness(mut self, n: u8) -> Self {
        self.cluster.change_offer(n, |offer| offer.witness = true);
        self
    }

    fn look<T>(&self, look: impl FnOnce(&MembershipView<'_>) -> T) -> T {
        let members = self.cluster.state.nodes.raft_ids();
        let learners: Vec<RaftId> = members.filter(|id| !self.voters.contains(id)).collect();
        look(&MembershipView {
            state: &self.cluster.state,
            leader: RaftId(1),
            voters: &self.voters,
            learners: &learners,
            declared: &[],
            claims: &BTreeMap::new(),
            progress: &self.progress,
            commit: 100,
            supports: ClusterVersion::NEWEST,
            required: ClusterVersion::NEWEST,
        })
    }

    fn plan(&self) -> Option<MembershipChange> {
        self.look(plan_membership)
    }

    fn remove(&self, n: u64, force: bool, vms: Option<VmsFate>) -> Result<RemovalStep, String> {
        let ask = RemovalAsk { raft_id: RaftId(n), force, vms };
        self.look(|view| plan_removal(view, ask)).map_err(|refusal| refusal.to_string())
    }
}

fn promote(n: u64) -> Option<MembershipChange> {
    Some(MembershipChange::Promote { raft_id: RaftId(n) })
}

fn demote(n: u64) -> Option<MembershipChange> {
    Some(MembershipChange::Demote { raft_id: RaftId(n) })
}

#[test]
fn three_vote_and_five_from_seven_members_on() {
    assert_eq!(Leader::of(2, 1).plan(), promote(3));
    assert_eq!(Leader::of(3, 3).plan(), None);
    assert_eq!(Leader::of(3, 4).plan(), promote(4));
    assert_eq!(Leader::of(5, 2).plan(), None);
    assert_eq!(Leader::of(5, 1).plan(), demote(5), "six members: three vote");
}

#[test]
fn a_lost_voter_is_replaced_by_whoever_has_caught_up_and_only_then_demoted() {
    assert_eq!(Leader::of(3, 1).is(2, GONE).plan(), promote(4));
    assert_eq!(Leader::of(3, 1).is(2, MISSED).plan(), None, "it may come back in time");
    assert_eq!(Leader::of(3, 0).is(2, GONE).plan(), None, "nobody to take its place");
    assert_eq!(Leader::of(3, 2).is(2, GONE).is(4, BEHIND).plan(), promote(5));
    assert_eq!(Leader::of(3, 1).is(2, GONE).is(4, GONE).plan(), None);
    assert_eq!(Leader::of(4, 0).is(2, GONE).plan(), demote(2));
    assert_eq!(Leader::of(4, 0).plan(), demote(4), "all there: the last that came");
    let alone = Leader::of(4, 0).is(2, MISSED).is(3, MISSED).is(4, MISSED);
    assert_eq!(alone.plan(), None, "the rest would be no quorum");
}

#[test]
fn witnesses_vote_first_and_are_demoted_last() {
    assert_eq!(Leader::of(2, 2).witness(4).plan(), promote(4));
    assert_eq!(Leader::of(4, 0).witness(4).plan(), demote(3));
}

#[test]
fn a_removal_is_refused_with_the_cause_and_the_way_out() {
    let proposed = |n| {
        let why = Removal::Operator { vms: None };
        Ok(RemovalStep::Propose(MembershipChange::Remove { raft_id: RaftId(n), why }))
    };
    assert_eq!(Leader::of(3, 1).remove(2, false, None), proposed(2));
    assert_eq!(Leader::of(3, 1).remove(4, false, None), proposed(4));
    assert_eq!(Leader::of(3, 0).remove(1, false, None), Ok(RemovalStep::HandOver));
    assert_eq!(Leader::of(2, 0).remove(2, true, None), proposed(2));
    assert_eq!(Leader::of(3, 0).is(2, MISSED).remove(2, true, None), proposed(2));
    let refused = |leader: Leader, n, force, vms, why: &str| {
        let said = leader.remove(n, force, vms).expect_err(why);
        assert!(said.to_string().contains(why), "{said}");
    };
    refused(Leader::of(3, 0), 9, false, None, "no node with raft id 9");
    refused(Leader::of(1, 0), 1, true, None, "the only member");
    refused(Leader::of(3, 0).is(2, MISSED), 2, false, None, "--force");
    refused(Leader::of(3, 0).is(2, MISSED), 3, false, None, "n2 cannot be reached");
    refused(Leader::of(3, 0).is(2, MISSED), 1, false, None, "are no quorum");
    refused(Leader::of(3, 0), 2, true, Some(VmsFate::Delete), "answers");
    let mut with_vm = Leader::of(3, 0).is(2, MISSED);
    with_vm.cluster.eligible = vec![node("n2")];
    with_vm.cluster.create(spec("web"));
    let said = with_vm.remove(2, true, None).expect_err("placed");
    assert!(said.contains("1 VMs are placed on n2 (web)"), "{said}");
    assert!(with_vm.remove(2, true, Some(VmsFate::Keep)).is_ok());
}

#[test]
fn vms_of_a_node_that_is_gone_are_forgotten_when_an_operator_says_so() {
    let mut cluster = Leader::of(3, 0).cluster;
    cluster.eligible = vec![node("n3")];
    cluster.create(spec("web"));
    let forget = || Command::ForgetVms { node: node("n3") };
    assert!(matches!(cluster.apply(forget()), Outcome::Refused { .. }), "a member still");
    let lost = MembershipChange::Remove { raft_id: RaftId(3), why: Removal::LostStore };
    cluster.state.apply_membership(&lost);
    let deleted = cluster.apply(Command::DeleteVm { name: "web".parse().expect("a name") });
    assert!(matches!(deleted, Outcome::Done { .. }) && cluster.state.vms.len() == 1, "it may still run");
    assert_eq!(cluster.apply(forget()), Outcome::done(Some(node("n3"))));
    assert!(cluster.state.vms.is_empty());
    assert_eq!(cluster.apply(forget()), Outcome::unchanged(Some(node("n3"))));
}

/// Of a leader that is new: it knows of nobody whether he is there, and takes them all to be.
#[test]
fn a_new_leader_demotes_nobody_before_it_has_heard_of_a_quorum() {
    const UNKNOWN: Progress = Progress { matched: 0, heard: false, recent_active: true, lost: false };
    let new = Leader::of(5, 0).is(2, UNKNOWN).is(3, UNKNOWN).is(4, UNKNOWN).is(5, UNKNOWN);
    assert_eq!(new.plan(), None);
    let two = Leader::of(5, 0).is(2, UNKNOWN).is(3, UNKNOWN);
    assert_eq!(two.plan(), demote(3), "not 5: it is one of the three that are there");
    assert_eq!(Leader::of(5, 0).is(2, UNKNOWN).is(5, UNKNOWN).plan(), demote(5));
}

#[test]
fn a_removed_node_comes_back_with_a_ticket_or_not_at_all() {
    let mut state = Leader::of(3, 0).cluster.state;
    let why = Removal::Operator { vms: None };
    state.apply_membership(&MembershipChange::Remove { raft_id: RaftId(3), why });
    assert!(state.is_removed(&node("n3")));
    let again = Member { raft_id: RaftId(4), ..learner(3) };
    let listed = MembershipChange::AddLearner { member: again.clone(), ticket: None };
    let said = state.check_membership(&listed, &[RaftId(1)]).expect_err("removed").to_string();
    assert!(said.contains("needs a ticket"), "{said}");
    let ticket = Some(TicketUse { id: TicketId::from_bytes([1; 8]), at_ms: 5 });
    let mut cluster = Cluster::of(3);
    cluster.state = state;
    assert!(matches!(cluster.apply(new_ticket(1, TICKET_TTL_MS_MIN, 0)), Outcome::Done { .. }));
    let back = MembershipChange::AddLearner { member: again, ticket };
    assert_eq!(cluster.state.check_membership(&back, &[RaftId(1)]), Ok(()));
    cluster.state.apply_membership(&back);
    assert!(!cluster.state.is_removed(&node("n3")) && cluster.state.nodes.departed().count() == 0);
    assert!(!cluster.state.tickets.values().any(TicketRecord::is_open));
}

#[test]
fn the_memory_of_removed_nodes_is_bounded() {
    let mut state = Cluster::of(3).state;
    for n in 4..4 + u64::try_from(REMOVED_MAX).expect("small") + 5 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        let mut store_bytes = [0; 16];
        store_bytes[..8].copy_from_slice(&n.to_be_bytes());
        let mut member = Member { raft_id: RaftId(n), ..learner(9) };
        member.node.endpoint_id = blixard_model::EndpointId::from_bytes(bytes);
        member.node.store_id = blixard_model::StoreId::from_bytes(store_bytes);
        state.apply_membership(&MembershipChange::AddLearner { member, ticket: None });
        let why = Removal::Operator { vms: None };
        state.apply_membership(&MembershipChange::Remove { raft_id: RaftId(n), why });
    }
    assert_eq!(state.nodes.departed().count(), REMOVED_MAX);
    let mut departed = state.nodes.departed();
    assert!(departed.all(|(_, node)| node.raft_id > RaftId(8)), "the first are forgotten");
}

fn new_ticket(n: u8, ttl_ms: u64, at_ms: u64) -> Command {
    let hash = hash_of(&TicketSecret::from_bytes([n; 32]));
    Command::CreateTicket { id: TicketId::from_bytes([n; 8]), name: None, hash, ttl_ms, at_ms }
}

#[test]
fn tickets_have_bounds_and_ended_ones_make_room() {
    let mut cluster = Cluster::of(3);
    let refused = |outcome: Outcome, why: &str| match outcome {
        Outcome::Refused { refusal: Refusal::Invalid { why: said } } => {
            assert!(said.to_string().contains(why), "{said}")
        }
        other => panic!("{other:?}"),
    };
    refused(cluster.apply(new_ticket(1, TICKET_TTL_MS_MIN - 1, 0)), "lives");
    refused(cluster.apply(new_ticket(1, TICKET_TTL_MS_MAX + 1, 0)), "lives");
    for n in 0..u8::try_from(TICKETS_MAX).expect("small") {
        assert!(matches!(cluster.apply(new_ticket(n, TICKET_TTL_MS_DEFAULT, 0)), Outcome::Done { .. }));
    }
    refused(cluster.apply(new_ticket(0, TICKET_TTL_MS_DEFAULT, 0)), "already");
    refused(cluster.apply(new_ticket(200, TICKET_TTL_MS_DEFAULT, 0)), "tickets are open");
    let id = TicketId::from_bytes([7; 8]);
    assert!(matches!(cluster.apply(Command::RevokeTicket { id }), Outcome::Done { unchanged: false, .. }));
    assert!(matches!(cluster.apply(Command::RevokeTicket { id }), Outcome::Done { unchanged: true, .. }));
    assert!(matches!(cluster.apply(new_ticket(200, TICKET_TTL_MS_DEFAULT, 0)), Outcome::Done { .. }));
    assert!(!cluster.state.tickets.contains_key(&id), "the ended one is forgotten");
    assert_eq!(cluster.state.tickets.len(), TICKETS_MAX);
}

#[test]
fn a_request_to_make_a_ticket_is_one_whatever_the_leader_s_clock_says() {
    let mut cluster = Cluster::of(3);
    let first = cluster.request(new_ticket(1, TICKET_TTL_MS_DEFAULT, 5));
    let mut again = first.clone();
    again.command = new_ticket(1, TICKET_TTL_MS_DEFAULT, 6);
    assert!(matches!(cluster.apply_request(&first), Outcome::Done { .. }));
    assert!(matches!(cluster.apply_request(&again), Outcome::Done { .. }), "answered as before");
    assert_eq!(cluster.state.tickets.len(), 1);
}

#[test]
fn a_witness_is_given_nothing_and_says_why() {
    let mut cluster = Cluster::of(3);
    cluster.change_offer(3, |offer| offer.witness = true);
    let mut pinned = spec("web");
    pinned.node = Some(node("n3"));
    let Outcome::Refused { refusal } = cluster.create(pinned) else { panic!("placed") };
    assert!(refusal.to_string().contains("a witness runs no VMs"), "{refusal}");
    for n in 0..6 {
        let Outcome::Done { node: Some(on), .. } = cluster.create(spec(&format!("v{n}"))) else {
            panic!("placed")
        };
        assert_ne!(on, node("n3"));
    }
}
