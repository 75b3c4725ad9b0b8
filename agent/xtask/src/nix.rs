//! `cargo xtask nix`: checks the flake, the NixOS module and the VM tests as Nix evaluates them.
//!
//! This module asks `nix` and knows what the answers have to be: first `nix flake check --no-build`, then the
//! rendered configuration (unit texts, config.toml, firewall, users), then wrong configurations, which have
//! to be refused with the option's name. Nothing is built and no NixOS boots here.
//!
//! `BLIXARD_NIXPKGS` names a directory with nixpkgs' flake to evaluate against. Without it, the flake's own,
//! locked nixpkgs is used if it can be fetched. If there is neither, or no `nix`, the result is `Skipped`
//! with the reason.

mod checks;
mod command;
mod expressions;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use self::checks::Checks;
use self::command::{NIXPKGS_VARIABLE, Nix, Setup};
use crate::stories::{self, Cast};

/// How the run ended, unless it failed.
#[derive(Debug)]
pub(crate) enum NixOutcome {
    /// Everything held; the text sums up what was checked.
    Passed(String),
    /// Nothing was checked, for this reason.
    Skipped(String),
}

/// Evaluates the flake in `root` and reads back what it renders.
///
/// `agent` is a built `blixard` binary. With it, the rendered config.toml is also checked by the agent's own
/// `--check-config`. Progress goes to stderr, one line for each step.
///
/// # Errors
///
/// The flake does not evaluate, or something was rendered differently than it has to be; then the error lists
/// everything that was. A wrong `BLIXARD_NIXPKGS` is an error too, because whoever sets it wants a run.
pub(crate) fn run(root: &Path, agent: Option<&Path>) -> Result<NixOutcome> {
    let nix = match Nix::find(root, std::env::var_os(NIXPKGS_VARIABLE).map(PathBuf::from))? {
        Setup::Ready(nix) => nix,
        Setup::Missing(reason) => return Ok(NixOutcome::Skipped(reason)),
    };
    eprintln!("nix: {} against {}", nix.version(), nix.nixpkgs());

    step("nix flake check --no-build", || nix.flake_check())?;

    let mut checks = Checks::default();
    let node = step("read back nixosConfigurations.example", || {
        nix.apply("nixosConfigurations.example", expressions::EXAMPLE)
    })?;
    checks.example(&node);
    checks.dist_files(root, &node)?;
    let other = step("read back a node with everything set otherwise", || {
        nix.apply("nixosConfigurations.example", expressions::OTHERWISE)
    })?;
    checks.otherwise(&other);
    let variants = step("read back nodes with one thing otherwise", || {
        nix.apply("nixosConfigurations.example", expressions::VARIANTS)
    })?;
    checks.variants(&variants);
    let casts = casts(&nix, root, &mut checks)?;
    let refused = step("wrong configurations, as assertions", || {
        nix.apply("nixosConfigurations.example", expressions::REFUSED)
    })?;
    checks.refused(&refused);
    step("wrong configurations, as failed evaluations", || {
        for (settings, expected) in expressions::FAILING {
            let expression = expressions::toplevel_with(settings);
            checks.fails(&nix.apply_failing("nixosConfigurations.example", &expression)?, expected);
        }
        Ok(())
    })?;

    let agent_part = match agent {
        Some(binary) => {
            let mut configs =
                vec![&node["config"], &other["config"], &variants["witness"], &variants["arm"]["config"]];
            for (cast, machines) in &casts {
                configs.extend(cast.machines.keys().map(|name| &machines[name]["config"]));
                for (name, _) in cast.machines.iter().filter(|(_, part)| part.listed) {
                    checks.agent_knows_key(binary, name, &machines[name])?;
                }
            }
            for config in &configs {
                checks.agent_accepts(binary, config)?;
            }
            format!("{} config files and the test keys put to the agent", configs.len())
        }
        None => "nothing put to the agent, which is not built".to_owned(),
    };
    let count = checks.finish()?;
    Ok(NixOutcome::Passed(format!("flake check, {count} facts read back, {agent_part}")))
}

/// Reads back the machines of the VM tests, once for each different set of machines.
fn casts(nix: &Nix, root: &Path, checks: &mut Checks) -> Result<Vec<(Cast, Value)>> {
    let tests = "checks.x86_64-linux";
    let stories = stories::all(root)?;
    let names = step("read back the names of the VM tests", || nix.apply(tests, "builtins.attrNames"))?;
    checks.stories(&stories, &names);
    let mut casts: Vec<(Cast, Value)> = Vec::new();
    for story in &stories {
        let cast = story.facts.cast();
        if casts.iter().any(|(known, _)| *known == cast) {
            continue;
        }
        let machines = step(&format!("read back the machines of {}", story.name), || {
            nix.apply(&format!("{tests}.{}", story.attribute()), expressions::MACHINES)
        })?;
        checks.machines(&story.name, &cast, &machines);
        casts.push((cast, machines));
    }
    Ok(casts)
}

/// Runs one step and prints how long it took.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let result = work().with_context(|| format!("nix: {name}"));
    let mark = if result.is_ok() { " ok " } else { "FAIL" };
    eprintln!("{mark} {name} ({:.1} s)", began.elapsed().as_secs_f64());
    result
}
