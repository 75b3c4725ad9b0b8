//! The Debian packages that the lab and the tests need. Only those that are missing are installed.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::privilege::Privilege;

/// Something that has to be here, and the package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// A program looked for in PATH, or an absolute path.
    what: &'static str,
    /// The Debian package.
    package: &'static str,
    /// Whether things go on without it.
    optional: bool,
}

const fn need(what: &'static str, package: &'static str) -> Need {
    Need { what, package, optional: false }
}

const LAB_NEEDS: [Need; 9] = [
    need("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    need("dpkg-deb", "dpkg"),
    need("ip", "iproute2"),
    need("mmdebstrap", "mmdebstrap"),
    need("mount", "mount"),
    need("nsenter", "util-linux"),
    need("python3", "python3"),
    need("systemd-nspawn", "systemd-container"),
    need("zstd", "zstd"),
];

/// What the lab needs.
pub(crate) const LAB: &[Need] = &LAB_NEEDS;

/// What everything together needs.
pub(crate) const EVERYTHING: &[Need] = &[
    LAB_NEEDS[0],
    LAB_NEEDS[1],
    LAB_NEEDS[2],
    LAB_NEEDS[3],
    LAB_NEEDS[4],
    LAB_NEEDS[5],
    LAB_NEEDS[6],
    LAB_NEEDS[7],
    LAB_NEEDS[8],
    Need { what: "nix", package: "nix-bin", optional: true },
    Need { what: "pyflakes3", package: "pyflakes3", optional: true },
];

/// Directories that are searched beside PATH, because an ordinary user's PATH lacks those of root's programs.
const ALSO_SEARCHED: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Whether a program (or a file, given by its absolute path) is here.
pub(crate) fn is_here(what: &str) -> bool {
    if what.starts_with('/') {
        return Path::new(what).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(ALSO_SEARCHED.iter().map(Into::into))
        .any(|directory| directory.join(what).is_file())
}

/// Installs those of `needs` that are missing. Returns how long it took.
///
/// # Errors
/// When something that is needed cannot be installed here. The error says what to install by hand.
pub(crate) fn ensure(needs: &[Need]) -> Result<Duration> {
    let began = Instant::now();
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !is_here(need.what)).collect();
    let packages =
        |optional| missing.iter().filter(move |need| need.optional == optional).map(|need| need.package);
    let required: Vec<&str> = packages(false).collect();
    if !required.is_empty() {
        install(&required).with_context(|| {
            format!("missing here: {}; on Debian: apt-get install {0}", required.join(" "))
        })?;
    }
    for package in packages(true) {
        if let Err(error) = install(&[package]) {
            eprintln!("  …  going on without {package}: {error:#}");
        }
    }
    Ok(began.elapsed())
}

fn install(packages: &[&str]) -> Result<()> {
    if !is_here("apt-get") {
        bail!("this is no Debian: there is no apt-get");
    }
    let root = Privilege::find(false)?;
    let text = format!("installing {}", packages.join(" "));
    let began = Instant::now();
    let progress = spinner(&text);
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    // The package lists may be absent or old. Then the installation fails, and only then are they updated.
    let done = apt_get(root, &arguments)
        .or_else(|_| apt_get(root, &["update"]).and_then(|()| apt_get(root, &arguments)));
    progress.finish_and_clear();
    done?;
    eprintln!(" ok  {text} ({:.1} s)", began.elapsed().as_secs_f64());
    Ok(())
}

fn apt_get(root: Privilege, arguments: &[&str]) -> Result<()> {
    let quiet = [("DEBIAN_FRONTEND", OsStr::new("noninteractive"))];
    let output = root
        .command("apt-get", &quiet)
        .args(arguments)
        // sudo asks for the password at the terminal and not on stdin.
        .stdin(Stdio::null())
        .output()
        .context("apt-get could not be run")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get {} failed: {}", arguments[0], said.trim());
    }
    Ok(())
}

/// Shows that something takes long: with a spinner at a terminal, with one line elsewhere.
pub(crate) fn spinner(text: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if bar.is_hidden() {
        eprintln!("  …  {text}");
        return bar;
    }
    if let Ok(style) = ProgressStyle::with_template("  {spinner}  {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.set_message(text.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn programs_and_files_are_found() {
        assert!(is_here("sh"));
        assert!(is_here("/proc/self/stat"));
        assert!(!is_here("no-such-program-anywhere"));
        assert!(!is_here("/no/such/file"));
    }

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        ensure(&[need("sh", "dash")]).expect("nothing to install");
    }
}
