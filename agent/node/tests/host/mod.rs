//! A host's whole life: inputs in, effects out.

mod hosts;
mod leases;
mod peers;
mod stops;
mod told;
mod upgrades;

use blixard_consensus::Limits;
use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::Action;
use blixard_model::api::RetryKind;
use blixard_model::backoff::ANNOUNCE;
use blixard_model::formation::Phase;
use blixard_model::removal::RemovedFrom;
use blixard_model::report::{LastEnd, NodeReport, ObservedState, VmReport};
use blixard_model::wire::{
    AgedReport, FRAME_LEN_MAX, JoinResponse, KeyHeldTwice, PeerRequest, PeerResponse, ProgressReport,
    ReportPage,
};
use blixard_model::{
    BootId, Capacity, ClusterId, Contact, JoinTicket, MembersAsk, Outcome, RaftId, Refusal, TicketId,
    TicketSecret, WriteAsk, WriteRequest,
};
use blixard_node::Notice;
use blixard_node::host::disk::{Write, Written};
use blixard_node::host::{
    Answer, Effect, Found, HolderRefusal, Host, HostConfig, HostEnd, Input, Moment, NodeRemoval, PeerCallId,
    WaiterId, Want,
};
use blixard_node::joining::JoinFailure;

use crate::group::{CAPACITY, address, create, endpoint, identity, name, store};
use hosts::{Hosts, at, config};

#[test]
fn empty_hosts_form_one_cluster_and_a_write_at_a_follower_is_brought_to_the_leader() {
    let mut hosts = Hosts::formed(3);
    let follower = (1..=3).find(|n| *n != hosts.leader()).expect("one follows");
    let waiter = hosts.change(follower, create("web", Some(follower)));
    hosts.until("it is answered", |hosts| hosts.answers.contains_key(&waiter));
    let done = Answer::Changed(Ok(Outcome::done(Some(name(follower)))));
    assert_eq!(hosts.answers[&waiter], done);
    hosts.until("all have it", |hosts| {
        (1..=3).all(|n| hosts.host(n).member().is_some_and(|member| member.state().vms.len() == 1))
    });
}

/// What comes of a question of a host that this one may ask.
fn asked(host: &mut Host, now: Moment, call: u64, request: PeerRequest) -> PeerResponse {
    let (call, request) = (PeerCallId(call), Box::new(request));
    host.handle(now, Input::PeerAsked { call, from: endpoint(2), request }).expect("goes on");
    let effects = host.turn(now).expect("goes on");
    let answer = effects.into_iter().find_map(|effect| match effect {
        Effect::AnswerPeer { call: of, response } if of == call => Some(*response),
        _ => None,
    });
    answer.expect("answered")
}

#[test]
fn a_promise_is_told_once_it_is_durable_and_not_before() {
    let mut host = Host::new(config(1, 3), Found::default(), at(1_000)).expect("begins");
    let up = [endpoint(2), endpoint(3)].into();
    host.handle(at(1_000), Input::Links { up, removed: Vec::new() }).expect("goes on");
    let questions = host.turn(at(1_000)).expect("goes on");
    let calls = questions.into_iter().filter_map(|effect| match effect {
        Effect::AskPeer { call, to, .. } => Some((call, to.as_bytes()[0])),
        _ => None,
    });
    for (call, n) in calls.collect::<Vec<_>>() {
        let me = Box::new(identity(n, store(n), Phase::Empty { promise: None }));
        let answer = Ok(Box::new(PeerResponse::Identity { me, held_twice: Vec::new() }));
        host.handle(at(1_010), Input::PeerAnswered { call, answer }).expect("goes on");
    }
    let effects = host.turn(at(1_010)).expect("goes on");
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Write(Write::Promise(_)))), "{effects:?}");
    let me = identity(2, store(2), Phase::Empty { promise: None });
    let promise = |response| match response {
        PeerResponse::Identity { me, .. } => match me.phase {
            Phase::Empty { promise } => promise,
            Phase::Formed { .. } => None,
        },
        _ => None,
    };
    let before = asked(&mut host, at(1_020), 1, PeerRequest::Identify { me: me.clone() });
    assert_eq!(promise(before), None, "it is not on disk");
    host.handle(at(1_030), Input::Written(Box::new(Written::Promise))).expect("goes on");
    let after = asked(&mut host, at(1_040), 2, PeerRequest::Identify { me });
    assert!(promise(after).is_some());
}

