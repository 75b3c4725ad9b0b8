//! `blixard cluster disarm`, `arm` and `lease`, and what is asked before VMs of a removed node are forgotten.

use blixard_model::api::{Accepted, DisarmedView, ErrorKind, Listing, NodeView, StatusView};
use blixard_model::{LeaseTerms, LeaseTermsChoice};

use super::fake_agent::{FakeAgent, Reply};
use super::views::{accepted, status};

/// A read that a quorum has confirmed.
fn up_to_date() -> Reply {
    Reply::json(&Listing::<NodeView> { items: Vec::new(), linearizable: true, applied: 17, disarmed: None })
}

fn armed() -> StatusView {
    StatusView { lease_terms: Some(LeaseTerms::DEFAULT.into()), ..status() }
}

/// Disarmed for half an hour, with these nodes still to acknowledge it.
fn disarmed(waits_for: &[&str]) -> StatusView {
    let waits_for = waits_for.iter().map(|name| name.parse().expect("a name")).collect();
    let view = DisarmedView { until_unix_ms: 1_795_000_000_000, left_ms: 1_800_000, waits_for };
    StatusView { disarmed: Some(view), ..armed() }
}

#[test]
fn a_cluster_is_disarmed_once_every_node_has_acknowledged_it() {
    let agent = FakeAgent::script(vec![
        Reply::json(&accepted()),
        up_to_date(),
        Reply::json(&disarmed(&["n2", "n3"])),
        Reply::json(&disarmed(&["n3"])),
        Reply::json(&disarmed(&[])),
    ]);
    let run = agent.run(&["cluster", "disarm", "--for", "30m"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.starts_with("disarmed for 30 min: no VM is started elsewhere"), "{run:?}");
    let asked = agent.asked();
    assert_eq!(asked[..2], ["POST /v1/cluster/disarm", "GET /v1/nodes"]);
    assert!(asked[2..].iter().all(|ask| ask == "GET /v1/status") && asked.len() == 5, "{asked:?}");
}

/// The status of a node that is behind tells of the disarm before.
#[test]
fn who_acknowledges_it_is_asked_once_this_node_knows_of_it() {
    let no_quorum = || Reply::error(503, ErrorKind::Unavailable, "no leader is known");
    let agent = FakeAgent::script(vec![
        Reply::json(&accepted()),
        no_quorum(),
        no_quorum(),
        up_to_date(),
        Reply::json(&disarmed(&[])),
    ]);
    let run = agent.run(&["cluster", "disarm"]);
    assert_eq!(run.code, 0, "{run:?}");
    let asked = agent.asked();
    assert_eq!(asked[1..], ["GET /v1/nodes", "GET /v1/nodes", "GET /v1/nodes", "GET /v1/status"]);

    let mut script = vec![Reply::json(&accepted())];
    script.extend((0..20).map(|_| no_quorum()));
    let run = FakeAgent::script(script).run(&["cluster", "disarm", "--timeout", "1"]);
    assert!(run.code == 1 && run.stderr.contains("this node's log did not acknowledge it"), "{run:?}");
}

#[test]
fn who_does_not_acknowledge_it_is_named() {
    let mut script = vec![Reply::json(&accepted()), up_to_date()];
    script.extend((0..20).map(|_| Reply::json(&disarmed(&["n3"]))));
    let agent = FakeAgent::script(script);
    let run = agent.run(&["cluster", "disarm", "--timeout", "1"]);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("the cluster is disarmed, but n3 did not acknowledge it"), "{run:?}");
    assert!(run.stderr.contains("blixard cluster arm"), "{run:?}");
}

#[test]
fn a_cluster_is_armed_again() {
    let before = Accepted { unchanged: true, ..accepted() };
    let agent = FakeAgent::script(vec![Reply::json(&accepted()), Reply::json(&before)]);
    assert!(agent.run(&["cluster", "arm"]).stdout.starts_with("armed: VMs of lost nodes"));
    assert_eq!(agent.run(&["cluster", "arm"]).stdout, "the cluster was armed before\n");
    assert_eq!(agent.asked(), ["POST /v1/cluster/arm"; 2]);
}

#[test]
fn the_terms_of_leases_are_shown_and_those_that_are_given_are_changed() {
    let shorter = LeaseTermsChoice { lease_ms: 5_000, ..LeaseTerms::DEFAULT.into() };
    let agent = FakeAgent::script(vec![
        Reply::json(&armed()),
        Reply::json(&armed()),
        Reply::json(&shorter),
        Reply::json(&armed()),
    ]);
    let run = agent.run(&["cluster", "lease", "--json"]);
    assert_eq!(run.json::<LeaseTermsChoice>(), LeaseTerms::DEFAULT.into());
    let run = agent.run(&["cluster", "lease", "--lease", "5s"]);
    assert!(run.stdout.starts_with("lease      5.0 s\nstop time  5.0 s\n"), "{run:?}");
    assert!(run.stdout.contains("start elsewhere 12 s after"), "{run:?}");
    let run = agent.run(&["cluster", "lease", "--lease", "1s"]);
    assert!(run.code == 2 && run.stderr.contains("a lease is 3 to 300 s long"), "{run:?}");
    let asked = agent.asked();
    assert_eq!(asked[1..3], ["GET /v1/status", "PATCH /v1/cluster/lease"]);
    assert_eq!(asked.len(), 4, "what cannot be is not sent: {asked:?}");
}

#[test]
fn the_vms_of_a_removed_node_are_forgotten_at_once_only_on_somebodys_word() {
    let agent = FakeAgent::script(vec![Reply::json(&accepted()), Reply::json(&accepted())]);
    let remove = |flags: &[&str]| agent.run(&[&["node", "remove", "n3", "--force"], flags].concat());
    assert_eq!(remove(&["--vms", "delete"]).code, 0);
    assert_eq!(remove(&["--vms", "delete", "--i-know-it-is-off"]).code, 0);
    let fates = ["retire", "delete"].map(|fate| format!("DELETE /v1/nodes/n3?force=true&vms={fate}"));
    assert_eq!(agent.asked(), fates);
    assert_eq!(remove(&["--vms", "keep", "--i-know-it-is-off"]).code, 2);
    assert_eq!(remove(&["--i-know-it-is-off"]).code, 2);
}
