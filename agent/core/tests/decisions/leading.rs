//! What a leader makes of what it is asked for, and what it does without being asked.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{CAPACITY, Cluster, address, declared, empty, endpoint, name, node, spec, store};
use blixard_core::formation::phase_of;
use blixard_core::planner::membership::{Claim, MembershipView, Progress};
use blixard_core::planner::prepare::{end_of, prepare};
use blixard_core::planner::removal::SIGN_TICKS;
use blixard_core::planner::{LeaderView, NotNow, Planned, Prepared, Raising, Signs, plan};
use blixard_core::ticket::{TicketClock, hash_of};
use blixard_model::formation::Identity;
use blixard_model::join::JoinRequest;
use blixard_model::ticket::TICKET_TTL_MS_MIN;
use blixard_model::{
    Ask, AskOutcome, ClusterVersion, Command, Desired, EndpointId, MembersAsk, MembershipChange, NodeName,
    Offer, OnNodeLoss, Outcome, RaftId, Removal, Request, Role, TicketId, TicketSecret, TicketState,
    TicketUse, VmSpec, VmsFate, WriteAsk, WriteRequest,
};

const WALL_MS: u64 = 1_700_000_000_000;
/// Long after this node began to lead.
const TICK: u64 = 1_000;

/// n1 leads three voters. Each has a link and was heard of in this tick, until a case says otherwise.
struct Leader {
    cluster: Cluster,
    claims: BTreeMap<EndpointId, Identity>,
    heard: BTreeMap<RaftId, u64>,
    linked: BTreeSet<EndpointId>,
    leased: BTreeSet<NodeName>,
    blind: BTreeSet<NodeName>,
    removals_asked: BTreeMap<RaftId, u64>,
    ticket_clocks: BTreeMap<TicketId, TicketClock>,
    expiry_proposed: Option<u64>,
    raising: Option<Raising>,
    listed: u8,
    tick: u64,
    leads_since: u64,
    wall_ms: u64,
    is_begun: bool,
    is_changing: bool,
}

impl Leader {
    fn new() -> Self {
        Self {
            cluster: Cluster::of(3),
            claims: BTreeMap::new(),
            heard: (2..=3).map(|n| (RaftId(n), TICK)).collect(),
            linked: (2..=3).map(endpoint).collect(),
            leased: BTreeSet::new(),
            blind: BTreeSet::new(),
            removals_asked: BTreeMap::new(),
            ticket_clocks: BTreeMap::new(),
            expiry_proposed: None,
            raising: None,
            listed: 3,
            tick: TICK,
            leads_since: 0,
            wall_ms: WALL_MS,
            is_begun: true,
            is_changing: false,
        }
    }

    /// With a ticket that is open for some time.
    fn with_ticket(n: u8) -> Self {
        let mut leader = Self::new();
        let ask = WriteAsk::CreateTicket {
            id: id(n),
            name: None,
            hash: hash_of(&secret(n)),
            ttl_ms: TICKET_TTL_MS_MIN,
        };
        let Prepared::Propose(request) = leader.write(ask) else { panic!("not proposed") };
        assert_eq!(leader.cluster.apply(request.command), Outcome::done(None));
        leader.ticket_clocks.insert(id(n), TicketClock { wall_ms: WALL_MS, known_for_ms: 0 });
        leader
    }

    /// Nothing is heard of it any more, since so many ticks.
    fn silent(mut self, n: u64, ticks: u64) -> Self {
        self.heard.insert(RaftId(n), self.tick - ticks);
        self
    }

    fn changing(mut self) -> Self {
        self.is_changing = true;
        self
    }

    fn apply(&mut self, prepared: Prepared) {
        let Prepared::Change(change) = prepared else { panic!("{prepared:?}") };
        self.cluster.state.apply_membership(&change);
    }

