//! Where things are: the repository, cargo's target directory, cargo itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The directories in which a task works.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    target: PathBuf,
}

impl Place {
    /// Finds the directories, from where this program was built and where it runs.
    ///
    /// # Errors
    /// When this program is not where cargo puts it.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.ancestors().nth(2).context("xtask does not lie in agent/xtask")?.to_owned();
        let program = std::env::current_exe().context("where does this program lie?")?;
        // target/PROFILE/xtask
        let target =
            program.ancestors().nth(2).context("xtask does not run from cargo's target directory")?;
        Ok(Self { root, target: target.to_owned() })
    }

    /// The repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The path of the agent that the dev profile builds. The file need not exist.
    pub(crate) fn agent(&self) -> PathBuf {
        self.target.join("debug").join("blixard")
    }

    /// A command that runs cargo in the repository.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        // `cargo run` sets these variables for this program's own package. Build scripts would take them for
        // a change.
        command.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
        command
    }

    /// Builds the agent, while cargo shows its progress on stderr. Returns how long it took.
    ///
    /// # Errors
    /// When the agent does not build.
    pub(crate) fn build_agent(&self) -> Result<Duration> {
        let began = Instant::now();
        eprintln!("  …  building the agent");
        let built = self
            .cargo()
            .args(["build", "--package", "blixard"])
            .stdout(Stdio::null())
            .status()
            .context("cargo could not be run")?;
        ensure!(built.success(), "the agent does not build; cargo says why above");
        eprintln!(" ok  building the agent ({:.1} s)", began.elapsed().as_secs_f64());
        Ok(began.elapsed())
    }
}