#[test]
fn reports_that_are_not_taken_are_sent_less_often_and_another_leader_is_told_at_once() {
    let mut hosts = Hosts::formed(3);
    hosts.loses = |input| match input {
        Input::PeerAsked { request, .. } => matches!(**request, PeerRequest::Report { .. }),
        _ => false,
    };
    let leader = hosts.leader();
    let follower = (1..=3).find(|n| *n != leader).expect("one follows");
    let failed = |hosts: &Hosts| hosts.trouble(follower, RetryKind::Report).map_or(0, |it| it.failures);
    hosts.until("it fails again and again", |hosts| failed(hosts) >= 4);
    let seen = hosts.trouble(follower, RetryKind::Report).expect("it fails");
    assert_eq!(seen.peer, Some(endpoint(leader)));
    let longest = hosts.now_ms + ANNOUNCE.longest_ms;
    assert!(seen.next_try_ms.is_none_or(|at| at <= longest), "{seen:?}");

    hosts.loses = |_| false;
    hosts.cut.insert(leader);
    hosts.link_all();
    hosts.until("another one leads", |hosts| {
        let summary = hosts.host(follower).member().map(|member| member.replica().summary().clone());
        summary.and_then(|it| it.leader).is_some_and(|(_, id)| id != endpoint(leader))
    });
    hosts.pass(200);
    assert_eq!(hosts.trouble(follower, RetryKind::Report), None, "a new beginning");
}

/// So many failed VMs, each with a reason as long as one may be.
fn failing(of: u8, count: usize, word: &str) -> NodeReport {
    let vm = |n: usize| VmReport {
        name: format!("vm{n:04}").parse().expect("a name"),
        state: ObservedState::Failed,
        main_pid: None,
        revision: 0,
        reason: Some(format!("{word:\"<400}")),
        last_end: Some(LastEnd { why: format!("{word:\"<400}"), at_unix_ms: 1, failures: 9 }),
    };
    NodeReport { node: name(of), vms: (0..count).map(vm).collect(), problem: None, fences: None }
}

/// The VMs of node `of` as node `at` is told of them, with their reasons.
fn told(hosts: &mut Hosts, at: u8, of: u8) -> Vec<String> {
    let waiter = hosts.want(at, Want::Reports);
    hosts.until("reports are told", |hosts| hosts.answers.contains_key(&waiter));
    let Some(Answer::Reports(reports)) = hosts.answers.remove(&waiter) else { panic!("no reports") };
    let vms = reports.into_iter().filter(|aged| aged.report.node == name(of));
    vms.flat_map(|aged| aged.report.vms).map(|vm| vm.reason.unwrap_or_default()).collect()
}

