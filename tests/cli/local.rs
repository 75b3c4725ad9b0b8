//! `blixard local`: what the agent of this machine is asked, and what is done where it does not answer.

use std::path::Path;

use blixard_model::api::ErrorKind;
use blixard_model::local::{LocalListing, LocalSource, LocalStop, LocalVmView};
use blixard_model::report::ObservedState;
use blixard_model::vm::Desired;

use super::fake_agent::{FakeAgent, Reply, abandoned_socket};
use crate::binary::{self, Run};

fn vm(name: &str, state: ObservedState) -> LocalVmView {
    LocalVmView {
        name: name.parse().expect("name"),
        state,
        wanted: Some(Desired::Running),
        generation: Some(7),
        main_pid: (state == ObservedState::Running).then_some(4312),
        stopped_by_hand: false,
        reason: None,
    }
}

fn listing(items: Vec<LocalVmView>) -> LocalListing {
    LocalListing { items, source: LocalSource::Agent, age_ms: 0, problem: None }
}

fn taken() -> LocalStop {
    let name = "web".parse().expect("name");
    LocalStop { name, source: LocalSource::Agent, may_start_elsewhere: false }
}

fn without_a_bus(socket: &Path, args: &[&str]) -> Run {
    let mut command = binary::command(socket, args);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus").output().expect("runs").into()
}

/// Where there is neither an agent nor a system bus.
fn alone(args: &[&str]) -> Run {
    let dir = tempfile::tempdir().expect("dir");
    without_a_bus(&abandoned_socket(dir.path()), args)
}

#[test]
fn a_local_list_is_the_agents_own_word() {
    let stray = LocalVmView {
        wanted: None,
        stopped_by_hand: true,
        reason: Some("stopped by hand".to_owned()),
        ..vm("stray", ObservedState::Stopped)
    };
    let shown = listing(vec![stray, vm("web", ObservedState::Running)]);
    let agent =
        FakeAgent::script(vec![Reply::json(&shown), Reply::json(&shown), Reply::json(&listing(vec![]))]);
    assert_eq!(agent.run(&["local", "list", "--json"]).json::<LocalListing>(), shown);
    let run = agent.run(&["local", "list"]);
    let table = "\
NAME   STATE    WANTED   GENERATION  PID   REASON
stray  stopped  -        7           -     stopped by hand
web    running  running  7           4312  -
";
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, table, ""));
    assert_eq!(agent.run(&["local", "list"]).stdout, "no VMs on this machine\n");
    assert_eq!(agent.asked(), ["GET /v1/local/vms"; 3]);
}

#[test]
fn a_list_that_may_be_old_says_why() {
    let old = LocalListing { problem: Some("systemd cannot be asked".to_owned()), ..listing(vec![]) };
    let agent = FakeAgent::script(vec![Reply::json(&old)]);
    agent.run(&["local", "list"]).ends(0, "note: systemd cannot be asked");
}

#[test]
fn a_local_stop_ends_when_the_unit_has() {
    let seen = |state| Reply::json(&listing(vec![vm("web", state)]));
    let agent = FakeAgent::script(vec![
        Reply::json(&taken()),
        seen(ObservedState::Running),
        seen(ObservedState::Stopping),
        seen(ObservedState::Stopped),
    ]);
    let run = agent.run(&["local", "stop", "web"]);
    run.ends(0, "web: stopping");
    assert!(run.stdout.contains("and stays so until `blixard vm start web`"), "{run:?}");
    let asked = agent.asked();
    assert_eq!(asked[0], "POST /v1/local/vms/web/stop");
    assert!(asked[1..].iter().all(|asked| asked == "GET /v1/local/vms"), "{asked:?}");
    let agent = FakeAgent::script(vec![Reply::json(&taken()), Reply::json(&listing(vec![]))]);
    assert_eq!(agent.run(&["local", "stop", "web", "--json"]).json::<LocalStop>(), taken());
}

#[test]
fn what_may_be_started_elsewhere_is_said_until_the_cluster_knows_of_the_stop() {
    let stop = |stopped_by_hand| {
        let taken = LocalStop { may_start_elsewhere: true, ..taken() };
        let vm = LocalVmView { stopped_by_hand, ..vm("web", ObservedState::Stopped) };
        let mut script = vec![Reply::json(&taken)];
        script.extend((0..60).map(|_| Reply::json(&listing(vec![vm.clone()]))));
        FakeAgent::script(script)
    };
    let words = "The cluster does not know of it yet: if this node is lost before it does, another one";
    let run = stop(true).run(&["local", "stop", "web"]);
    assert!(run.code == 0 && run.stdout.contains(words), "{run:?}");
    let run = stop(false).run(&["local", "stop", "web"]);
    assert!(run.code == 0 && !run.stdout.contains(words), "{run:?}");
    assert_eq!(stop(false).run(&["local", "stop", "web", "--json"]).json::<LocalStop>(), taken());
}

#[test]
fn what_the_agent_refuses_is_not_done_without_it() {
    let refusal = Reply::error(404, ErrorKind::Refused, "no VM named web is placed on this node");
    let agent = FakeAgent::script(vec![refusal]);
    let run = agent.run(&["local", "stop", "web"]);
    run.ends(1, "no VM named web is placed on this node");
    assert!(!run.stderr.contains("systemd itself"), "{run:?}");
    let error = Reply::error(400, ErrorKind::Usage, "no such path: see the table of the local API");
    FakeAgent::script(vec![error]).run(&["local", "list"]).ends(2, "no such path");
}

#[test]
fn without_an_agent_systemd_is_asked_and_what_it_says_is_the_answer() {
    for args in [&["local", "list"][..], &["local", "stop", "web"]] {
        let run = alone(args);
        run.ends(3, "the agent does not answer (");
        assert!(run.stderr.contains("systemd does not answer on the system bus"), "{run:?}");
    }
    let error = alone(&["local", "stop", "web", "--json"]);
    assert!(error.stderr.contains("\"error\":\"unavailable\""), "{error:?}");
}

#[test]
fn an_agent_that_ends_while_it_stops_a_vm_leaves_the_rest_to_the_command() {
    let agent = FakeAgent::script(vec![Reply::json(&taken()), Reply::Break]);
    without_a_bus(&agent.socket(), &["local", "stop", "web"]).ends(3, "systemd itself is asked");
}
