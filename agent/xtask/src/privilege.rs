//! Root, where it can be had: the lab makes mounts, namespaces and control groups, setup installs packages.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// How something is done as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is.
    Root,
    /// `sudo` does it, and may ask for a password.
    Sudo,
}

impl Privilege {
    /// Root or sudo; with `unattended`, only a sudo that asks nothing.
    ///
    /// # Errors
    /// When there is neither, with the way out.
    pub(crate) fn find(unattended: bool) -> Result<Self> {
        if ::nix::unistd::geteuid().is_root() {
            return Ok(Self::Root);
        }
        let silent = Command::new("sudo")
            .args(["--non-interactive", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        match silent {
            Ok(status) if status.success() => Ok(Self::Sudo),
            Ok(_) if !unattended && std::io::stdin().is_terminal() => Ok(Self::Sudo),
            Ok(_) => bail!("this needs root, and sudo asks for a password: run it as root"),
            Err(_) => bail!("this needs root, and there is no sudo: run it as root"),
        }
    }

    /// `program` as root, with these variables set.
    pub(crate) fn command(self, program: &str, variables: &[(&str, &std::ffi::OsStr)]) -> Command {
        match self {
            Self::Root => {
                let mut command = Command::new(program);
                command.envs(variables.iter().copied());
                command
            }
            // sudo drops the environment; env sets it again on the other side.
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("env");
                for (name, value) in variables {
                    let mut pair = std::ffi::OsString::from(name);
                    pair.push("=");
                    pair.push(value);
                    command.arg(pair);
                }
                command.arg(program);
                command
            }
        }
    }
}