#[test]
fn reports_that_are_longer_than_a_frame_are_told_in_pages_whole_or_not_at_all() {
    const VMS: usize = 2_300;
    let mut hosts = Hosts::formed(3);
    let leader = hosts.leader();
    let mut followers = (1..=3).filter(|n| *n != leader);
    let (holder, other) = (followers.next().expect("one"), followers.next().expect("another"));
    hosts.frame_len_max = FRAME_LEN_MAX;
    hosts.cut.insert(holder);
    let say = |hosts: &mut Hosts, word: &str, pages: std::ops::Range<u32>| {
        let whole = failing(holder, VMS, word);
        for number in pages {
            let vms = whole.vms.chunks(VMS.div_ceil(4)).nth(number as usize).unwrap_or_default().to_vec();
            let aged = AgedReport { report: NodeReport { vms, ..whole.clone() }, age_ms: 5 };
            let page = Some(ReportPage { report: u64::from(word.as_bytes()[0]), number, of: 4 });
            let request = Box::new(PeerRequest::Report { aged, page });
            let call = PeerCallId(u64::MAX);
            hosts.give(leader, Input::PeerAsked { call, from: endpoint(holder), request });
        }
    };
    let is_all = |vms: &[String], word: &str| vms.len() == VMS && vms.iter().all(|why| why.starts_with(word));
    say(&mut hosts, "first", 0..4);
    assert!(is_all(&told(&mut hosts, other, holder), "first"));
    // A page is lost on its way to the leader: the report before stays as it was.
    say(&mut hosts, "second", 0..1);
    say(&mut hosts, "second", 2..4);
    assert!(is_all(&told(&mut hosts, other, holder), "first"), "no mix");
    say(&mut hosts, "third", 0..4);
    assert!(is_all(&told(&mut hosts, other, holder), "third"));
    // A page is lost on its way from the leader: nothing is said of that node rather than half of it.
    hosts.loses = |input| match input {
        Input::PeerAsked { request, .. } => {
            matches!(&**request, PeerRequest::Reports { from: Some(from) } if from.vm > 0)
        }
        _ => false,
    };
    assert_eq!(told(&mut hosts, other, holder), Vec::<String>::new());
}

#[test]
fn what_comes_while_the_log_is_written_waits_for_that() {
    let mut hosts = Hosts::formed(1);
    let now = at(hosts.now_ms);
    let host = &mut hosts.machine(1).host;
    let wanted = |waiter: u64, vm: &str| Input::Wanted {
        waiter: WaiterId(waiter),
        want: Want::Change(Box::new(create(vm, None).into())),
        patience_ms: 5_000,
    };
    host.handle(now, wanted(901, "a")).expect("goes on");
    let effects = host.turn(now).expect("goes on");
    assert!(matches!(effects.last(), Some(Effect::Write(Write::Log(_)))), "{effects:?}");
    assert!(!host.wants_turn());
    host.handle(now, Input::Tick).expect("held");
    host.handle(now, wanted(902, "b")).expect("held");
    assert!(host.turn(now).expect("nothing").is_empty());
    let mut answered = Vec::new();
    host.handle(now, Input::Written(Box::new(Written::Log))).expect("goes on");
    while host.wants_turn() {
        for effect in host.turn(now).expect("goes on") {
            match effect {
                Effect::Write(_) => {
                    host.handle(now, Input::Written(Box::new(Written::Log))).expect("goes on");
                }
                Effect::Answer { waiter, answer: Answer::Changed(Ok(_)) } => answered.push(waiter.0),
                _ => {}
            }
        }
    }
    assert_eq!(answered, [901, 902]);
}

#[test]
fn a_host_that_was_carried_into_another_boot_ends() {
    let mut host = Host::new(config(1, 3), Found::default(), at(1_000)).expect("begins");
    let elsewhere = Moment { boot_id: BootId::from_text("0b00-7"), ..at(2_000) };
    assert!(matches!(host.handle(elsewhere, Input::Tick), Err(HostEnd::AnotherBoot)));
    assert!(matches!(host.turn(elsewhere), Err(HostEnd::AnotherBoot)));
    assert!(host.handle(at(2_000), Input::Tick).is_ok());
}

