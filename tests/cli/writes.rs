//! What a write sends, and that a write that may have been done is never reported as failed.

use std::sync::mpsc;

use blixard_model::api::{Accepted, CreateVm, ErrorKind, REQUEST_ID_HEADER, TIMEOUT_HEADER};

use super::fake_agent::{FakeAgent, Reply};
use super::views;
use crate::binary::{self, Run};

fn created(agent: &FakeAgent) -> CreateVm {
    let seen = agent.seen();
    assert_eq!(seen[0].what, "POST /v1/vms");
    serde_json::from_str(&seen[0].body).expect("body")
}

#[test]
fn create_sends_the_spec_and_does_not_start() {
    let agent = FakeAgent::script(vec![Reply::json(&views::accepted())]);
    let args = "vm create web --cpus 2 --memory-mib 512 --kernel /k --initrd /i --cmdline quiet \
                --disk /d/a.raw --disk /d/b.raw:ro --node n1 --hypervisor qemu";
    let run = agent.run(&args.split_whitespace().collect::<Vec<_>>());
    assert_eq!(run.stdout, "web is created on n1; `blixard vm start web` starts it\n", "{run:?}");
    let CreateVm { spec, start } = created(&agent);
    assert!(!start);
    let disks: Vec<(&str, bool)> =
        spec.disks.iter().map(|disk| (disk.path.as_str(), disk.read_only)).collect();
    assert_eq!(disks, [("/d/a.raw", false), ("/d/b.raw", true)]);
    assert_eq!((spec.cpus, spec.memory_mib, spec.cmdline.as_str()), (2, 512, "quiet"));
    assert_eq!(spec.node.map(String::from).as_deref(), Some("n1"));
}

#[test]
fn a_spec_comes_from_a_file_or_stdin_and_flags_win() {
    let text = r#"{"name": "db", "cpus": 4, "memory_mib": 1024, "kernel": "/k"}"#;
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("spec.json");
    std::fs::write(&file, text).expect("file");
    let agent = FakeAgent::script(vec![Reply::json(&views::accepted()), Reply::json(&views::accepted())]);
    let args = ["vm", "run", "--no-wait", "--file", file.to_str().expect("UTF-8"), "--cpus", "2"];
    assert_eq!(agent.run(&args).code, 0);
    let CreateVm { spec, start } = created(&agent);
    assert_eq!((spec.name.as_str(), spec.cpus, spec.memory_mib, start), ("db", 2, 1024, true));

    let run = binary::run_with_input(&agent.socket(), &["vm", "create", "web", "--file", "-"], text);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(agent.seen()[1].body.contains(r#""name":"web""#));
}

#[test]
fn a_write_sends_its_request_id_and_its_timeout() {
    let agent = FakeAgent::new(|_| Reply::json(&views::accepted()));
    let stop = ["vm", "stop", "web", "--no-wait"];
    let run = agent.run(&[&stop[..], &["--request-id", "r-1", "--timeout", "5", "--json"]].concat());
    assert_eq!(run.json::<Accepted>(), views::accepted());
    agent.run(&stop);
    agent.run(&stop);
    let ids: Vec<String> =
        agent.seen().iter().map(|seen| seen.header(REQUEST_ID_HEADER).expect("an id").to_owned()).collect();
    assert_eq!(ids[0], "r-1");
    assert!(ids[1].len() == 32 && ids[1] != ids[2], "{ids:?}");
    for (seen, most) in agent.seen().iter().zip([5_000, 30_000, 30_000]) {
        let timeout_ms: u64 = seen.header(TIMEOUT_HEADER).expect("a timeout").parse().expect("a number");
        assert!((most / 2..most).contains(&timeout_ms), "{timeout_ms} of {most}");
    }
}

#[test]
fn verbs_and_paths_are_those_of_the_api() {
    let agent = FakeAgent::new(|_| Reply::json(&views::accepted()));
    for (verb, text) in [("start", "will start"), ("stop", "will stop"), ("delete", "will be deleted")] {
        let run = agent.run(&["vm", verb, "web", "--no-wait"]);
        assert_eq!((run.code, run.stdout), (0, format!("web {text} on n1\n")));
    }
    let asked = ["POST /v1/vms/web/start", "POST /v1/vms/web/stop", "DELETE /v1/vms/web"];
    assert_eq!(agent.asked(), asked);
}

#[track_caller]
fn is_unknown_with_a_retry(run: &Run, id: &str) {
    run.ends(4, "error: ");
    let retry = format!("vm stop web --no-wait --timeout 1 --request-id {id}");
    assert!(run.stderr.contains(&retry), "{retry:?} is not in {run:?}");
}

#[test]
fn a_write_without_an_answer_is_unknown_and_says_how_to_repeat_it() {
    let agent =
        FakeAgent::script(vec![Reply::Silence, Reply::Break, Reply::error(504, ErrorKind::Unknown, "?")]);
    let runs = [(); 3].map(|()| agent.run(&["vm", "stop", "web", "--no-wait", "--timeout", "1"]));
    for (run, seen) in runs.iter().zip(agent.seen()) {
        is_unknown_with_a_retry(run, seen.header(REQUEST_ID_HEADER).expect("an id"));
    }
}

#[test]
fn an_unknown_outcome_in_json_has_the_id() {
    let agent = FakeAgent::script(vec![Reply::Break]);
    let run = agent.run(&["vm", "stop", "web", "--no-wait", "--json", "--request-id", "r-7"]);
    let error = run.error();
    assert_eq!((run.code, error.error), (4, ErrorKind::Unknown));
    assert_eq!(error.request_id, Some("r-7".parse().expect("id")));
    assert!(error.message.contains("--request-id r-7"), "{error:?}");
}

#[test]
fn an_interrupted_write_is_unknown() {
    let (arrived, arrival) = mpsc::channel();
    let agent = FakeAgent::new(move |_| {
        arrived.send(()).expect("the test waits");
        Reply::Silence
    });
    let child = binary::command(&agent.socket(), &["vm", "stop", "web", "--no-wait"]).spawn().expect("runs");
    arrival.recv().expect("a request");
    binary::interrupt(&child);
    let run: Run = child.wait_with_output().expect("ends").into();
    run.ends(4, "interrupted before the answer came");
}
