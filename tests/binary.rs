//! The `blixard` program of this build, and one run of it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use blixard_model::api::ErrorBody;
use serde::de::DeserializeOwned;

/// The path of the program: `BLIXARD_BIN`, or the program next to this test, which cargo builds first so that
/// it is never an old one.
pub(crate) fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("BLIXARD_BIN") {
        Some(path) => PathBuf::from(path),
        None => build("blixard", ["--bin", "blixard"]).join("blixard"),
    })
}

/// The path of an example of a package, which cargo builds first.
pub(crate) fn example(package: &str, name: &str) -> PathBuf {
    build(package, ["--example", name]).join("examples").join(name)
}

/// Builds a target of a package with the profile of this test. Returns the folder of that profile.
fn build(package: &str, target: [&str; 2]) -> PathBuf {
    // target/PROFILE/deps/all-HASH
    let test = std::env::current_exe().expect("own path");
    let profile_dir = test.parent().and_then(Path::parent).expect("target/PROFILE");
    let target_dir = profile_dir.parent().expect("target");
    let profile = match profile_dir.file_name().and_then(OsStr::to_str).expect("profile") {
        "debug" => "dev",
        other => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", package, "--profile", profile])
        .args(target)
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{package} {target:?} cannot be built");
    profile_dir.to_owned()
}

/// The result of one run of the program.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Parses the one JSON document on stdout.
    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Parses the error on stderr as JSON.
    #[track_caller]
    pub(crate) fn error(&self) -> ErrorBody {
        assert_eq!(self.stdout, "", "{self:?}");
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks the exit code, and that stderr contains `needle`.
    #[track_caller]
    pub(crate) fn ends(&self, code: i32, needle: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(needle), "{needle:?} is not in {self:?}");
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let code = output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"));
        let run = Self { code, stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!run.stderr.contains("panicked"), "{run:?}");
        run
    }
}

/// Prepares a run against `socket`, with pipes. The socket in this process's own environment has no effect on
/// it.
pub(crate) fn command(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(path());
    command
        .args(args)
        .env("BLIXARD_SOCKET", socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) fn run(socket: &Path, args: &[&str]) -> Run {
    command(socket, args).output().expect("runs").into()
}

/// Runs the program to its end, with `input` on stdin.
pub(crate) fn run_with_input(socket: &Path, args: &[&str], input: &str) -> Run {
    let mut child = command(socket, args).stdin(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("is read");
    child.wait_with_output().expect("ends").into()
}

/// Sends the signal that Ctrl-C sends.
pub(crate) fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id()).expect("pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT)
        .expect("signal");
}