#[test]
fn a_host_that_learns_that_it_was_removed_answers_who_asked_for_it_and_goes_on_to_say_so() {
    let mut hosts = Hosts::formed(3);
    let leaving = (1..=3).find(|n| *n != hosts.leader()).expect("one follows");
    let member = hosts.host(leaving).member().expect("a member");
    let (cluster_id, raft_id) = (member.state().cluster_id(), member.replica().summary().raft_id);
    hosts.loses = |input| matches!(input, Input::PeerAnswered { .. });
    let own = hosts.change(leaving, MembersAsk::Remove { raft_id, force: false, vms: None });
    let other = hosts.change(leaving, create("web", None));
    let removed = vec![RemovedFrom { cluster_id, raft_id }];
    hosts.give(leaving, Input::Links { up: [].into(), removed });
    assert_eq!(hosts.answers[&own], Answer::Changed(Ok(Outcome::done(None))));
    assert!(matches!(&hosts.answers[&other], Answer::Changed(Err(_))), "{:?}", hosts.answers[&other]);
    assert_eq!(hosts.host(leaving).removed().expect("removed").cluster_id(), cluster_id);
    let told = |notice: &Notice| matches!(notice, Notice::Removed { cluster_id: of } if *of == cluster_id);
    assert!(hosts.machine(leaving).notices.iter().any(told));
    let late = RemovedFrom { cluster_id, raft_id: RaftId(1) };
    hosts.give(leaving, Input::Links { up: [].into(), removed: vec![late] });
    let waiter = hosts.change(leaving, create("late", None));
    let Answer::Changed(Err(why)) = &hosts.answers[&waiter] else { panic!("not refused") };
    assert!(why.to_string().contains("removed from its cluster"), "{why}");
}

#[test]
fn a_host_that_was_removed_stops_the_vms_that_still_run_on_its_machine() {
    let mut hosts = Hosts::formed(3);
    let gone = (1..=3).find(|n| *n != hosts.leader()).expect("a follower");
    let unit = |vm: &str, state| ObservedUnit {
        name: vm.parse().expect("a name"),
        state,
        order: None,
        main_pid: None,
        status: None,
        ended: None,
    };
    hosts.cut.insert(gone);
    hosts.link_all();
    hosts.pass(3_000);
    let of = hosts.host(gone).member().expect("a member");
    let (cluster_id, raft_id) = (of.state().cluster_id(), of.replica().summary().raft_id);
    hosts.machine(gone).units = vec![unit("web", ObservedState::Running), unit("db", ObservedState::Stopped)];
    hosts.machine(gone).begun.clear();
    hosts.machine(gone).actions_fail = Some("access denied");
    let ids = (hosts.leader(), raft_id);
    let ask = MembersAsk::Remove { raft_id: ids.1, force: true, vms: None };
    let waiter = hosts.change(ids.0, ask);
    hosts.until("it is removed", |hosts| hosts.answers.contains_key(&waiter));
    hosts.give(
        gone,
        Input::Links { up: Default::default(), removed: vec![RemovedFrom { cluster_id, raft_id }] },
    );
    assert!(hosts.host(gone).removed().is_some());
    hosts.until("it stops what runs", |hosts| !hosts.machines[&gone].begun.is_empty());
    hosts.pass(120_000);
    let tries = hosts.machines[&gone].begun.len();
    assert!((6..=10).contains(&tries), "the pauses grow: {tries}");
    let failed =
        |notice: &&Notice| matches!(notice, Notice::ActionFailed { why, .. } if why == "access denied");
    assert_eq!(hosts.machines[&gone].notices.iter().filter(failed).count(), 1, "told once");
    hosts.machine(gone).units.clear();
    let begun = hosts.machines[&gone].begun.len();
    hosts.pass(5_000);
    let all = &hosts.machines[&gone].begun;
    assert_eq!(all.len(), begun, "nothing is left to stop");
    assert!(all.iter().all(|action| *action == Action::Stop("web".parse().expect("a name"))), "{all:?}");
}

