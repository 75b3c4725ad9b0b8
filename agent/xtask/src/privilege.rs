//! Root privileges, if they can be had: the lab makes mounts, namespaces and control groups, and setup
//! installs packages.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// How to run something as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// `sudo` runs it, and may ask for a password.
    Sudo,
}

impl Privilege {
    /// Finds root or sudo. With `unattended`, only a sudo that asks for no password counts.
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

    /// A command that runs `program` as root, with these environment variables.
    pub(crate) fn command(self, program: &str, variables: &[(&str, &std::ffi::OsStr)]) -> Command {
        match self {
            Self::Root => {
                let mut command = Command::new(program);
                command.envs(variables.iter().copied());
                command
            }
            // sudo drops the environment, so `env` sets the variables again.
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
