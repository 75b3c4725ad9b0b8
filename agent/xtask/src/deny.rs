//! `cargo deny`: checks licences, sources and known vulnerabilities of everything in Cargo.lock, against
//! `.cargo/deny.toml`.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::place::Place;

/// The rules; each exception in it has a reason and a date.
const CONFIG: &str = ".cargo/deny.toml";

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DenyOutcome {
    /// The check passed.
    Passed,
    /// The check cannot be made here, for this reason.
    Skipped(String),
    /// The check failed; holds what cargo-deny printed.
    Failed(String),
}

/// Runs these checks of cargo-deny.
///
/// # Errors
/// cargo-deny could not be started.
pub(crate) fn check(place: &Place, checks: &[&str]) -> Result<DenyOutcome> {
    if !is_installed(place) {
        let reason = "there is no cargo-deny: `cargo install cargo-deny --locked`";
        return Ok(DenyOutcome::Skipped(reason.to_owned()));
    }
    let mut cargo = place.cargo();
    cargo.args(["deny", "--locked", "--config", CONFIG, "check", "--hide-inclusion-graph"]).args(checks);
    let output = cargo.stdin(Stdio::null()).output()?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(read(output.status.success(), text))
}

fn is_installed(place: &Place) -> bool {
    let mut version: Command = place.cargo();
    let version = version.args(["deny", "--version"]).stdin(Stdio::null()).stdout(Stdio::null());
    version.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Reads the result. A check that could not be made is neither passed nor failed, but skipped.
fn read(success: bool, text: String) -> DenyOutcome {
    if success {
        return DenyOutcome::Passed;
    }
    if text.contains("advisory database") && text.contains("fetch") {
        return DenyOutcome::Skipped("the advisory database is not here and cannot be fetched".to_owned());
    }
    if text.contains("failed to download") {
        return DenyOutcome::Skipped("not every crate is here and the registry cannot be reached".to_owned());
    }
    DenyOutcome::Failed(text)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_check_that_could_not_be_made_is_skipped() {
        let skipped = |text: &str| matches!(read(false, text.to_owned()), DenyOutcome::Skipped(_));
        assert!(skipped("[ERROR] failed to fetch advisory database https://github.com/rustsec/advisory-db"));
        assert!(skipped("error: failed to download `windows-sys v0.61.2`"));
        assert!(!skipped("error[rejected]: failed to satisfy license requirements"));
        assert!(!skipped("error[vulnerability]: detected in the advisory database"));
        assert_eq!(read(true, String::new()), DenyOutcome::Passed);
    }
}