#[test]
fn who_tells_a_host_that_it_was_removed_is_answered() {
    let mut hosts = Hosts::formed(3);
    let removed = (1..=3).find(|n| *n != hosts.leader()).expect("one follows");
    let teller = (1..=3).find(|n| *n != removed).expect("another");
    let now = at(hosts.now_ms);
    let host = &mut hosts.machine(removed).host;
    let state = host.member().expect("a member").state();
    let phase = Phase::Formed {
        cluster_id: state.cluster_id(),
        genesis: state.genesis.clone(),
        raft_id: None,
        your_raft_id: None,
        you_left: true,
        you_were_removed: true,
        applied: 0,
        members: Vec::new(),
    };
    let me = identity(teller, store(teller), phase);
    let (call, from) = (PeerCallId(1), endpoint(teller));
    let request = Box::new(PeerRequest::Identify { me });
    host.handle(now, Input::PeerAsked { call, from, request }).expect("goes on");
    let answers = |effect: &Effect| matches!(effect, Effect::AnswerPeer { call: of, .. } if *of == call);
    assert!(host.turn(now).expect("goes on").iter().any(answers));
    assert!(host.removed().is_some());
}

/// Why the first VM of the only host does what it does.
fn reason(hosts: &Hosts) -> String {
    let member = hosts.host(1).member().expect("a member");
    let reports = member.reports(at(hosts.now_ms));
    reports[0].report.vms.first().and_then(|vm| vm.reason.clone()).unwrap_or_default()
}

#[test]
fn a_vm_that_does_not_start_says_why_at_once_and_its_last_words_when_they_are_there() {
    let mut hosts = Hosts::formed(1);
    hosts.machine(1).actions_fail = Some("exited 1");
    let waiter = hosts.change(1, create("web", None));
    hosts.until("it is made", |hosts| hosts.answers.contains_key(&waiter));
    hosts.until("it failed", |hosts| !hosts.machines[&1].begun.is_empty());
    hosts.pass(100);
    assert!(reason(&hosts).starts_with("exited 1 (next try"), "{}", reason(&hosts));
    let vm = hosts.machine(1).consoles.remove(0);
    hosts.give(1, Input::Console { vm, lines: vec!["no such kernel".to_owned()] });
    hosts.pass(100);
    assert!(reason(&hosts).starts_with("exited 1: no such kernel (next try"), "{}", reason(&hosts));
}

#[test]
fn a_stop_that_fails_is_paced_told_once_and_the_reason() {
    let mut hosts = Hosts::formed(1);
    let stray = ObservedUnit {
        name: "web".parse().expect("a name"),
        state: ObservedState::Running,
        order: None,
        main_pid: Some(7),
        status: None,
        ended: None,
    };
    hosts.machine(1).units = vec![stray];
    let made = hosts.change(1, create("web", None));
    hosts.until("it is made", |hosts| hosts.answers.contains_key(&made));
    hosts.machine(1).begun.clear();
    hosts.machine(1).actions_fail = Some("access denied");
    let ask = WriteAsk::StopVm { name: "web".parse().expect("a name") };
    let stopped = hosts.change(1, WriteRequest { id: "stop-web".parse().expect("a request id"), ask });
    hosts.until("it is told to stop", |hosts| hosts.answers.contains_key(&stopped));
    hosts.pass(10_000);
    assert_eq!(hosts.machines[&1].begun.len(), 4, "at 0, 1, 3 and 7 s: {:?}", hosts.machines[&1].begun);
    assert!(reason(&hosts).starts_with("it cannot be stopped: access denied (next"), "{}", reason(&hosts));
    let failed = |notice: &&Notice| matches!(notice, Notice::ActionFailed { .. });
    assert_eq!(hosts.machines[&1].notices.iter().filter(failed).count(), 1);
}

