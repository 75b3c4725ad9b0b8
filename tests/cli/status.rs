//! `blixard status` as a check, and as something to watch.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use blixard_model::api::{ChangeView, DisarmedView, ErrorKind, Listing, StatusView, VmView, VotersView};

use super::fake_agent::{FakeAgent, Reply};
use super::views;
use crate::binary;

fn healthy() -> StatusView {
    StatusView { warnings: Vec::new(), ..views::status() }
}

fn watch(agent: &FakeAgent, args: &[&str]) -> Child {
    let args = [&["status", "--watch", "--interval", "0.2"], args].concat();
    binary::command(&agent.socket(), &args).spawn().expect("runs")
}

/// The lines on stdout up to the `count`-th one that is wanted. Then sends Ctrl-C and reads the rest.
fn lines_until(mut child: Child, count: usize, wanted: impl Fn(&str) -> bool) -> (Vec<String>, binary::Run) {
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut lines = Vec::new();
    while lines.iter().filter(|line: &&String| wanted(line)).count() < count {
        let mut line = String::new();
        assert_ne!(reader.read_line(&mut line).expect("UTF-8"), 0, "it ended: {lines:?}");
        lines.push(line);
    }
    binary::interrupt(&child);
    reader.read_to_string(&mut String::new()).expect("UTF-8");
    (lines, child.wait_with_output().expect("ends").into())
}

#[test]
fn status_explains_the_cluster_in_one_screen() {
    let change = |what: &str, waits_for: Option<&str>| ChangeView {
        what: what.into(),
        waits_for: waits_for.map(str::to_owned),
    };
    let mut gone = views::node("n2");
    (gone.leader, gone.reachable) = (false, false);
    (gone.unreachable_for_ms, gone.behind, gone.lost) = (Some(240_000), Some(1_200), true);
    let mut learner = views::node("n4");
    (learner.leader, learner.snapshot, learner.role) = (false, true, blixard_model::Role::Learner);
    let view = StatusView {
        voters: Some(VotersView { total: 3, reachable: 2, needed: 2 }),
        changes: vec![change(
            "n2 is lost since 4 min: n4 is to vote in its place",
            Some("n4 to have the state"),
        )],
        members: vec![views::node("n1"), gone, learner],
        ..healthy()
    };
    let run = FakeAgent::script(vec![Reply::json(&view)]).run(&["status"]);
    let screen = "\
QUORUM    yes: 2 of 3 voters reachable, none may be lost
LOG       term 4, committed 17, applied 17, ends at 17 of term 4
VMS       0
AGENT     0.1.0 (cluster version 4)

CHANGES                                             WAITS FOR
n2 is lost since 4 min: n4 is to vote in its place  n4 to have the state

NAME  ROLE     LEADER  REACHABLE  BEHIND    CPUS  MEMORY      VMS  ADDRESSES       ENDPOINT
n1    voter    yes     yes        0         0/4   0/2048 MiB  0    10.77.0.1:7431  ababababab
n2    voter    -       no, 4 min  1,200     0/4   0/2048 MiB  0    10.77.0.1:7431  ababababab
n4    learner  -       yes        snapshot  0/4   0/2048 MiB  0    10.77.0.1:7431  ababababab
";
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
    assert!(run.stdout.ends_with(screen), "{}", run.stdout);
}

#[test]
fn status_reads_an_older_agent_that_sends_fewer_fields() {
    let mut older = serde_json::to_value(healthy()).expect("JSON");
    let object = older.as_object_mut().expect("an object");
    object.remove("voters").expect("a field");
    object.remove("changes").expect("a field");
    let member = object["members"][0].as_object_mut().expect("an object");
    for field in ["witness", "unreachable_for_ms", "silent_for_ms", "behind", "snapshot", "lost"] {
        member.remove(field).expect("a field");
    }
    let run = FakeAgent::script(vec![Reply::json(&older)]).run(&["status"]);
    assert!(run.code == 0 && run.stdout.contains("QUORUM    yes\n"), "{run:?}");
    assert!(run.stdout.contains("n1    voter  yes     yes        -       0/4"), "{run:?}");
}

#[test]
fn a_check_is_silent_when_all_is_well_and_names_in_one_line_what_is_not() {
    let mut ill = healthy();
    ill.quorum = false;
    ill.voters = Some(VotersView { total: 3, reachable: 1, needed: 2 });
    ill.members[0].reachable = false;
    ill.warnings = vec!["n9 is listed\nbut no member\u{1b}[2J".into()];
    let agent = FakeAgent::script(vec![
        Reply::json(&healthy()),
        Reply::json(&ill),
        Reply::json(&ill),
        Reply::json(&healthy()),
    ]);
    let run = agent.run(&["status", "--check"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""), "{run:?}");
    let run = agent.run(&["status", "--check"]);
    let words = "error: quorum: no: 1 of 3 voters reachable, 2 needed: reads may be old, writes fail; n1 is \
                 unreachable; n9 is listed but no member^[[2J\n";
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (1, "", words));
    let run = agent.run(&["status", "--check", "--json"]);
    assert!(run.code == 1 && run.error().message.contains("n1 is unreachable"), "{run:?}");
    let run = agent.run(&["status", "--check", "--json"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""), "{run:?}");
    agent.run(&["status", "--check"]).ends(3, "error: ");
}

