//! As leader: tickets and removals that others ask for.

use blixard_core::ClusterState;
use blixard_core::formation::phase_of;
use blixard_core::planner::NotNow;
use blixard_core::ticket::hash_of;
use blixard_model::formation::{Identity, Phase};
use blixard_model::removal::RemovedFrom;
use blixard_model::wire::{JoinRequest, JoinResponse};
use blixard_model::{
    Ask, AskOutcome, ClusterId, MembersAsk, MembershipChange, NodeName, Outcome, RaftId, Refusal, TicketId,
    TicketSecret, VmsFate, WriteAsk, WriteRequest,
};
use blixard_node::joining::{answer_to_joiner, ask_for_joiner};
use blixard_node::{AttemptEnd, Notice, SubmitError};

use crate::group::{Group, create, endpoint, genesis, identity, name, store, waiter};

/// Long enough for a ticket that lives for ten seconds.
const TEN_SECONDS: u64 = 10_000;
const BEGIN_MS: u64 = 1_700_000_000_000;

fn secret(n: u8) -> TicketSecret {
    TicketSecret::from_bytes([n; 32])
}

fn id(n: u8) -> TicketId {
    TicketId::from_bytes([n; 8])
}

/// Three members, and a leader that knows the time.
fn group() -> (Group, u8) {
    let mut group = Group::of(3);
    let leader = group.leader();
    group.nodes.values_mut().for_each(|node| node.note_time(BEGIN_MS));
    (group, leader)
}

fn request_of(text: &str, ask: WriteAsk) -> WriteRequest {
    WriteRequest { id: text.parse().expect("a request id"), ask }
}

fn write(group: &mut Group, at: u8, text: &'static str, ask: WriteAsk) {
    group.node(at).ask(request_of(text, ask), endpoint(at), waiter(text));
    group.settle();
    let done = matches!(group.answer(text), Some(AttemptEnd::Decided(AskOutcome::Done { .. })));
    assert!(done, "{:?}", group.answer(text));
}

fn ticket(group: &mut Group, at: u8, n: u8, name: Option<NodeName>) {
    let text = ["ticket-0", "ticket-1", "ticket-2"][usize::from(n)];
    let hash = hash_of(&secret(n));
    write(group, at, text, WriteAsk::CreateTicket { id: id(n), name, hash, ttl_ms: TEN_SECONDS });
}

fn request(node: Identity, ticket: u8, with: u8) -> JoinRequest {
    JoinRequest { node, ticket: id(ticket), secret: secret(with), guessed: Vec::new(), known_as: None }
}

fn admission(request: JoinRequest) -> MembersAsk {
    MembersAsk::Admit(Box::new(request))
}

fn empty(node: u8, store_n: u8) -> Identity {
    identity(node, store(store_n), Phase::Empty { promise: None })
}

fn admit(node: u8, store_n: u8, ticket: u8, with: u8) -> MembersAsk {
    admission(request(empty(node, store_n), ticket, with))
}

/// Asks and gives the answer.
fn ask(group: &mut Group, at: u8, what: &'static str, ask: impl Into<Ask>) -> AttemptEnd {
    group.node(at).ask(ask, endpoint(at), waiter(what));
    group.settle();
    group.answer(what).expect("answered").clone()
}

fn admitted(result: &AttemptEnd) -> Option<RaftId> {
    match result {
        AttemptEnd::Decided(AskOutcome::Admitted { raft_id }) => Some(*raft_id),
        _ => None,
    }
}

#[track_caller]
fn refused_for(result: &AttemptEnd, why: &str) {
    let AttemptEnd::Decided(AskOutcome::Refused { refusal }) = result else {
        panic!("not refused: {result:?}")
    };
    assert!(refusal.to_string().contains(why), "{refusal}");
}

#[test]
fn a_ticket_admits_one_node_once_and_says_so_again_to_that_one() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, None);
    let first = ask(&mut group, leader, "first", admit(4, 4, 1, 1));
    assert_eq!(admitted(&first), Some(RaftId(4)));
    let again = ask(&mut group, leader, "again", admit(4, 4, 1, 1));
    assert_eq!(admitted(&again), Some(RaftId(4)), "a captured request admits nobody else");
    refused_for(&ask(&mut group, leader, "other", admit(5, 5, 1, 1)), "it has admitted n4");
    assert_eq!(group.node(leader).state().nodes.member_count(), 4);
    assert!(!group.node(leader).summary().joinable, "nothing is open any more");
}