#[test]
fn a_node_is_removed_by_its_name_once_and_an_unknown_one_is_refused() {
    let mut hosts = Hosts::formed(3);
    let leader = hosts.leader();
    let (asked, leaving) = match leader {
        1 => (2, 3),
        2 => (1, 3),
        _ => (1, 2),
    };
    let remove = |of| NodeRemoval { name: of, force: false, vms: None, id: "r1".parse().expect("an id") };
    let ends = |hosts: &mut Hosts, of| {
        let waiter = hosts.want(asked, Want::RemoveNode(Box::new(remove(of))));
        hosts.until("it ends", |hosts| hosts.answers.contains_key(&waiter));
        hosts.answers[&waiter].clone()
    };
    let unknown = Refusal::NodeNotFound { node: name(9) };
    assert_eq!(ends(&mut hosts, name(9)), Answer::Changed(Ok(unknown.into())));
    assert_eq!(ends(&mut hosts, name(leaving)), Answer::Changed(Ok(Outcome::done(None))));
    assert_eq!(ends(&mut hosts, name(leaving)), Answer::Changed(Ok(Outcome::unchanged(None))));
    // Without a quorum nobody knows who is a member.
    hosts.cut.insert(leader);
    hosts.link_all();
    hosts.pass(3_000);
    let Answer::Changed(Err(why)) = ends(&mut hosts, name(leader)) else { panic!("decided") };
    assert!(why.to_string().contains("no quorum"), "{why}");
}

#[test]
fn the_end_of_a_vm_is_reported_at_once_and_its_last_words_when_they_are_there() {
    let mut hosts = Hosts::formed(1);
    let waiter = hosts.change(1, create("web", None));
    hosts.until("it is made", |hosts| hosts.answers.contains_key(&waiter));
    let web: blixard_model::VmName = "web".parse().expect("a name");
    let unit = |state| ObservedUnit {
        name: web.clone(),
        state,
        order: None,
        main_pid: Some(7),
        status: None,
        ended: None,
    };
    hosts.machine(1).units = vec![unit(ObservedState::Running)];
    hosts.pass(2_500);
    assert_eq!(reason(&hosts), "");
    hosts.machine(1).units.clear();
    hosts.give(1, Input::UnitsChanged);
    hosts.pass(100);
    assert!(reason(&hosts).starts_with("ended by itself (next try"), "{}", reason(&hosts));
    assert_eq!(std::mem::take(&mut hosts.machine(1).consoles), std::slice::from_ref(&web));
    let lines = vec!["kernel panic".to_owned(), "the end".to_owned()];
    hosts.give(1, Input::Console { vm: web, lines });
    hosts.pass(100);
    assert!(reason(&hosts).starts_with("ended by itself: kernel panic | the end"), "{}", reason(&hosts));
}

#[test]
fn a_ticket_that_is_put_there_later_is_found_and_used() {
    let mut host = Host::new(config(4, 0), Found::default(), at(1_000)).expect("begins");
    let wakes = |host: &mut Host, ms: u64| {
        host.handle(at(ms), Input::Wake).expect("goes on");
        host.turn(at(ms)).expect("goes on")
    };
    let reads = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::ReadTicket));
    assert!(!reads(&wakes(&mut host, 1_000)), "it was read at the start");
    assert!(reads(&wakes(&mut host, 6_000)));
    let missing = Some(Err("/secret: No such file".to_owned()));
    host.handle(at(6_000), Input::TicketRead(Box::new(missing))).expect("goes on");
    assert_eq!(host.unborn().expect("no cluster").waiting_for(), ["/secret: No such file"]);
    let no_round = |effect: &Effect| !matches!(effect, Effect::Notice(Notice::NotFormed(_)));
    assert!(host.turn(at(6_000)).expect("goes on").iter().all(no_round), "a look at a file is no round");
    assert!(reads(&wakes(&mut host, 11_000)), "and again");
    let contact = Contact { endpoint_id: endpoint(1), addresses: Vec::new(), relay_url: None };
    let ticket = JoinTicket {
        cluster_id: ClusterId::from_bytes([7; 16]),
        id: TicketId::from_bytes([7; 8]),
        secret: TicketSecret::from_bytes([7; 32]),
        contacts: vec![contact.clone()],
    };
    let found = |ticket: &JoinTicket| Input::TicketRead(Box::new(Some(Ok(ticket.clone()))));
    host.handle(at(11_000), found(&ticket)).expect("goes on");
    let effects = host.turn(at(11_000)).expect("goes on");
    let asks = |effect: &Effect| match effect {
        Effect::AskToJoin { call, contact: whom, .. } if *whom == contact => Some(*call),
        _ => None,
    };
    let call = effects.iter().find_map(asks).expect("asks");
    // It admits nobody, and its file stays: it is not tried again and again.
    let refusal = Refusal::Ticket { why: "it has expired".to_owned().into() };
    let answer = Ok(Box::new(JoinResponse::Refused { refusal }));
    host.handle(at(11_500), Input::JoinAnswered { call, answer }).expect("goes on");
    host.turn(at(11_500)).expect("goes on");
    host.handle(at(17_000), found(&ticket)).expect("goes on");
    let effects = host.turn(at(17_000)).expect("goes on");
    assert_eq!(effects.iter().find_map(asks), None, "{effects:?}");
    let another = JoinTicket { id: TicketId::from_bytes([8; 8]), ..ticket };
    host.handle(at(17_000), found(&another)).expect("goes on");
    let effects = host.turn(at(17_000)).expect("goes on");
    assert!(effects.iter().find_map(asks).is_some(), "another one is");
}

