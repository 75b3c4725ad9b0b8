//! Commands that wait until a VM has reached a state.

use blixard_model::api::{Accepted, ErrorKind, VmView};
use blixard_model::report::ObservedState::{
    self, Deleting, Failed, Pending, Running, Starting, Stopped, Stopping,
};
use blixard_model::vm::Desired;

use super::fake_agent::{FakeAgent, Reply};
use super::views;

const RUN: [&str; 5] = ["vm", "run", "web", "--kernel", "/k"];

fn web(desired: Desired, state: ObservedState) -> Reply {
    Reply::json(&views::vm("web", desired, state))
}

fn failed(desired: Desired, reason: &str) -> Reply {
    Reply::json(&VmView { reason: Some(reason.into()), ..views::vm("web", desired, Failed) })
}

fn accepted() -> Reply {
    Reply::json(&views::accepted())
}

fn gone() -> Reply {
    Reply::error(404, ErrorKind::Refused, "there is no VM named web")
}

#[test]
fn run_waits_until_the_vm_runs() {
    let script = || {
        vec![
            accepted(),
            web(Desired::Running, Pending),
            web(Desired::Running, Starting),
            web(Desired::Running, Running),
        ]
    };
    let agent = FakeAgent::script(script());
    let run = agent.run(&RUN);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.starts_with("web is running on n1 ("), "{run:?}");
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines, ["web: accepted on n1", "web on n1: pending", "web on n1: starting"], "{run:?}");
    assert_eq!(agent.asked(), ["POST /v1/vms", "GET /v1/vms/web", "GET /v1/vms/web", "GET /v1/vms/web"]);

    let run = FakeAgent::script(script()).run(&[&RUN[..], &["--json"]].concat());
    assert_eq!((run.json::<Accepted>(), run.stderr.as_str()), (views::accepted(), ""));
}

#[test]
fn a_vm_that_fails_ends_the_wait_with_its_reason() {
    let agent = FakeAgent::script(vec![
        accepted(),
        web(Desired::Running, Starting),
        failed(Desired::Running, "exited 1: no such kernel"),
    ]);
    let run = agent.run(&RUN);
    run.ends(1, "error: VM web failed on n1: exited 1: no such kernel");
    assert!(run.stderr.contains("blixard vm logs web"), "{run:?}");
    assert!(run.stderr.contains("its kernel, initrd and disks have to be on n1"), "{run:?}");
}

#[test]
fn start_does_not_report_an_earlier_failure() {
    let agent = FakeAgent::script(vec![
        failed(Desired::Stopped, "exited 1"),
        accepted(),
        failed(Desired::Running, "exited 1"),
        web(Desired::Running, Starting),
        web(Desired::Running, Running),
    ]);
    let run = agent.run(&["vm", "start", "web"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(agent.asked()[..2], ["GET /v1/vms/web", "POST /v1/vms/web/start"]);
}

#[test]
fn stop_and_delete_wait_until_the_vm_is_stopped_or_gone() {
    let agent = FakeAgent::script(vec![
        web(Desired::Running, Running),
        accepted(),
        web(Desired::Stopped, Stopping),
        web(Desired::Stopped, Stopped),
    ]);
    let run = agent.run(&["vm", "stop", "web"]);
    assert!(run.code == 0 && run.stdout.starts_with("web is stopped on n1"), "{run:?}");

    let agent = FakeAgent::script(vec![accepted(), web(Desired::Absent, Deleting), gone()]);
    let run = agent.run(&["vm", "delete", "web"]);
    assert!(run.code == 0 && run.stdout.starts_with("web is deleted ("), "{run:?}");
}

#[test]
fn a_wait_prints_each_change_once_and_does_not_count_seconds() {
    let silent = |seconds: u64| {
        let reason = Some(format!("n1 has not reported for {seconds} s"));
        Reply::json(&VmView { reason, ..views::vm("web", Desired::Absent, Deleting) })
    };
    let agent = FakeAgent::script(vec![accepted(), silent(6), silent(7), silent(12), silent(125), gone()]);
    let run = agent.run(&["vm", "delete", "web"]);
    assert_eq!(run.code, 0, "{run:?}");
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines, ["web: accepted on n1", "web on n1: deleting: n1 has not reported for 6 s"]);
}

#[test]
fn a_wait_outlasts_an_election_and_a_restart_of_the_agent() {
    let agent = FakeAgent::script(vec![
        accepted(),
        Reply::error(503, ErrorKind::Unavailable, "no quorum"),
        Reply::Break,
        web(Desired::Running, Running),
    ]);
    let run = agent.run(&RUN);
    run.ends(0, "web: not known: no quorum");
}

#[test]
fn a_wait_that_is_not_over_in_time_ends_as_unknown_and_not_as_failed() {
    let mut first = true;
    let agent =
        FakeAgent::new(
            move |_| {
                if std::mem::take(&mut first) { accepted() } else { web(Desired::Running, Starting) }
            },
        );
    let run = agent.run(&[&RUN[..], &["--timeout", "1"]].concat());
    run.ends(4, "accepted, but not done in time (last seen: web on n1: starting)");
    assert!(run.stderr.contains("the cluster goes on with it"), "{run:?}");
}

#[test]
fn a_change_by_somebody_else_ends_the_wait() {
    let agent = FakeAgent::script(vec![accepted(), web(Desired::Stopped, Stopping)]);
    agent.run(&RUN).ends(1, "it was told to stop meanwhile");
    let agent = FakeAgent::script(vec![accepted(), gone()]);
    agent.run(&RUN).ends(1, "it was deleted meanwhile");
}

#[test]
fn a_start_without_a_quorum_sends_no_write() {
    let agent = FakeAgent::new(|_| Reply::error(503, ErrorKind::Unavailable, "no quorum"));
    agent.run(&["vm", "start", "web"]).ends(3, "error: no quorum");
    assert_eq!(agent.asked(), ["GET /v1/vms/web"]);
}