#[test]
fn a_lost_store_gives_its_place_up_but_not_for_a_request_that_is_older_than_the_place() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, None);
    ticket(&mut group, leader, 2, None);
    assert_eq!(admitted(&ask(&mut group, leader, "join", admit(4, 4, 1, 1))), Some(RaftId(4)));
    group.cut.insert(4);
    group.tick(60);
    let comes = |known_as: Option<RaftId>| JoinRequest { known_as, ..request(empty(4, 9), 2, 2) };
    // Whom it asks tells it at once, and it asks again.
    let state = group.node(leader).state().clone();
    let answers = [
        ask_for_joiner(&state, comes(None)).map_err(|told| *told).expect_err("not yet"),
        answer_to_joiner(&state, endpoint(4), Ok(Outcome::done(None).into())),
        answer_to_joiner(&state, endpoint(4), Err(SubmitError::Unavailable("nobody leads".to_owned()))),
    ];
    for told in answers {
        assert!(matches!(told, JoinResponse::Later { known_as: Some(RaftId(4)), .. }), "{told:?}");
    }
    let stranger = answer_to_joiner(&state, endpoint(5), Ok(Outcome::done(None).into()));
    assert!(matches!(stranger, JoinResponse::Later { known_as: None, .. }), "{stranger:?}");
    // One that is behind brings it to the leader.
    let behind = ClusterState::new(genesis(3));
    let with_another_store = |known_as: Option<RaftId>| {
        ask_for_joiner(&behind, comes(known_as)).expect("for the leader to decide")
    };
    for (what, before) in [("no member yet", None), ("under an earlier place", Some(RaftId(3)))] {
        let late = ask(&mut group, leader, what, with_another_store(before));
        assert_eq!(late, AttemptEnd::NotNow(NotNow::KnownWithAnotherStore));
        assert!(group.node(leader).state().nodes.has_member(RaftId(4)), "{what}");
    }
    let first = ask(&mut group, leader, "let go", with_another_store(Some(RaftId(4))));
    assert_eq!(first, AttemptEnd::NotNow(NotNow::PlaceLetGo), "to be asked again");
    assert!(!group.node(leader).state().nodes.has_member(RaftId(4)));
    assert_eq!(admitted(&ask(&mut group, leader, "anew", with_another_store(None))), Some(RaftId(5)));
}

#[test]
fn of_two_at_once_exactly_one_is_admitted() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, None);
    group.node(leader).ask(admit(4, 4, 1, 1), endpoint(leader), waiter("four"));
    group.node(leader).ask(admit(5, 5, 1, 1), endpoint(leader), waiter("five"));
    group.settle();
    assert!(admitted(group.answer("four").expect("answered")).is_some());
    let later = AttemptEnd::NotNow(NotNow::ChangeUnderWay);
    assert_eq!(group.answer("five"), Some(&later), "to be asked again");
    refused_for(&ask(&mut group, leader, "five again", admit(5, 5, 1, 1)), "it has admitted n4");
}

#[test]
fn a_wrong_secret_learns_nothing_of_the_tickets_there_are() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, None);
    let wrong = ask(&mut group, leader, "wrong secret", admit(4, 4, 1, 2));
    let none = ask(&mut group, leader, "no such ticket", admit(4, 4, 2, 2));
    assert_eq!(wrong, none);
    refused_for(&wrong, "does not know it, or its secret is another one");
    assert_eq!(group.node(leader).state().nodes.member_count(), 3);
}

#[test]
fn a_ticket_ends_by_the_clock_and_stays_ended_when_the_clock_jumps_back() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, None);
    group.node(leader).note_time(BEGIN_MS + TEN_SECONDS);
    refused_for(&ask(&mut group, leader, "late", admit(4, 4, 1, 1)), "it has expired");
    // The leader writes it down, so that no clock opens it again.
    group.tick(10);
    group.nodes.values_mut().for_each(|node| node.note_time(BEGIN_MS));
    refused_for(&ask(&mut group, leader, "back", admit(4, 4, 1, 1)), "it has expired");
}

