//! What commands say as JSON.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The JSON object on the last line that a command writes, if it ends with one of these codes.
pub(super) fn object(command: &mut Command, codes: &[i32]) -> Result<Value> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    let ended_well = output.status.code().is_some_and(|code| codes.contains(&code));
    ensure!(ended_well, "{} failed; the lines above say why", command.get_program().display());
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().context("the command wrote nothing")?;
    serde_json::from_str(last).context("the command wrote no JSON")
}
