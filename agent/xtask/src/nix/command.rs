//! Finds `nix` and a nixpkgs, and evaluates with them. All command lines are here; no answer is judged here.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Environment variable with the directory of a nixpkgs to evaluate against.
pub(super) const NIXPKGS_VARIABLE: &str = "BLIXARD_NIXPKGS";
/// Files of the repository that the flake reads. They are copied from a tree without git.
const SOURCES: [&str; 8] =
    ["flake.nix", "flake.lock", "Cargo.toml", "Cargo.lock", "agent", "modules", "tests", "vm-tests"];

/// Whether Nix can evaluate here.
pub(super) enum Setup {
    /// It can.
    Ready(Nix),
    /// It cannot; holds the reason, for people.
    Missing(String),
}

/// A `nix` that can evaluate the flake.
pub(super) struct Nix {
    version: String,
    nixpkgs: String,
    flake: String,
    global: Vec<OsString>,
    of_flake: Vec<OsString>,
}

impl Nix {
    /// Looks for `nix`, for a store it may write to, and for a nixpkgs: the one given, or the flake's own.
    pub(super) fn find(root: &Path, nixpkgs: Option<PathBuf>) -> Result<Setup> {
        let Some(version) = version() else {
            return Ok(Setup::Missing("there is no nix here (Debian has it as nix-bin)".to_owned()));
        };
        let Some(global) = global_options(root) else {
            return Ok(Setup::Missing(format!("{version} cannot write to a store here")));
        };
        let mut nix = Self {
            version,
            nixpkgs: "the flake's own nixpkgs".to_owned(),
            flake: flake_reference(root)?,
            global,
            of_flake: vec!["--no-write-lock-file".into()],
        };
        match nixpkgs {
            Some(directory) => nix.override_nixpkgs(&directory)?,
            None => {
                if let Err(reason) = nix.fetch_own_nixpkgs() {
                    return Ok(Setup::Missing(format!(
                        "{} is not set and the flake's own cannot be fetched: {reason}",
                        NIXPKGS_VARIABLE
                    )));
                }
            }
        }
        Ok(Setup::Ready(nix))
    }

    /// What `nix --version` says.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Which nixpkgs is evaluated, for people.
    pub(super) fn nixpkgs(&self) -> &str {
        &self.nixpkgs
    }

    /// `nix flake check --no-build`.
    pub(super) fn flake_check(&self) -> Result<()> {
        let output = self.run(&["flake", "check", "--no-build"], &[self.flake.as_str().into()])?;
        ensure!(output.status.success(), "{}", complaint(&output));
        Ok(())
    }

    /// Applies the function in `expression` to an attribute of the flake, and reads the result.
    pub(super) fn apply(&self, attribute: &str, expression: &str) -> Result<Value> {
        let output = self.eval(attribute, expression)?;
        ensure!(output.status.success(), "{}", complaint(&output));
        serde_json::from_slice(&output.stdout).context("nix printed something else than JSON")
    }