#[test]
fn a_clock_that_jumped_back_does_not_let_a_ticket_live_longer_than_it_was_made_to() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, None);
    for _ in 0..TEN_SECONDS / 100 {
        group.tick(1);
        group.nodes.values_mut().for_each(|node| node.note_time(BEGIN_MS - 3_600_000));
    }
    refused_for(&ask(&mut group, leader, "late", admit(4, 4, 1, 1)), "it has expired");
}

#[test]
fn a_member_whose_clock_is_ahead_lets_the_leader_judge() {
    let (mut group, leader) = group();
    let other = group.follower();
    ticket(&mut group, leader, 1, None);
    group.tick(5);
    group.node(other).note_time(BEGIN_MS + 10 * TEN_SECONDS);
    group.tick(5);
    assert!(group.node(other).summary().joinable);
    // It ends by the time that it has known it all the same, and by the leader's word.
    group.cut.insert(other);
    group.tick(110);
    assert!(!group.node(other).summary().joinable);
}

#[test]
fn revoked_tickets_names_and_stores_are_looked_at() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, Some(name(9)));
    ticket(&mut group, leader, 2, None);
    write(&mut group, leader, "revoke", WriteAsk::RevokeTicket { id: id(2) });
    refused_for(&ask(&mut group, leader, "name", admit(4, 4, 1, 1)), "a node named n9");
    refused_for(&ask(&mut group, leader, "revoked", admit(4, 4, 2, 2)), "it was revoked");
    let genesis = genesis(3);
    let phase = Phase::Formed {
        cluster_id: blixard_core::genesis::cluster_id(&genesis),
        genesis,
        raft_id: Some(RaftId(1)),
        your_raft_id: None,
        you_left: false,
        you_were_removed: false,
        applied: 9,
        members: Vec::new(),
    };
    let full = admission(request(identity(9, store(9), phase), 1, 1));
    refused_for(&ask(&mut group, leader, "full", full), "belongs to a cluster already");
}

#[test]
fn only_the_leader_decides() {
    let (mut group, leader) = group();
    let follower = group.follower();
    ticket(&mut group, leader, 1, None);
    let answer = ask(&mut group, follower, "follower", admit(4, 4, 1, 1));
    assert_eq!(answer, AttemptEnd::NotLeader { leader: Some(name(leader)) });
}

#[test]
fn a_member_vouches_for_a_node_that_the_leader_does_not_list() {
    let (mut group, leader) = group();
    let node = identity(4, store(4), Phase::Empty { promise: None });
    let vouched = ask(&mut group, leader, "vouched", MembersAsk::Vouch { node: Box::new(node) });
    assert_eq!(admitted(&vouched), Some(RaftId(4)));
}

/// Asks until there is an answer that is no "try again".
fn remove(group: &mut Group, what: &'static str, ask: MembersAsk) -> AttemptEnd {
    for _ in 0..40 {
        let leader = group.leader();
        group.answers.retain(|(_, name, _)| *name != what);
        group.node(leader).ask(ask.clone(), endpoint(leader), waiter(what));
        group.settle();
        match group.answer(what) {
            Some(AttemptEnd::NotNow(_) | AttemptEnd::NotTaken { .. } | AttemptEnd::NotLeader { .. }) => {
                group.tick(1)
            }
            other => return other.expect("answered").clone(),
        }
    }
    panic!("never decided: {:?}", group.answer(what));
}

fn leaving(raft_id: u8, force: bool, vms: Option<VmsFate>) -> MembersAsk {
    MembersAsk::Remove { raft_id: RaftId(raft_id.into()), force, vms }
}

