//! Status, lists and show.

use blixard_model::api::{Listing, NodeView, RetryKind, RetryView, StatusView, VmView};
use blixard_model::report::ObservedState::Running;
use blixard_model::vm::Desired;

use super::fake_agent::{FakeAgent, Reply};
use super::views;

fn web() -> VmView {
    views::vm("web", Desired::Running, Running)
}

#[test]
fn json_is_exactly_the_shape_of_the_api() {
    let nodes = views::listing(vec![views::node("n1")]);
    let vms = views::listing(vec![web()]);
    let agent = FakeAgent::script(vec![
        Reply::json(&views::status()),
        Reply::json(&nodes),
        Reply::json(&vms),
        Reply::json(&web()),
    ]);
    assert_eq!(agent.run(&["--json", "status"]).json::<StatusView>(), views::status());
    assert_eq!(agent.run(&["node", "--json", "list"]).json::<Listing<NodeView>>(), nodes);
    assert_eq!(agent.run(&["vm", "list", "--json"]).json::<Listing<VmView>>(), vms);
    assert_eq!(agent.run(&["vm", "show", "web", "--json"]).json::<VmView>(), web());
    assert_eq!(agent.asked(), ["GET /v1/status", "GET /v1/nodes", "GET /v1/vms", "GET /v1/vms/web"]);
}

#[test]
fn people_get_tables_without_colours() {
    let agent = FakeAgent::script(vec![
        Reply::json(&views::status()),
        Reply::json(&views::listing(vec![views::node("n1")])),
        Reply::json(&views::listing(vec![web()])),
        Reply::json(&web()),
    ]);
    let commands: [(&[&str], &str); 4] = [
        (&["status"], "n9 is listed but no member"),
        (&["node", "list"], "NAME  ROLE   LEADER  REACHABLE  BEHIND"),
        (&["vm", "list"], "web   running  running  n1"),
        (&["vm", "show", "web"], "KERNEL      /boot/vmlinux"),
    ];
    for (args, needle) in commands {
        let run = agent.run(args);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
        assert!(run.stdout.contains(needle) && !run.stdout.contains('\u{1b}'), "{needle}: {run:?}");
    }
}

#[test]
fn status_shows_retries_and_reads_an_older_agent_that_sends_none() {
    let retry = RetryView {
        what: RetryKind::Connect,
        peer: Some("n2".parse().expect("name")),
        failures: 12,
        next_try_in_ms: Some(4_000),
        last_error: "unreachable: no answer".into(),
        failing_for_ms: Some(59_000),
    };
    let tried = StatusView { retrying: vec![retry], ..views::status() };
    let mut older = serde_json::to_value(views::status()).expect("JSON");
    older.as_object_mut().expect("object").remove("retrying").expect("is a field");
    let agent = FakeAgent::script(vec![Reply::json(&tried), Reply::json(&tried), Reply::json(&older)]);
    let run = agent.run(&["status"]);
    let table = "\nRETRYING  PEER  FAILURES  NEXT TRY  LAST ERROR\n\
                 connect   n2    12        in 4.0 s  unreachable: no answer\n";
    assert!(run.code == 0 && run.stdout.contains(table), "{run:?}");
    assert_eq!(agent.run(&["status", "--json"]).json::<StatusView>(), tried);
    let run = agent.run(&["status"]);
    assert!(run.code == 0 && !run.stdout.contains("RETRYING"), "{run:?}");
}

#[test]
fn a_stale_list_says_so_on_stderr() {
    let mut vms = views::listing(vec![web()]);
    vms.linearizable = false;
    let agent = FakeAgent::script(vec![Reply::json(&vms), Reply::json(&vms), Reply::json(&web())]);
    let run = agent.run(&["vm", "list", "--stale"]);
    run.ends(0, "stale: ");
    assert!(run.stdout.contains("web"), "{run:?}");
    let run = agent.run(&["vm", "list", "--stale", "--json"]);
    run.ends(0, "stale: ");
    assert_eq!(run.json::<Listing<VmView>>(), vms);
    agent.run(&["vm", "show", "web", "--stale"]).ends(0, "stale: ");
    let asked = ["GET /v1/vms?stale=true", "GET /v1/vms?stale=true", "GET /v1/vms/web?stale=true"];
    assert_eq!(agent.asked(), asked);
}

#[test]
fn the_flag_wins_over_the_environment() {
    let agent = FakeAgent::script(vec![Reply::json(&views::status())]);
    let socket = agent.socket();
    let args = ["status", "--socket", socket.to_str().expect("UTF-8")];
    assert_eq!(crate::binary::run(std::path::Path::new("/nonexistent"), &args).code, 0);
}
