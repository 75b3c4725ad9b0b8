//! What peers ask a host that is a member.

use blixard_model::report::NodeReport;
use blixard_model::wire::{AgedReport, PeerRequest, PeerResponse};
use blixard_node::host::{Input, PeerCallId};

use super::asked;
use super::hosts::{Hosts, at};
use crate::group::{create, endpoint, name};

#[test]
fn a_report_of_another_node_is_declined() {
    let mut hosts = Hosts::formed(3);
    let now = at(hosts.now_ms);
    let said = |of: u8| {
        let report = NodeReport {
            node: name(of),
            vms: Vec::new(),
            problem: Some("said by 2".to_owned()),
            fences: None,
        };
        PeerRequest::Report { aged: AgedReport { report, age_ms: 0 }, page: None }
    };
    let host = &mut hosts.machine(1).host;
    assert!(matches!(asked(host, now, 901, said(3)), PeerResponse::Declined { .. }));
    assert!(matches!(asked(host, now, 902, said(2)), PeerResponse::Noted));
    let reports = host.member().expect("a member").reports(now);
    let by_two = reports.iter().filter(|aged| aged.report.problem.as_deref() == Some("said by 2"));
    assert_eq!(by_two.map(|aged| &aged.report.node).collect::<Vec<_>>(), [&name(2)]);
}

#[test]
fn a_change_of_a_peer_that_gave_up_is_waited_for_no_more() {
    let mut hosts = Hosts::formed(3);
    let leader = hosts.leader();
    let other = (1..=3).find(|n| *n != leader).expect("one follows");
    // It cannot be committed.
    hosts.cut.extend((1..=3).filter(|n| *n != leader));
    let request = Box::new(PeerRequest::Propose { request: create("web", None), timeout_ms: 60_000 });
    let (call, from) = (PeerCallId(901), endpoint(other));
    hosts.give(leader, Input::PeerAsked { call, from, request });
    let waiting = |hosts: &Hosts| hosts.host(leader).member().expect("a member").replica().waiting().0;
    assert_eq!(waiting(&hosts), 1);
    hosts.give(leader, Input::PeerGaveUp { call });
    assert_eq!(waiting(&hosts), 0);
}