#[test]
fn a_member_leaves_and_its_words_are_not_believed_any_more() {
    let (mut group, leader) = group();
    let follower = group.follower();
    let done = remove(&mut group, "leave", leaving(follower, false, None));
    assert_eq!(done, AttemptEnd::Decided(Outcome::done(None).into()));
    let state = group.node(leader).state();
    assert!(state.nodes.member_count() == 2 && state.is_kept_out(endpoint(follower)));
    // An older copy of its disk comes back, which has not heard of it, and asks for votes.
    group.start(follower);
    group.cut.insert(leader);
    let asks = (0..60).find_map(|_| {
        group.node(follower).tick();
        let sends = group.turn(follower);
        sends.into_iter().find(|send| send.to == endpoint(leader))
    });
    let frame = asks.expect("it campaigns").frame;
    group.node(leader).handle_raft(endpoint(follower), &frame, false).expect("goes on");
    assert!(group.turn(leader).iter().all(|send| send.to != endpoint(follower)), "no answer");
    // Told so by a member, it ends; told of an earlier time, it does not.
    let cluster_id = group.node(leader).state().cluster_id();
    let said = |cluster_id, raft_id| RemovedFrom { cluster_id, raft_id: RaftId(raft_id) };
    assert!(group.node(follower).note_removed(said(cluster_id, 0)).is_ok());
    let another = said(ClusterId::from_bytes([9; 16]), 99);
    assert!(group.node(follower).note_removed(another).is_ok(), "another cluster's word");
    assert!(group.node(follower).note_removed(said(cluster_id, follower.into())).is_err());
    group.cut.clear();
    group.nodes.remove(&follower);
    let again = remove(&mut group, "again", leaving(follower, false, None));
    assert_eq!(again, AttemptEnd::Decided(Outcome::unchanged(None).into()));
}

#[test]
fn who_was_removed_and_joined_anew_is_let_in_by_who_is_behind_and_was_told_so() {
    let (mut group, leader) = group();
    let gone = group.follower();
    let behind = 6 - leader - gone;
    for (n, what) in [(4, "four"), (5, "five")] {
        ticket(&mut group, leader, n - 3, None);
        assert!(admitted(&ask(&mut group, leader, what, admit(n, n, n - 3, n - 3))).is_some());
        group.start_admitted(n);
    }
    ticket(&mut group, leader, 0, None);
    group.tick(20);
    let done = remove(&mut group, "leave", leaving(gone, false, None));
    assert_eq!(done, AttemptEnd::Decided(Outcome::done(None).into()));
    group.nodes.remove(&gone);
    group.tick(20);
    group.cut.insert(behind);
    assert!(admitted(&ask(&mut group, leader, "anew", admit(gone, 9, 0, 0))).is_some());
    let kept_out = |group: &mut Group| group.node(behind).kept_out().contains_key(&endpoint(gone));
    assert!(kept_out(&mut group) && !group.node(behind).is_peer(endpoint(gone)));
    let phase = |group: &mut Group, n: u8, asker: Option<&Identity>| {
        let node = group.node(n);
        let (raft_id, applied) = (node.summary().raft_id, node.summary().applied);
        phase_of(node.state(), (raft_id, applied), asker)
    };
    let asker = identity(behind, store(behind), phase(&mut group, behind, None));
    let told = identity(leader, store(leader), phase(&mut group, leader, Some(&asker)));
    group.node(behind).note_identity(told, Some(0)).expect("goes on");
    assert!(
        !kept_out(&mut group) && group.node(behind).is_peer(endpoint(gone)),
        "it may be the leader by now"
    );
    group.cut.clear();
    group.tick(30);
    let state = group.node(behind).state();
    assert!(state.member_by_endpoint(endpoint(gone)).is_some() && !kept_out(&mut group));
}

#[test]
fn what_others_told_ends_when_the_log_is_as_new_and_the_peers_are_looked_at_again() {
    let (mut group, leader) = group();
    let behind = group.follower();
    group.cut.insert(behind);
    write(&mut group, leader, "later", forget());
    let node = group.node(leader);
    let (state, applied) = (node.state().clone(), node.summary().applied);
    let asker = identity(behind, store(behind), phase_of(&state, (RaftId(9), 1), None));
    let mut phase = phase_of(&state, (node.summary().raft_id, applied), Some(&asker));
    if let Phase::Formed { members, .. } = &mut phase {
        members[0].endpoint_id = endpoint(7);
    }
    group.node(behind).note_identity(identity(leader, store(leader), phase), Some(0)).expect("goes on");
    assert!(group.node(behind).is_peer(endpoint(7)));
    group.turn(behind);
    let before = group.node(behind).summary().membership_version;
    group.cut.clear();
    group.tick(30);
    assert!(!group.node(behind).is_peer(endpoint(7)));
    assert!(group.node(behind).summary().membership_version > before, "no member came or went");
}

#[test]
fn the_leader_hands_over_before_it_leaves() {
    let (mut group, leader) = group();
    let done = remove(&mut group, "leave", leaving(leader, false, None));
    assert_eq!(done, AttemptEnd::Decided(Outcome::done(None).into()));
    let next = group.leader();
    assert_ne!(next, leader);
    assert_eq!(group.node(next).state().nodes.member_count(), 2);
}

