//! `vm logs`: a stream, and how it ends on both sides.

use std::io::{BufRead, BufReader};

use super::fake_agent::{FakeAgent, Reply};
use crate::binary::{self, Run};

fn pieces(pieces: &[&str]) -> Vec<String> {
    pieces.iter().map(ToString::to_string).collect()
}

#[test]
fn the_console_goes_to_stdout_as_it_is() {
    let agent = FakeAgent::script(vec![Reply::Pieces(pieces(&["one\ntw", "o\n\u{1b}[1m"]))]);
    let run = agent.run(&["vm", "logs", "web", "--lines", "3"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "one\ntwo\n\u{1b}[1m"));
    assert_eq!(agent.asked(), ["GET /v1/vms/web/logs?follow=false&lines=3"]);
}

#[test]
fn following_shows_lines_as_they_come_and_ctrl_c_is_a_success() {
    let agent = FakeAgent::script(vec![Reply::PiecesThenSilence(pieces(&["up\n"]))]);
    let mut child = binary::command(&agent.socket(), &["vm", "logs", "web", "-f"]).spawn().expect("runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
    assert_eq!(line, "up\n");
    binary::interrupt(&child);
    let run: Run = child.wait_with_output().expect("ends").into();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(agent.asked(), ["GET /v1/vms/web/logs?follow=true"]);
}

#[test]
fn logs_end_without_an_error_when_their_reader_goes_away() {
    let agent = FakeAgent::script(vec![Reply::Pieces(vec!["line\n".repeat(1_000); 1_000])]);
    let mut child = binary::command(&agent.socket(), &["vm", "logs", "web", "-f"]).spawn().expect("runs");
    drop(child.stdout.take());
    let run: Run = child.wait_with_output().expect("ends").into();
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_log_that_breaks_off_or_stays_silent_is_not_complete() {
    let agent = FakeAgent::script(vec![Reply::PiecesThenSilence(pieces(&["one\n"])), Reply::Break]);
    let run = agent.run(&["vm", "logs", "web", "--timeout", "1"]);
    run.ends(3, "the log did not end within 1 s");
    assert_eq!(run.stdout, "one\n");
    agent.run(&["vm", "logs", "web"]).ends(3, "the connection to the agent broke");
}