#[test]
fn a_change_that_ends_beside_a_write_leads_to_the_next_one_after_it() {
    // The log is cut, with a write of its own, in the very step that applies an entry.
    let limits = Limits { compact_entries: 1, keep_entries: 1, ..Limits::default() };
    for members in [1, 3] {
        let mut hosts = Hosts::formed_with(members, limits);
        let leader = hosts.leader();
        let mut waiters = Vec::new();
        for n in 0..40_u8 {
            // What is offered changes again before the log has what was offered before.
            for changed in 0..2 {
                let mut offer = config(leader, members).node.offer;
                let memory_mib = CAPACITY.memory_mib + 2 * u64::from(n) + changed;
                offer.capacity = Some(Capacity { memory_mib, ..CAPACITY });
                let now = at(hosts.now_ms);
                let host = &mut hosts.machine(leader).host;
                host.handle(now, Input::Offer(Box::new(offer))).expect("goes on");
            }
            waiters.push(hosts.change(leader, create(&format!("v{n}"), None)));
            let id = format!("r{n}").parse().expect("an id");
            let remove = NodeRemoval { name: name(9), force: false, vms: None, id };
            waiters.push(hosts.want(leader, Want::RemoveNode(Box::new(remove))));
            hosts.pass(30);
        }
        hosts.until("all are answered", |hosts| waiters.iter().all(|it| hosts.answers.contains_key(it)));
        let offered = 79 + CAPACITY.memory_mib;
        hosts.until("the log has the last offer", |hosts| {
            let member = hosts.host(leader).member();
            let capacity = member.and_then(|member| member.state().capacity_of(&name(leader)));
            capacity.is_some_and(|capacity| capacity.memory_mib == offered)
        });
    }
}

#[test]
fn a_link_that_came_up_makes_the_next_round_come_soon() {
    let mut host = Host::new(config(1, 3), Found::default(), at(1_000)).expect("begins");
    for _ in 0..8 {
        let due = host.wake_at_ms().expect("it asks again");
        host.handle(at(due), Input::Wake).expect("goes on");
        host.turn(at(due)).expect("goes on");
    }
    let ended = host.troubles(at(1_000)).first().expect("it waits").clone();
    assert!(ended.failures >= 8 && ended.what == RetryKind::Form, "{ended:?}");
    let slow = host.wake_at_ms().expect("planned");
    host.handle(at(slow - 600), Input::Links { up: [endpoint(2)].into(), removed: Vec::new() })
        .expect("goes on");
    assert!(host.wake_at_ms().expect("planned") < slow - 200, "{slow}");
}

