//! `cargo xtask demo`: everything from a bare machine to a cluster that has lost its leader.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::lab;
use crate::place::Place;
use crate::privilege::Privilege;
use crate::setup;

/// Sets up, builds, and becomes the harness's demo, which ends with the report.
///
/// With `json`, a failure before that is reported as JSON as well.
pub(crate) fn run(place: &Place, keep: bool, json: bool) -> ExitCode {
    let mut report = Before::default();
    let Err(error) = play(place, keep, json, &mut report);
    eprintln!("the demo failed: {error:#}");
    if json {
        let (setup_ms, build_ms) = (report.setup.as_millis(), report.build.as_millis());
        let reason = format!("{error:#}");
        println!("{}", json!({ "ok": false, "setup_ms": setup_ms, "build_ms": build_ms, "reason": reason }));
    }
    ExitCode::FAILURE
}

/// How long the preparations took.
#[derive(Debug, Default)]
struct Before {
    setup: Duration,
    build: Duration,
}

/// Returns only when something went wrong; otherwise this process becomes the harness.
fn play(place: &Place, keep: bool, json: bool, before: &mut Before) -> Result<std::convert::Infallible> {
    before.setup = setup::ensure(setup::LAB)?;
    before.build = place.build_agent()?;
    let mut command = lab::harness(place, Privilege::find(false)?);
    command.arg("demo");
    command.args(["--setup-ms", &before.setup.as_millis().to_string()]);
    command.args(["--build-ms", &before.build.as_millis().to_string()]);
    if keep {
        command.arg("--keep");
    }
    if json {
        command.arg("--json");
    }
    lab::become_harness(command)
}
