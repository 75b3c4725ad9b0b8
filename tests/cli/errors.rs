//! Everything that is not a success: exit code, text, JSON.

use std::path::Path;

use blixard_model::api::{ErrorBody, ErrorKind};
use blixard_model::command::Refusal;

use super::fake_agent::{FakeAgent, Reply, abandoned_socket};
use crate::binary::run;

const NOWHERE: &str = "/nonexistent/a.sock";

#[test]
fn an_invalid_command_line_exits_with_2_and_sends_nothing() {
    let long = "a".repeat(300);
    let wrong: Vec<Vec<&str>> = vec![
        vec![],
        vec!["frobnicate"],
        vec!["vm", "start"],
        vec!["vm", "start", "../x"],
        vec!["vm", "start", "a;b"],
        vec!["vm", "start", &long],
        vec!["vm", "run", "web"],
        vec!["vm", "run", "web", "--kernel", "vmlinux"],
        vec!["vm", "run", "web", "--kernel", "/k", "--memory-mib", "0"],
        vec!["vm", "run", "web", "--kernel", "/k", "--hypervisor", "bhyve"],
        vec!["vm", "create", "--file", "/nonexistent/spec.json"],
        vec!["vm", "stop", "web", "--request-id", "not valid"],
        vec!["vm", "list", "--timeout", "0"],
        vec!["vm", "list", "--follow"],
    ];
    for args in wrong {
        let run = run(Path::new(NOWHERE), &args);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{args:?}: {run:?}");
        assert!(!run.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn usage_errors_are_json_where_json_was_asked_for() {
    for args in [
        &["vm", "start", "../x", "--json"][..],
        &["--json", "vm", "start", "../x"],
        &["vm", "--json", "strat"],
        &["vm", "logs", "web", "--json"],
        &["vm", "run", "web", "--kernel", "/k", "--cpus", "0", "--json"],
    ] {
        let run = run(Path::new(NOWHERE), args);
        assert_eq!((run.code, run.error().error), (2, ErrorKind::Usage), "{run:?}");
    }
}

#[test]
fn an_absent_agent_is_reported_with_the_way_out() {
    let dir = tempfile::tempdir().expect("directory");
    let abandoned = abandoned_socket(dir.path());
    for socket in [Path::new(NOWHERE), &abandoned] {
        for args in [&["status"][..], &["vm", "list"], &["vm", "delete", "web"], &["vm", "logs", "web"]] {
            let run = run(socket, args);
            run.ends(3, "is the agent running? systemctl status blixard");
            assert!(run.stderr.starts_with("error: ") && run.stderr.contains("a.sock"), "{run:?}");
        }
    }
    assert_eq!(run(&abandoned, &["status", "--json"]).error().error, ErrorKind::Unavailable);
}

#[test]
fn the_kind_of_an_error_determines_the_exit_code() {
    let cases = [
        (409, ErrorKind::Refused, 1),
        (404, ErrorKind::Refused, 1),
        (400, ErrorKind::Usage, 2),
        (503, ErrorKind::Unavailable, 3),
        (504, ErrorKind::Unknown, 4),
    ];
    for (status, kind, code) in cases {
        let agent = FakeAgent::new(move |_| Reply::error(status, kind, "because: do this"));
        agent.run(&["vm", "stop", "web", "--no-wait"]).ends(code, "error: because: do this");
        let error = agent.run(&["vm", "stop", "web", "--no-wait", "--json", "--request-id", "r-1"]).error();
        assert_eq!(error.error, kind);
        assert_eq!(error.request_id, Some("r-1".parse().expect("id")));
        agent.run(&["vm", "list"]).ends(code, "error: because");
    }
}

#[test]
fn a_read_without_a_quorum_offers_a_stale_one_and_a_write_does_not() {
    let agent = FakeAgent::new(|_| Reply::error(503, ErrorKind::Unavailable, "no quorum"));
    let offer = "error: no quorum\n--stale shows what this node knows, which may be out of date\n";
    for args in [
        &["vm", "list"][..],
        &["vm", "show", "web"],
        &["node", "list"],
        &["cluster", "ticket", "list"],
        &["cluster", "backup", "-"],
    ] {
        agent.run(args).ends(3, offer);
        let stale = agent.run(&[args, &["--stale"]].concat());
        assert_eq!((stale.code, stale.stderr.as_str()), (3, "error: no quorum\n"), "{args:?}");
    }
    let message = agent.run(&["vm", "list", "--json"]).error().message;
    assert!(message.contains("--stale"), "{message}");
    let write = agent.run(&["vm", "stop", "web", "--no-wait"]);
    assert_eq!((write.code, write.stderr.as_str()), (3, "error: no quorum\n"));
}

#[test]
fn a_refusal_is_printed_in_json_as_the_agent_sent_it() {
    let refusal = Refusal::VmNotFound { name: "web".parse().expect("name") };
    let body = ErrorBody {
        error: ErrorKind::Refused,
        message: refusal.to_string(),
        refusal: Some(Box::new(refusal)),
        request_id: Some("r-1".parse().expect("id")),
    };
    let text = serde_json::to_string(&body).expect("JSON");
    let agent = FakeAgent::new(move |_| Reply::Answer(404, text.clone()));
    let run = agent.run(&["vm", "delete", "web", "--json", "--request-id", "r-1"]);
    assert_eq!((run.code, run.error()), (1, body));
    agent.run(&["vm", "delete", "web"]).ends(1, "there is no VM named web: `blixard vm list`");
    agent.run(&["vm", "logs", "web"]).ends(1, "there is no VM named web");
}

#[test]
fn an_answer_that_is_not_understood_is_no_success() {
    let agent = FakeAgent::new(|_| Reply::Answer(200, "<html>".into()));
    agent.run(&["status"]).ends(3, "is not understood");
    agent.run(&["vm", "stop", "web", "--no-wait"]).ends(4, "is not understood");
}

#[test]
fn a_read_without_an_answer_exits_as_unavailable() {
    let agent = FakeAgent::script(vec![Reply::Silence, Reply::Break]);
    agent.run(&["vm", "list", "--timeout", "1"]).ends(3, "within 1 s");
    agent.run(&["vm", "list"]).ends(3, "the connection to the agent broke");
}