/// A ticket of a cluster with these members.
fn held_ticket(contacts: &[u8]) -> JoinTicket {
    let contact = |n: &u8| Contact { endpoint_id: endpoint(*n), addresses: Vec::new(), relay_url: None };
    JoinTicket {
        cluster_id: ClusterId::from_bytes([7; 16]),
        id: TicketId::from_bytes([7; 8]),
        secret: TicketSecret::from_bytes([7; 32]),
        contacts: contacts.iter().map(contact).collect(),
    }
}

#[test]
fn a_ticket_that_every_member_turns_away_is_named_as_the_problem_and_tried_on() {
    let ticket = Some(Ok(held_ticket(&[1, 2])));
    let mut host =
        Host::new(HostConfig { ticket, ..config(4, 0) }, Found::default(), at(1_000)).expect("begins");
    let mut now = 1_000;
    let mut asked = |host: &mut Host, ended: Result<Box<JoinResponse>, JoinFailure>| {
        let effects = host.turn(at(now)).expect("goes on");
        let asks = |effect: &Effect| match effect {
            Effect::AskToJoin { call, .. } => Some(*call),
            _ => None,
        };
        let call = effects.iter().find_map(asks).expect("asks");
        host.handle(at(now), Input::JoinAnswered { call, answer: ended }).expect("goes on");
        now += 10_000;
        host.unborn().expect("no cluster").ticket_problem().map(str::to_owned)
    };
    let closed = || Err(JoinFailure::NotServed("no ticket is open".to_owned()));
    assert_eq!(asked(&mut host, closed()), None, "one of two");
    let problem = asked(&mut host, closed()).expect("both");
    assert!(problem.contains("no ticket is open in that cluster any more"), "{problem}");
    let waits = host.unborn().expect("no cluster").waiting_for().join("\n");
    assert!(
        waits.contains("used or revoked") && waits.contains("`blixard cluster ticket create`"),
        "{waits}"
    );
    let later = JoinResponse::Later { why: "a change is under way".to_owned(), known_as: None };
    assert_eq!(asked(&mut host, Ok(Box::new(later))), None, "they were behind");
    assert_eq!(
        host.unborn().expect("no cluster").waiting_for(),
        ["a member of cluster 0707070707 to let this node in"]
    );
    let refusal = Refusal::Ticket { why: "it was revoked".to_owned().into() };
    asked(&mut host, Ok(Box::new(JoinResponse::Refused { refusal })));
    host.turn(at(1_000_000)).expect("goes on");
    let waits = host.unborn().expect("no cluster").waiting_for().join("\n");
    assert_eq!(
        waits,
        "another ticket (the ticket is not valid: it was revoked): `blixard cluster ticket create` on a \
         member makes one, and `blixard cluster join` here takes it"
    );
}

#[test]
fn a_listed_host_that_was_removed_waits_for_a_ticket_and_says_so() {
    let mut host = Host::new(config(1, 3), Found::default(), at(1_000)).expect("begins");
    let from = RemovedFrom { cluster_id: ClusterId::from_bytes([7; 16]), raft_id: RaftId(1) };
    let waits = |host: &Host| host.unborn().expect("no cluster").waiting_for().join("\n");
    host.turn(at(1_000)).expect("goes on");
    host.handle(at(1_100), Input::Links { up: [].into(), removed: vec![from] }).expect("goes on");
    let said = waits(&host);
    assert!(said.contains("an operator removed this node from its cluster (0707070707)"), "{said}");
    for _ in 0..3 {
        let due = host.wake_at_ms().expect("it asks again");
        host.handle(at(due), Input::Wake).expect("goes on");
        host.turn(at(due)).expect("goes on");
        assert_eq!(waits(&host), said, "also after a round");
    }
    host.handle(at(9_000), Input::Links { up: [].into(), removed: Vec::new() }).expect("goes on");
    host.turn(at(9_000)).expect("goes on");
    assert!(waits(&host).contains("has not answered"), "{}", waits(&host));
}