#[test]
fn what_is_not_there_is_removed_by_force_only_and_never_at_the_quorum_s_cost() {
    let (mut group, leader) = group();
    let gone = group.follower();
    group.cut.insert(gone);
    let other = 6 - leader - gone;
    refused_for(&remove(&mut group, "gone", leaving(gone, false, None)), "remove it with --force");
    refused_for(&remove(&mut group, "other", leaving(other, false, None)), "are no quorum");
    refused_for(&remove(&mut group, "vms", leaving(other, true, Some(VmsFate::Keep))), "answers");
    let done = remove(&mut group, "forced", leaving(gone, true, None));
    assert_eq!(done, AttemptEnd::Decided(Outcome::done(None).into()));
}

#[test]
fn a_learner_that_answers_is_not_given_up_with_its_vms() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, None);
    assert!(admitted(&ask(&mut group, leader, "join", admit(4, 4, 1, 1))).is_some());
    group.start_admitted(4);
    group.tick(20);
    for (what, fate) in [("delete", VmsFate::Delete), ("keep", VmsFate::Keep)] {
        refused_for(&remove(&mut group, what, leaving(4, true, Some(fate))), "answers");
    }
    group.cut.insert(4);
    // What it said before the cut does not count any more.
    group.tick(60);
    let done = remove(&mut group, "dead", leaving(4, true, Some(VmsFate::Delete)));
    assert_eq!(done, AttemptEnd::Decided(Outcome::done(None).into()));
}

/// So many ticks pass until a silent node is given up.
fn ticks_until_given_up(has_link: bool) -> u32 {
    let (mut group, leader) = group();
    let silent = group.follower();
    group.cut.insert(silent);
    group.tick(60);
    let linked = (1..=3).filter(|n| has_link || *n != silent).map(endpoint).collect();
    group.node(leader).note_links(linked);
    for ticks in 0..100 {
        let ask = leaving(silent, true, Some(VmsFate::Delete));
        group.answers.clear();
        group.node(leader).ask(ask, endpoint(leader), waiter("removal"));
        group.settle();
        match group.answer("removal") {
            Some(AttemptEnd::NotNow(_)) => group.tick(1),
            Some(AttemptEnd::Decided(AskOutcome::Done { .. })) => return ticks,
            other => panic!("{other:?}"),
        }
    }
    panic!("never: {:?}", group.answer("removal"));
}

#[test]
fn a_silent_node_whose_link_stands_gets_longer_for_a_sign_of_life() {
    assert_eq!(ticks_until_given_up(false), 15);
    assert_eq!(ticks_until_given_up(true), 35, "as long as a dead one's link stands, and not for ever");
}

#[test]
fn vms_of_a_node_that_is_no_member_and_was_there_a_moment_ago_are_not_forgotten() {
    let (mut group, leader) = group();
    let there = identity(4, store(4), Phase::Empty { promise: None });
    group.node(leader).note_identity(there, None).expect("goes on");
    for (what, ticks) in [("at once", 0), ("a little later", 40)] {
        group.tick(ticks);
        let request = WriteRequest { id: "early".parse().expect("an id"), ask: forget() };
        group.node(leader).ask(request, endpoint(leader), waiter(what));
        group.settle();
        let still_there = NotNow::StillThere { node: name(4) };
        assert_eq!(group.answer(what), Some(&AttemptEnd::NotNow(still_there)));
    }
    group.tick(40);
    write(&mut group, leader, "late", forget());
}

fn forget() -> WriteAsk {
    WriteAsk::ForgetVms { node: name(4) }
}

#[test]
fn two_removals_do_not_wait_for_each_other() {
    let (mut group, leader) = group();
    for (n, use_of, what) in [(4, 1, "join 4"), (5, 2, "join 5")] {
        ticket(&mut group, leader, use_of, None);
        assert!(admitted(&ask(&mut group, leader, what, admit(n, n, use_of, use_of))).is_some());
        group.start_admitted(n);
        group.tick(20);
    }
    for _ in 0..40 {
        for (n, what) in [(4, "removal of 4"), (5, "removal of 5")] {
            group.node(leader).ask(leaving(n, false, None), endpoint(leader), waiter(what));
            group.settle();
        }
        group.tick(1);
    }
    assert_eq!(group.node(leader).state().nodes.member_count(), 3);
}