#[test]
fn a_check_and_lists_say_that_the_cluster_is_disarmed() {
    let disarmed = |waits_for: &[&str]| {
        let waits_for = waits_for.iter().map(|node| node.parse().expect("a name")).collect();
        Some(DisarmedView { until_unix_ms: 1_795_000_000_000, left_ms: 1_440_000, waits_for })
    };
    let quiet = StatusView { disarmed: disarmed(&[]), ..healthy() };
    let ill = StatusView { quorum: false, voters: None, ..quiet.clone() };
    let vms = Listing { disarmed: disarmed(&["n2", "n3"]), ..views::listing(Vec::<VmView>::new()) };
    let nodes = Listing { disarmed: disarmed(&[]), ..views::listing(vec![views::node("n1")]) };
    let agent = FakeAgent::script(vec![
        Reply::json(&quiet),
        Reply::json(&ill),
        Reply::json(&vms),
        Reply::json(&nodes),
        Reply::json(&vms),
    ]);
    let words = "the cluster is disarmed for 24 min: no VM is started elsewhere when its node is lost";
    let run = agent.run(&["status", "--check"]);
    let note = format!("note: {words}\n");
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", note.as_str()), "{run:?}");
    let run = agent.run(&["status", "--check"]);
    assert!(run.code == 1 && run.stderr.ends_with(&format!("writes fail; {words}\n")), "{run:?}");
    let run = agent.run(&["vm", "list"]);
    let late = format!("note: {words}; n2, n3 did not acknowledge it yet\n");
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "no VMs\n", late.as_str()));
    let run = agent.run(&["node", "list"]);
    assert!(run.code == 0 && run.stderr == note && run.stdout.starts_with("NAME"), "{run:?}");
    assert_eq!(agent.run(&["vm", "list", "--json"]).json::<Listing<VmView>>(), vms);
}

#[test]
fn on_a_pipe_watch_prints_a_header_for_each_look_and_outlasts_a_restart_of_the_agent() {
    let mut looks = 0;
    let agent = FakeAgent::new(move |_| {
        looks += 1;
        match looks {
            2 => Reply::Break,
            3 => Reply::error(503, ErrorKind::Unavailable, "the agent is stopping"),
            _ => Reply::json(&healthy()),
        }
    });
    let (lines, run) = lines_until(watch(&agent, &[]), 5, |line| line.starts_with("--- "));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
    let text = lines.concat();
    let looks: Vec<&str> = text.split("--- ").collect();
    assert!(looks[1].contains("QUORUM    yes"), "{text}");
    assert!(looks[2].contains("\nerror: "), "{text}");
    assert!(looks[3].contains("\nerror: the agent is stopping\n"), "{text}");
    assert!(looks[4].contains("QUORUM    yes") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn watch_with_json_prints_one_document_per_line_and_errors_to_stderr() {
    let mut looks = 0;
    let agent = FakeAgent::new(move |_| {
        looks += 1;
        if looks == 2 { Reply::Break } else { Reply::json(&healthy()) }
    });
    let (lines, run) = lines_until(watch(&agent, &["--json"]), 3, |_| true);
    assert_eq!(run.code, 0, "{run:?}");
    for line in &lines {
        assert_eq!(serde_json::from_str::<StatusView>(line).expect("a document"), healthy());
    }
    let error: blixard_model::api::ErrorBody = serde_json::from_str(&run.stderr).expect("one error");
    assert_eq!(error.error, ErrorKind::Unavailable);
}

#[test]
fn watch_ends_with_its_reader_and_at_ctrl_c_while_no_agent_answers() {
    let agent = FakeAgent::new(|_| Reply::json(&healthy()));
    let mut child = watch(&agent, &[]);
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    reader.read_line(&mut first).expect("UTF-8");
    drop(reader);
    assert_eq!(child.wait_with_output().expect("ends").status.code(), Some(0), "as with head");

    let (arrived, arrival) = std::sync::mpsc::channel();
    let silent = FakeAgent::new(move |_| {
        arrived.send(()).expect("the test waits");
        Reply::Silence
    });
    let child = watch(&silent, &[]);
    arrival.recv().expect("a look");
    binary::interrupt(&child);
    let run: binary::Run = child.wait_with_output().expect("ends").into();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
}

#[test]
fn on_a_terminal_watch_draws_in_place() {
    let agent = FakeAgent::new(|_| Reply::json(&healthy()));
    let size = nix::pty::Winsize { ws_row: 12, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = nix::pty::openpty(Some(&size), None).expect("a terminal");
    let args = ["status", "--watch", "--interval", "0.2"];
    let mut command = binary::command(&agent.socket(), &args);
    command.env("TERM", "xterm").stdout(Stdio::from(terminal.slave));
    let child = command.spawn().expect("runs");
    // This process's copy of the terminal's other end would keep the terminal open.
    drop(command);
    let (mut reader, mut text) = (File::from(terminal.master), String::new());
    let mut bytes = [0; 4096];
    while text.matches("\u{1b}[2J").count() < 3 {
        let len = reader.read(&mut bytes).expect("the screen");
        text.push_str(&String::from_utf8_lossy(&bytes[..len]));
    }
    binary::interrupt(&child);
    let screen = text.split("\u{1b}[2J").nth(1).expect("one");
    assert!(screen.contains("blixard status  20") && screen.contains("QUORUM    yes"), "{screen:?}");
    assert!(screen.contains("the window is too small"), "of 12 lines: {screen:?}");
    let run: binary::Run = child.wait_with_output().expect("ends").into();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
}

#[test]
fn contradictory_and_out_of_range_flags_of_status_are_refused() {
    for args in [
        &["--interval", "2"][..],
        &["--watch", "--check"],
        &["--watch", "--interval", "0.1"],
        &["--watch", "--interval", "3601"],
    ] {
        let args = [&["status"], args].concat();
        binary::run(std::path::Path::new("/nonexistent"), &args).ends(2, "error: ");
    }
}
