//! `cargo xtask fixtures NAME`: writes samples of this build's formats, which every later build has to read.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::place::Place;

/// Writes the files of this build into a new directory of `tests/fixtures/`.
///
/// # Errors
/// The name has the wrong form, the directory exists, or the files cannot be made.
pub(crate) fn run(place: &Place, name: &str) -> Result<ExitCode> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    ensure!(
        name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_name),
        "{name:?} is no name for a build: write the version and the commit, as in 0.1.0-beb3c5d"
    );
    let target = place.root().join("tests/fixtures").join(name);
    let status = place
        .cargo()
        .args(["run", "--quiet", "--package", "blixard-fixtures", "--"])
        .arg(&target)
        .status()
        .context("cargo could not be run")?;
    ensure!(status.success(), "the files were not written; the lines above say why");
    println!("add its digest to KNOWN in agent/fixtures/tests/files.rs: the failing test prints it");
    Ok(ExitCode::SUCCESS)
}