#[test]
fn a_guessed_address_that_is_another_s_is_left_out() {
    let (mut group, leader) = group();
    let theirs =
        group.node(leader).state().nodes.members().next().expect("a member").node.offer.addresses.clone();
    let at = |guessed: bool| {
        let mut comes = request(empty(4, 4), 1, 1);
        comes.node.node.offer.addresses.extend(theirs.clone());
        comes.guessed = if guessed { theirs.clone() } else { Vec::new() };
        comes
    };
    assert!(!theirs.is_empty());
    ticket(&mut group, leader, 1, None);
    let mut none_left = at(true);
    none_left.node.node.offer.addresses.clone_from(&theirs);
    let not_yet = ask(&mut group, leader, "none left", admission(none_left));
    assert_eq!(not_yet, AttemptEnd::NotNow(NotNow::NoAddressOfItsOwn), "its relay may be found yet");
    refused_for(&ask(&mut group, leader, "written", admission(at(false))), &theirs[0].to_string());
    let raft_id = admitted(&ask(&mut group, leader, "guessed", admission(at(true)))).expect("admitted");
    let member = group.node(leader).state().nodes.member(raft_id).expect("a member");
    assert!(
        !member.node.offer.addresses.is_empty() && !member.node.offer.addresses.contains(&theirs[0]),
        "{member:?}"
    );
}

#[test]
fn vms_are_spoken_of_before_their_node_goes() {
    let (mut group, leader) = group();
    let gone = group.follower();
    group.tick(10);
    group.node(leader).note_links((1..=3).map(endpoint).collect());
    group.node(leader).ask(create("web", Some(gone)), endpoint(leader), waiter("web"));
    group.settle();
    assert_eq!(group.node(leader).state().vms.len(), 1, "{:?}", group.answer("web"));
    group.cut.insert(gone);
    let refusal = remove(&mut group, "silent", leaving(gone, true, None));
    refused_for(&refusal, "VMs are placed on");
    let done = remove(&mut group, "kept", leaving(gone, true, Some(VmsFate::Keep)));
    assert_eq!(done, AttemptEnd::Decided(Outcome::done(None).into()));
    assert_eq!(group.node(leader).state().vms.len(), 1);
    // Nobody will report it gone, and a deletion would free its name at once.
    let deletion = WriteAsk::DeleteVm { name: "web".parse().expect("a name") };
    refused_for(&ask(&mut group, leader, "delete", request_of("delete", deletion)), "may still run web");
    write(&mut group, leader, "forget", WriteAsk::ForgetVms { node: name(gone) });
    assert!(group.node(leader).state().vms.is_empty());
}

#[test]
fn a_lost_voter_is_replaced_and_comes_back_as_a_learner() {
    let (mut group, leader) = group();
    ticket(&mut group, leader, 1, None);
    assert!(admitted(&ask(&mut group, leader, "join", admit(4, 4, 1, 1))).is_some());
    group.start_admitted(4);
    group.tick(20);
    let lost = group.follower();
    group.cut.insert(lost);
    group.notices.clear();
    group.tick(700);
    let changes: Vec<_> = group
        .notices
        .iter()
        .filter_map(|(n, notice)| match notice {
            Notice::MembershipChanged(change) if *n == leader => Some(change.clone()),
            _ => None,
        })
        .collect();
    let lost_id = RaftId(lost.into());
    assert_eq!(
        changes,
        [MembershipChange::Promote { raft_id: RaftId(4) }, MembershipChange::Demote { raft_id: lost_id }]
    );
    group.cut.clear();
    group.tick(40);
    assert_eq!(group.node(lost).raft_status().learners, [lost_id]);
}

#[test]
fn a_refusal_says_which_node_is_gone() {
    let (mut group, leader) = group();
    let never = MembersAsk::Remove { raft_id: RaftId(77), force: false, vms: None };
    group.tick(20);
    group.node(leader).ask(never.clone(), endpoint(leader), waiter("never"));
    group.tick(3);
    let end = remove(&mut group, "never again", never);
    assert_eq!(end, AttemptEnd::Decided(Refusal::NodeLeft { raft_id: RaftId(77) }.into()));
}