    fn look<T>(&self, look: impl FnOnce(&LeaderView<'_>) -> T) -> T {
        let (tick, leads_since) = (self.tick, self.leads_since);
        let signs = Signs { tick, leads_since, own: RaftId(1), heard: &self.heard };
        let voters: Vec<RaftId> = (1..=3).map(RaftId).collect();
        let of_all = |id: &RaftId| {
            let heard = signs.is_heard(*id);
            (*id, Progress { matched: 100, heard, recent_active: heard, lost: false })
        };
        let claims = self.claims.iter().map(|(id, identity)| (*id, Claim { identity, settled: true }));
        look(&LeaderView {
            members: MembershipView {
                state: &self.cluster.state,
                leader: RaftId(1),
                voters: &voters,
                learners: &[],
                declared: &declared(self.listed),
                claims: &claims.collect(),
                progress: &self.cluster.state.nodes.raft_ids().map(|id| of_all(&id)).collect(),
                commit: 100,
                supports: ClusterVersion::NEWEST,
                required: self.cluster.state.version,
            },
            signs,
            linked: &self.linked,
            leased: &self.leased,
            blind: &self.blind,
            is_begun: self.is_begun,
            is_changing: self.is_changing,
            removals_asked: &self.removals_asked,
            wall_ms: self.wall_ms,
            ticket_clocks: &self.ticket_clocks,
            expiry_proposed: self.expiry_proposed,
            raising: self.raising,
        })
    }

    fn write(&self, ask: WriteAsk) -> Prepared {
        self.write_of(1, ask)
    }

    fn write_of(&self, asker: u8, ask: WriteAsk) -> Prepared {
        let id = "r-1".parse().expect("a request id");
        self.look(|view| prepare(view, endpoint(asker), Ask::Write(WriteRequest { id, ask })))
    }

    fn members(&self, ask: MembersAsk) -> Prepared {
        self.look(|view| prepare(view, endpoint(1), Ask::Members(ask)))
    }

    fn vouch(&self, node: Identity) -> Prepared {
        self.members(MembersAsk::Vouch { node: Box::new(node) })
    }

    fn admit(&self, request: JoinRequest) -> Prepared {
        self.members(MembersAsk::Admit(Box::new(request)))
    }

    fn remove(&self, n: u64, force: bool) -> Prepared {
        self.members(MembersAsk::Remove { raft_id: RaftId(n), force, vms: None })
    }

    /// A removal that was asked for some ticks ago.
    fn remove_after(mut self, n: u64, force: bool, ticks: u64) -> Prepared {
        self.removals_asked.insert(RaftId(n), self.tick - ticks);
        self.remove(n, force)
    }

    fn plan(&self) -> Vec<Planned> {
        self.look(plan)
    }
}

fn id(n: u8) -> TicketId {
    TicketId::from_bytes([n; 8])
}

fn secret(n: u8) -> TicketSecret {
    TicketSecret::from_bytes([n; 32])
}

/// Node `n` with an empty store shows ticket 1.
fn with_ticket(n: u8, store_id: u8) -> JoinRequest {
    let (ticket, secret) = (id(1), secret(1));
    JoinRequest { node: empty(n, store_id, None), ticket, secret, guessed: Vec::new(), known_as: None }
}

/// Node `n`, whose store belongs to a cluster.
fn formed(n: u8) -> Identity {
    let state = Cluster::of(3).state;
    Identity { phase: phase_of(&state, (RaftId(n.into()), 1), None), ..empty(n, n, None) }
}

fn create() -> WriteAsk {
    WriteAsk::CreateVm { spec: spec("web"), desired: Desired::Running }
}

fn proposed(command: Command) -> Prepared {
    Prepared::Propose(Request { id: "r-1".parse().expect("a request id"), command })
}

fn admitted(n: u64) -> Prepared {
    Prepared::Answer(AskOutcome::Admitted { raft_id: RaftId(n) })
}

fn removed(n: u64, why: Removal) -> Prepared {
    Prepared::Change(MembershipChange::Remove { raft_id: RaftId(n), why })
}

#[track_caller]
fn refused_for(prepared: &Prepared, why: &str) {
    let Prepared::Answer(AskOutcome::Refused { refusal }) = prepared else {
        panic!("not refused: {prepared:?}")
    };
    assert!(refusal.to_string().contains(why), "{refusal}");
}

#[track_caller]
fn not_now(prepared: &Prepared, why: &NotNow) {
    assert_eq!(prepared, &Prepared::NotNow(why.clone()));
}

#[test]
fn a_vm_that_a_removed_machine_may_run_is_forgotten_by_an_operators_word_alone() {
    let mut leader = Leader::new();
    for (vm, fate) in [("db", OnNodeLoss::Keep), ("web", OnNodeLoss::Failover)] {
        let spec = VmSpec { on_node_loss: Some(fate), ..spec(vm) };
        leader.cluster.eligible = vec![node("n3")];
        let outcome = leader.cluster.create(spec);
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    }
    let boot_id = blixard_model::BootId::from_bytes([1; 16]);
    leader.cluster.apply(Command::EnforceLease { raft_id: RaftId(3), boot_id, epoch: 1 });
    let delete = |vm| WriteAsk::DeleteVm { name: name(vm) };
    let done = |vm| proposed(Command::DeleteVm { name: name(vm) });
    assert_eq!(leader.write(delete("db")), done("db"), "its node says when it is gone");
    // The removal may be on its way into the log.
    leader.is_changing = true;
    not_now(&leader.write(delete("db")), &NotNow::ChangeUnderWay);
    leader.is_changing = false;
    let vms = Some(VmsFate::Keep);
    let leave = MembershipChange::Remove { raft_id: RaftId(3), why: Removal::Operator { vms } };
    leader.cluster.state.apply_membership(&leave);
    refused_for(
        &leader.write(delete("db")),
        "blixard node remove n3 --force --vms delete --i-know-it-is-off",
    );
    assert_eq!(leader.write(delete("web")), done("web"), "its lease says when it is gone");
    assert_eq!(leader.write(delete("none")), done("none"));
    leader.cluster.apply(Command::ForgetVms { node: node("n3") });
    assert_eq!(leader.write(delete("db")), done("db"));
}

#[test]
fn a_write_becomes_the_command_of_its_kind_with_what_the_leader_adds() {
    let (web, n1, hash) = (name("web"), node("n1"), hash_of(&secret(1)));
    let (endpoint_id, addresses) = (endpoint(1), vec![address(1)]);
    let all = vec![node("n1"), node("n2"), node("n3")];
    let cases = [
        (create(), Command::CreateVm { spec: spec("web"), desired: Desired::Running, eligible: all }),
        (WriteAsk::StartVm { name: web.clone() }, Command::StartVm { name: web.clone() }),
        (WriteAsk::StopVm { name: web.clone() }, Command::StopVm { name: web.clone() }),
        (
            WriteAsk::ConfirmGone { name: web.clone(), node: n1.clone(), generation: 7 },
            Command::ConfirmGone { name: web, node: n1.clone(), generation: 7 },
        ),
        (
            WriteAsk::SetNode {
                endpoint_id,
                offer: Offer {
                    addresses: addresses.clone(),
                    relay_url: None,
                    capacity: Some(CAPACITY),
                    witness: true,
                    ..Offer::default()
                },
            },
            Command::SetNode {
                endpoint_id,
                offer: Offer {
                    addresses,
                    relay_url: None,
                    capacity: Some(CAPACITY),
                    witness: true,
                    ..Offer::default()
                },
            },
        ),
        (
            WriteAsk::CreateTicket { id: id(1), name: Some(node("n9")), hash, ttl_ms: 5 },
            Command::CreateTicket { id: id(1), name: Some(node("n9")), hash, ttl_ms: 5, at_ms: WALL_MS },
        ),
        (WriteAsk::RevokeTicket { id: id(1) }, Command::RevokeTicket { id: id(1) }),
        (WriteAsk::ForgetVms { node: node("n9") }, Command::ForgetVms { node: node("n9") }),
    ];
    for (ask, command) in cases {
        assert_eq!(Leader::new().changing().write(ask), proposed(command), "whatever becomes of the members");
    }
}

/// What a leader adds is no part of what was asked for.
#[test]
fn a_write_that_two_leaders_make_a_command_of_is_applied_once() {
    let (first, mut second) = (Leader::new(), Leader::new().silent(2, 15));
    second.wall_ms += 5;
    let hash = hash_of(&secret(1));
    let ticket = WriteAsk::CreateTicket { id: id(1), name: None, hash, ttl_ms: TICKET_TTL_MS_MIN };
    for ask in [create(), ticket] {
        let request = |leader: &Leader| match leader.write(ask.clone()) {
            Prepared::Propose(request) => request,
            other => panic!("{other:?}"),
        };
        let (once, again) = (request(&first), request(&second));
        assert_ne!(once.command, again.command);
        let mut cluster = Cluster::of(3);
        let outcome = cluster.apply_request(&once);
        assert!(matches!(outcome, Outcome::Done { unchanged: false, .. }), "{outcome:?}");
        assert_eq!(cluster.apply_request(&again), outcome);
    }
}

#[test]
fn a_vm_is_placed_on_nodes_with_a_link_that_were_heard_of_lately() {
    let eligible_of = |asker, leader: &Leader| match leader.write_of(asker, create()) {
        Prepared::Propose(Request { command: Command::CreateVm { eligible, .. }, .. }) => eligible,
        other => panic!("{other:?}"),
    };
    let eligible = |leader: &Leader| eligible_of(1, leader);
    assert_eq!(eligible(&Leader::new().silent(2, 14)).len(), 3);
    assert_eq!(eligible(&Leader::new().silent(2, 15)), [node("n1"), node("n3")]);
    let mut cut = Leader::new();
    cut.linked.clear();
    assert_eq!(eligible(&cut), [node("n1")], "the leader itself needs no link");
    let mut late = Leader::new();
    late.leads_since = TICK + 1;
    late.tick = TICK + 6;
    assert_eq!(eligible(&late), [node("n1")], "what was heard before it led does not count");
    let back = Leader::new().silent(2, 15);
    assert_eq!(eligible_of(2, &back).len(), 3, "who asks is there, although Raft has not heard of it yet");
}

#[test]
fn a_vm_is_placed_where_nothing_would_be_started_only_if_it_fits_nowhere_else() {
    let placed = |leader: &mut Leader, spec: VmSpec| {
        let ask = WriteAsk::CreateVm { spec, desired: Desired::Running };
        let Prepared::Propose(request) = leader.write(ask) else { panic!("not proposed") };
        match leader.cluster.apply(request.command) {
            Outcome::Done { node, .. } => node.expect("placed"),
            refused => panic!("{refused:?}"),
        }
    };
    let all_of_one = |vm: &str| VmSpec { memory_mib: 1_500, ..spec(vm) };
    let keep = |vm: &str| VmSpec { on_node_loss: Some(OnNodeLoss::Keep), ..all_of_one(vm) };
    let mut leader = Leader::new();
    leader.blind = [node("n1"), node("n2")].into();
    // It has no lease, and gets one sooner than systemd answers on the others.
    leader.leased = [node("n1"), node("n2")].into();
    assert_eq!(placed(&mut leader, all_of_one("a")), node("n3"));
    assert_eq!(placed(&mut leader, keep("b")), node("n1"), "n3 is full");
    leader.blind.clear();
    leader.leased = [node("n3")].into();
    assert_eq!(placed(&mut leader, all_of_one("c")), node("n2"), "the only one that has room");
    let mut pinned = Leader::new();
    pinned.blind = [node("n2")].into();
    let to_n2 = VmSpec { node: Some(node("n2")), ..spec("d") };
    assert_eq!(placed(&mut pinned, to_n2), node("n2"));
}

#[test]
fn a_new_leader_places_nothing_before_it_knows_who_is_there() {
    let mut leader = Leader::new();
    leader.is_begun = false;
    not_now(&leader.write(create()), &NotNow::NewLeader);
    let stop = WriteAsk::StopVm { name: name("web") };
    assert!(matches!(leader.write(stop), Prepared::Propose(_)), "what places nothing does not wait");
    let mut leader = Leader::new().silent(2, 100);
    leader.leads_since = TICK - 4;
    not_now(&leader.write(create()), &NotNow::NewLeader);
    leader.leads_since = TICK - 5;
    assert!(matches!(leader.write(create()), Prepared::Propose(_)), "it says no word");
    leader.leads_since = TICK - 4;
    leader.linked.remove(&endpoint(2));
    assert!(matches!(leader.write(create()), Prepared::Propose(_)), "it has no link");
}

#[test]
fn vms_of_a_node_that_said_something_lately_are_not_forgotten() {
    let mut leader = Leader::new();
    leader.claims.insert(endpoint(9), empty(9, 9, None));
    let ask = |n: &str| WriteAsk::ForgetVms { node: node(n) };
    not_now(&leader.write(ask("n9")), &NotNow::StillThere { node: node("n9") });
    assert_eq!(leader.write(ask("n8")), proposed(Command::ForgetVms { node: node("n8") }));
}

#[test]
fn a_node_that_a_member_vouches_for_is_admitted_once() {
    let mut leader = Leader::new();
    let change = leader.vouch(empty(4, 4, None));
    let Prepared::Change(MembershipChange::AddLearner { member, ticket: None }) = &change else {
        panic!("{change:?}")
    };
    assert_eq!((member.raft_id, member.node.store_id, member.role), (RaftId(4), store(4), Role::Learner));
    assert_eq!(
        (&member.node.offer.addresses, member.node.offer.capacity),
        (&vec![address(4)], Some(CAPACITY))
    );
    not_now(&Leader::new().changing().vouch(empty(4, 4, None)), &NotNow::ChangeUnderWay);
    refused_for(&leader.vouch(formed(4)), "n4's store belongs to a cluster already");
    leader.apply(change);
    assert_eq!(leader.vouch(empty(4, 4, None)), admitted(4));
    assert_eq!(leader.vouch(empty(4, 44, None)), admitted(4), "a lost store is for the leader to find");
    let why = Removal::Operator { vms: None };
    leader.cluster.state.apply_membership(&MembershipChange::Remove { raft_id: RaftId(4), why });
    refused_for(&leader.vouch(empty(4, 44, None)), "needs a ticket");
    refused_for(&leader.changing().vouch(formed(4)), "belongs to a cluster already");
}

#[test]
fn a_ticket_admits_one_node_and_says_so_again_to_that_one() {
    let mut leader = Leader::with_ticket(1);
    let change = leader.admit(with_ticket(4, 4));
    let Prepared::Change(MembershipChange::AddLearner { member, ticket: Some(used) }) = &change else {
        panic!("{change:?}")
    };
    assert_eq!((member.raft_id, used), (RaftId(4), &TicketUse { id: id(1), at_ms: WALL_MS }));
    leader.is_changing = true;
    not_now(&leader.admit(with_ticket(4, 4)), &NotNow::ChangeUnderWay);
    leader.is_changing = false;
    leader.apply(change);
    refused_for(&leader.admit(with_ticket(5, 5)), "it has admitted n4");
    let again = JoinRequest { secret: secret(7), ..with_ticket(4, 4) };
    assert_eq!(leader.admit(again), admitted(4), "the ticket may be forgotten by now");
}

#[test]
fn a_ticket_that_is_none_or_over_admits_nobody() {
    let mut leader = Leader::with_ticket(1);
    let wrong = leader.admit(JoinRequest { secret: secret(2), ..with_ticket(4, 4) });
    let none = leader.admit(JoinRequest { ticket: id(2), secret: secret(2), ..with_ticket(4, 4) });
    refused_for(&wrong, "does not know it, or its secret is another one");
    assert_eq!(wrong, none, "who has no secret learns nothing");
    let full = JoinRequest { node: formed(4), ..with_ticket(4, 4) };
    refused_for(&leader.admit(full), "belongs to a cluster already");
    let clock = |wall_ms, known_for_ms| TicketClock { wall_ms, known_for_ms };
    let last = clock(WALL_MS + TICKET_TTL_MS_MIN - 1, TICKET_TTL_MS_MIN - 1);
    let over = [clock(WALL_MS + TICKET_TTL_MS_MIN, 0), clock(0, TICKET_TTL_MS_MIN)];
    leader.ticket_clocks.insert(id(1), last);
    assert!(matches!(leader.admit(with_ticket(4, 4)), Prepared::Change(_)));
    for clock in over {
        leader.ticket_clocks.insert(id(1), clock);
        refused_for(&leader.admit(with_ticket(4, 4)), "it has expired");
    }
    let mut leader = Leader::with_ticket(1);
    leader.cluster.state.tickets.get_mut(&id(1)).expect("a ticket").state = TicketState::Revoked;
    refused_for(&leader.admit(with_ticket(4, 4)), "it was revoked");
}

#[test]
fn a_guessed_address_that_is_another_s_is_left_out_and_not_the_last() {
    let leader = Leader::with_ticket(1);
    let at = |addresses: &[u8], guessed: &[u8]| {
        let mut request = with_ticket(4, 4);
        request.node.node.offer.addresses = addresses.iter().copied().map(address).collect();
        request.guessed = guessed.iter().copied().map(address).collect();
        request
    };
    let addresses = |prepared: Prepared| match prepared {
        Prepared::Change(MembershipChange::AddLearner { member, .. }) => member.node.offer.addresses,
        other => panic!("{other:?}"),
    };
    assert_eq!(addresses(leader.admit(at(&[4, 2], &[2]))), [address(4)]);
    assert_eq!(addresses(leader.admit(at(&[4, 5], &[5]))), [address(4), address(5)], "it is nobody's");
    refused_for(&leader.admit(at(&[4, 2], &[])), &address(2).to_string());
    not_now(&leader.admit(at(&[2], &[2])), &NotNow::NoAddressOfItsOwn);
    let mut relayed = at(&[2], &[2]);
    relayed.node.node.offer.relay_url = Some("https://relay.example.org".parse().expect("a url"));
    assert_eq!(addresses(leader.admit(relayed)), []);
}

#[test]
fn the_place_of_a_lost_store_is_let_go_when_the_node_knows_of_it_and_the_old_one_is_silent() {
    let comes = |known_as: Option<u64>| JoinRequest { known_as: known_as.map(RaftId), ..with_ticket(3, 33) };
    let leader = Leader::with_ticket(1).silent(3, 15);
    not_now(&leader.admit(comes(None)), &NotNow::KnownWithAnotherStore);
    not_now(&leader.admit(comes(Some(2))), &NotNow::KnownWithAnotherStore);
    assert_eq!(leader.admit(comes(Some(3))), removed(3, Removal::LostStore));
    not_now(&leader.changing().admit(comes(Some(3))), &NotNow::ChangeUnderWay);
    not_now(&Leader::with_ticket(1).silent(3, 14).admit(comes(Some(3))), &NotNow::OtherStoreAnswers);
    let mut new = Leader::with_ticket(1).silent(3, 500);
    new.leads_since = TICK - 14;
    not_now(&new.admit(comes(Some(3))), &NotNow::OtherStoreAnswers);
    let mut used = Leader::with_ticket(1).silent(3, 15);
    used.cluster.state.tickets.get_mut(&id(1)).expect("a ticket").state = TicketState::Expired;
    refused_for(&used.admit(comes(Some(3))), "it has ended, and the node is a member with another store");
}

#[test]
fn before_a_member_goes_the_others_show_that_they_are_there() {
    let operator = || Removal::Operator { vms: None };
    assert_eq!(Leader::new().remove(2, false), Prepared::AwaitSigns(RaftId(2)));
    let stale = Leader::new().remove_after(2, false, SIGN_TICKS);
    assert_eq!(stale, Prepared::AwaitSigns(RaftId(2)), "asked for too long ago");
    assert_eq!(Leader::new().remove_after(2, false, 1), removed(2, operator()));
    not_now(&Leader::new().changing().remove_after(2, false, 1), &NotNow::ChangeUnderWay);
    // A word from before it was asked for may have been the last.
    not_now(&Leader::new().silent(3, 1).remove_after(2, false, 1), &NotNow::SignsMissing);
    not_now(&Leader::new().silent(3, 14).remove_after(2, false, 14), &NotNow::SignsMissing);
    refused_for(&Leader::new().silent(3, 15).remove_after(2, false, 15), "n3 cannot be reached");
    not_now(&Leader::new().silent(2, 14).remove_after(2, false, 14), &NotNow::SignsMissing);
    refused_for(&Leader::new().silent(2, 15).remove_after(2, false, 15), "remove it with --force");
    let mut new = Leader::new().silent(2, 500);
    new.leads_since = TICK - 14;
    not_now(&new.remove_after(2, false, 1), &NotNow::NewLeader);
}

#[test]
fn a_member_that_is_given_up_for_dead_gets_the_time_to_show_that_it_is_not() {
    let gone = |ticks: u64| Leader::new().silent(2, ticks);
    not_now(&gone(34).remove_after(2, true, 34), &NotNow::OwnSignMissing);
    assert_eq!(gone(35).remove_after(2, true, 35), removed(2, Removal::Operator { vms: None }));
    let cut = |ticks: u64| {
        let mut leader = gone(ticks);
        leader.linked.remove(&endpoint(2));
        leader
    };
    not_now(&cut(14).remove_after(2, true, 14), &NotNow::OwnSignMissing);
    assert_eq!(cut(15).remove_after(2, true, 15), removed(2, Removal::Operator { vms: None }));
    let mut there = Leader::new();
    there.removals_asked.insert(RaftId(2), TICK - 1);
    let vms = Some(VmsFate::Delete);
    let ask = MembersAsk::Remove { raft_id: RaftId(2), force: true, vms };
    refused_for(&there.members(ask), "n2 answers");
}

#[test]
fn the_leader_goes_when_another_leads_and_who_has_gone_is_gone() {
    assert_eq!(Leader::new().remove(1, false), Prepared::AwaitSigns(RaftId(1)));
    assert_eq!(Leader::new().remove_after(1, false, 1), Prepared::HandOver);
    assert_eq!(Leader::new().changing().remove_after(1, false, 1), Prepared::HandOver);
    let mut leader = Leader::new();
    let why = Removal::Operator { vms: None };
    leader.cluster.state.apply_membership(&MembershipChange::Remove { raft_id: RaftId(3), why });
    let unchanged = Prepared::Answer(Outcome::unchanged(None).into());
    assert_eq!(leader.remove(3, false), unchanged, "and nobody's sign of life is awaited");
    refused_for(&leader.remove(77, false), "no node with raft id 77");
}

#[test]
fn who_asked_is_told_what_the_change_was_for() {
    let mut leader = Leader::new();
    let Prepared::Change(admission) = leader.vouch(empty(4, 4, None)) else { panic!("no change") };
    assert_eq!(end_of(&admission), Ok(AskOutcome::Admitted { raft_id: RaftId(4) }));
    leader.cluster.state.apply_membership(&admission);
    let removal = |why| MembershipChange::Remove { raft_id: RaftId(4), why };
    assert_eq!(end_of(&removal(Removal::Operator { vms: None })), Ok(Outcome::done(None).into()));
    assert_eq!(end_of(&removal(Removal::LostStore)), Err(NotNow::PlaceLetGo), "it is to ask again");
    for change in
        [MembershipChange::Promote { raft_id: RaftId(4) }, MembershipChange::Demote { raft_id: RaftId(4) }]
    {
        assert_eq!(end_of(&change), Ok(Outcome::done(None).into()));
    }
}

#[test]
fn a_leader_plans_a_change_of_the_members_first_and_then_which_tickets_are_over() {
    assert_eq!(Leader::new().plan(), []);
    let mut leader = Leader::with_ticket(1);
    assert_eq!(leader.plan(), [], "it is open");
    let expiry = || Planned::Expire(vec![id(1)]);
    leader.ticket_clocks.insert(id(1), TicketClock { wall_ms: 0, known_for_ms: TICKET_TTL_MS_MIN });
    assert_eq!(leader.plan(), [expiry()]);
    leader.listed = 4;
    leader.claims.insert(endpoint(4), empty(4, 4, None));
    let planned = leader.plan();
    let [Planned::Change(MembershipChange::AddLearner { member, .. }), second] = planned.as_slice() else {
        panic!("{planned:?}")
    };
    assert_eq!((member.raft_id, second), (RaftId(4), &expiry()));
    leader.is_changing = true;
    assert_eq!(leader.plan(), [expiry()], "one change at a time, which tickets do not wait for");
}

#[test]
fn expired_tickets_are_proposed_again_after_a_pause_and_ended_ones_never() {
    let mut leader = Leader::with_ticket(1);
    leader.ticket_clocks.insert(id(1), TicketClock { wall_ms: WALL_MS * 2, known_for_ms: 0 });
    leader.expiry_proposed = Some(TICK - 19);
    assert_eq!(leader.plan(), []);
    leader.expiry_proposed = Some(TICK - 20);
    assert_eq!(leader.plan(), [Planned::Expire(vec![id(1)])]);
    leader.cluster.apply(Command::RevokeTicket { id: id(1) });
    assert_eq!(leader.plan(), []);
}

/// Older nodes show them to people as they are.
#[test]
fn why_not_now_is_told_in_these_words() {
    let words = [
        (NotNow::NewLeader, "this leader is new and has not heard of every node yet"),
        (
            NotNow::StillThere { node: node("n3") },
            "n3 answered a moment ago: while it is on it runs its VMs, so switch it off first",
        ),
        (NotNow::ChangeUnderWay, "another change of the members is under way"),
        (NotNow::MembersChanged, "the members changed meanwhile"),
        (NotNow::SignsAskedFor, "the others are asked for a sign of life first"),
        (NotNow::SignsMissing, "not all the others have given a sign of life yet"),
        (NotNow::OwnSignMissing, "the node itself is given the time for a sign of life"),
        (NotNow::HandsOver, "the node leads: the leadership is being handed over first"),
        (NotNow::NobodyToHandOverTo, "the node leads, and no other can take the leadership over"),
        (
            NotNow::NoAddressOfItsOwn,
            "every address that the node guessed is another member's, and it has found no relay yet: without \
             one it needs `addresses` in its configuration",
        ),
        (
            NotNow::KnownWithAnotherStore,
            "the node is known with another store, and has not heard of that yet",
        ),
        (NotNow::OtherStoreAnswers, "the node still answers as a member with another store"),
        (NotNow::PlaceLetGo, "the place of the node's lost store was let go first"),
    ];
    for (why, said) in words {
        assert_eq!(why.to_string(), said);
    }
}

/// Of a cluster that has the first version yet.
fn of_the_first_version() -> Leader {
    let mut leader = Leader::new();
    leader.cluster.state.version = ClusterVersion::FIRST;
    leader
}

#[test]
fn the_version_is_raised_when_nothing_about_the_members_is_to_be_changed_and_once() {
    let mut leader = of_the_first_version();
    leader.claims = (2..=4).map(|n| (endpoint(n), empty(n, n, None))).collect();
    let raise = Planned::Raise(ClusterVersion::NEWEST);
    assert_eq!(leader.look(plan), std::slice::from_ref(&raise));
    leader.listed = 4;
    assert!(matches!(leader.look(plan)[..], [Planned::Change(_)]), "n4 comes first");
    leader.is_changing = true;
    assert_eq!(leader.look(plan), []);
    leader.is_changing = false;
    leader.listed = 3;
    leader.raising = Some(Raising { to: ClusterVersion::NEWEST, at_tick: TICK });
    for (ticks, planned) in [(0, vec![]), (19, vec![]), (20, vec![raise])] {
        leader.tick = TICK + ticks;
        assert_eq!(leader.look(plan), planned, "{ticks}");
    }
}

#[test]
fn a_spec_changes_once_every_member_would_understand_it() {
    let change = || WriteAsk::ChangeVm { spec: spec("a"), seen: Some(0) };
    let (version, needs) = (ClusterVersion::FIRST, ClusterVersion::SPECS_CHANGE);
    let early = NotNow::EarlierVersion { version, needs };
    assert_eq!(of_the_first_version().write(change()), early.into());
    let Prepared::Propose(request) = Leader::new().write(change()) else { panic!("not proposed") };
    assert_eq!(request.command, Command::ChangeVm { spec: spec("a"), seen: Some(0) });
}

#[test]
fn a_node_whose_release_is_too_old_waits_and_is_told_the_way_out() {
    let leader = Leader::new();
    let old = Identity { supports: ClusterVersion::FIRST, ..empty(4, 4, None) };
    let vouched = leader.members(MembersAsk::Vouch { node: Box::new(old) });
    // It keeps its ticket for the time after the upgrade.
    let Prepared::NotNow(why) = vouched else { panic!("{vouched:?}") };
    let said = why.to_string();
    assert!(said.contains("n4: the cluster has version 4, and its release supports 1 at most"), "{said}");
    assert!(said.contains("upgrade it"), "{said}");
}