    /// Like [`Nix::apply`], for an evaluation that has to fail. Returns what it printed on stderr.
    pub(super) fn apply_failing(&self, attribute: &str, expression: &str) -> Result<String> {
        let output = self.eval(attribute, expression)?;
        ensure!(!output.status.success(), "a wrong configuration was accepted: {expression}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn eval(&self, attribute: &str, expression: &str) -> Result<Output> {
        let target = format!("{}#{attribute}", self.flake);
        self.run(&["eval", "--json"], &[target.into(), "--apply".into(), expression.into()])
    }

    fn override_nixpkgs(&mut self, directory: &Path) -> Result<()> {
        let variable = NIXPKGS_VARIABLE;
        let directory =
            directory.canonicalize().with_context(|| format!("{variable} is {}", directory.display()))?;
        ensure!(directory.join("flake.nix").exists(), "{variable}: no flake.nix in {}", directory.display());
        let reference = reference_of(&directory)?;
        self.nixpkgs = directory.display().to_string();
        self.of_flake.extend(["--override-input", "nixpkgs", &reference, "--offline"].map(OsString::from));
        Ok(())
    }

    /// Fetches the flake's locked nixpkgs into the store. On a machine without a network this fails within
    /// seconds.
    fn fetch_own_nixpkgs(&self) -> Result<(), String> {
        let quick = ["--option", "connect-timeout", "5", "--option", "download-attempts", "1"];
        let arguments: Vec<OsString> =
            quick.iter().chain([&self.flake.as_str()]).map(OsString::from).collect();
        let output =
            self.run(&["flake", "archive", "--json"], &arguments).map_err(|error| format!("{error:#}"))?;
        let first_line =
            |text: String| text.trim_start_matches("error: ").lines().next().unwrap_or_default().to_owned();
        if output.status.success() { Ok(()) } else { Err(first_line(complaint(&output))) }
    }

    fn run(&self, verb: &[&str], arguments: &[OsString]) -> Result<Output> {
        Command::new("nix")
            .args(verb)
            .args(&self.global)
            .args(&self.of_flake)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("running nix")
    }
}

/// What `nix --version` prints; `None` if nix cannot be run.
fn version() -> Option<String> {
    let output = Command::new("nix").arg("--version").stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Options that every call needs here: the experimental features, and a store that can be written to.
///
/// With a daemon, or for the owner of a single-user store, no option for the store is needed. When root runs
/// Debian's package, there is neither a daemon nor are there build users, on which nix insists unless told
/// otherwise. Anybody else gets a store of their own below cargo's target directory.
fn global_options(root: &Path) -> Option<Vec<OsString>> {
    let own_store = root.join("target/nix-store").into_os_string();
    let no_build_users = ["--option", "build-users-group", ""].map(OsString::from).to_vec();
    let candidates =
        [Vec::new(), no_build_users.clone(), [no_build_users, vec!["--store".into(), own_store]].concat()];
    candidates.into_iter().find_map(|store| {
        let mut options: Vec<OsString> =
            vec!["--extra-experimental-features".into(), "nix-command flakes".into()];
        options.extend(store);
        can_write(&options).then_some(options)
    })
}

/// Whether nix can put a file into its store.
fn can_write(options: &[OsString]) -> bool {
    Command::new("nix")
        .args(["eval", "--raw"])
        .args(options)
        .args(["--expr", r#"builtins.toFile "blixard-probe" """#])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The flake reference of the repository, without its build output.
///
/// From a git repository, nix takes the tracked files. Any other tree would be copied whole, so the files
/// that the flake reads are first copied to a place below the target directory.
fn flake_reference(root: &Path) -> Result<String> {
    if root.join(".git").exists() {
        return reference_of(root);
    }
    let staged = root.join("target/nix-source");
    if staged.exists() {
        fs::remove_dir_all(&staged).with_context(|| format!("removing {}", staged.display()))?;
    }
    fs::create_dir_all(&staged).with_context(|| format!("making {}", staged.display()))?;
    for source in SOURCES {
        copy(&root.join(source), &staged.join(source))?;
    }
    reference_of(&staged)
}

/// The flake reference of a directory.
fn reference_of(directory: &Path) -> Result<String> {
    let Some(path) = directory.to_str() else {
        bail!("{} is not UTF-8, which nix cannot name", directory.display());
    };
    let mut encoded = String::new();
    for byte in path.bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(if directory.join(".git").exists() {
        // A shallow clone will do: the history is not needed.
        format!("git+file://{encoded}?shallow=1")
    } else {
        format!("path:{encoded}")
    })
}

/// Copies a file or a directory. Links are not followed.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status =
        Command::new("cp").arg("-a").arg(from).arg(to).stdin(Stdio::null()).status().context("running cp")?;
    ensure!(status.success(), "copying {} to {} failed", from.display(), to.display());
    Ok(())
}

/// The error of nix, without the warnings before it.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("error:")).collect();
    if lines.is_empty() { text.trim().to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn a_flake_reference_names_the_kind_of_directory_and_encodes_its_path() {
        let parent = std::env::temp_dir().join(format!("blixard nix #{}", std::process::id()));
        fs::create_dir_all(parent.join(".git")).unwrap();
        fs::create_dir_all(parent.join("plain")).unwrap();
        let repository = reference_of(&parent).unwrap();
        let plain = reference_of(&parent.join("plain")).unwrap();
        fs::remove_dir_all(&parent).unwrap();
        assert!(repository.starts_with("git+file:///") && repository.ends_with("?shallow=1"), "{repository}");
        assert!(repository.contains("blixard%20nix%20%23"), "{repository}");
        assert!(plain.starts_with("path:/") && plain.ends_with("/plain"), "{plain}");
    }

    #[test]
    fn the_warnings_before_an_error_of_nix_are_left_out() {
        let complaint_of = |stderr: &str| {
            let status = ExitStatus::from_raw(256);
            complaint(&Output { status, stdout: Vec::new(), stderr: stderr.as_bytes().to_vec() })
        };
        assert_eq!(complaint_of("warning: error: once more\nerror: no\n  at x\n"), "error: no\n  at x");
        assert_eq!(complaint_of(" killed\n"), "killed");
    }
}
