//! Network namespaces: two machines with a router between them, and nothing else.
//!
//! ```text
//!   n1 (10.91.0.1) ──── router (10.91.0.254) ──── n2 (10.91.0.2)
//! ```
//!
//! Whatever n1 and n2 send to other addresses than their own goes to the router, which is their default
//! route.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// The first three bytes of every address here.
pub(crate) const SUBNET: &str = "10.91.0";
/// The router's own address.
pub(crate) const ROUTER: &str = "10.91.0.254";
/// The gateway of the machines' default route.
const GATEWAY: &str = "10.91.255.254";

static MADE: AtomicU8 = AtomicU8::new(1);

/// The three namespaces; removed when this is dropped.
pub(crate) struct Namespaces {
    tag: String,
}

impl Namespaces {
    /// Makes the namespaces. With `forwards`, the router forwards packets between the machines.
    ///
    /// # Errors
    /// Why there can be none here: making them needs root and some programs.
    pub(crate) fn new(forwards: bool) -> Result<Self, String> {
        let tag = format!("blixard-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let made = Self { tag };
        run("ip", &["netns", "add", &made.router()])?;
        // A failure from here on is a failure of the test.
        made.lay_out(forwards).unwrap_or_else(|why| panic!("{why}"));
        Ok(made)
    }

    pub(crate) fn router(&self) -> String {
        format!("{}-r", self.tag)
    }

    /// The namespace of machine 1 or 2.
    pub(crate) fn machine(&self, number: usize) -> String {
        format!("{}-{number}", self.tag)
    }

    fn lay_out(&self, forwards: bool) -> Result<(), String> {
        let router = self.router();
        let in_router = |words: &str| run("ip", &in_namespace(&router, words));
        in_router("link set lo up")?;
        in_router(&format!("address add {ROUTER}/32 dev lo"))?;
        let forward = format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(forwards));
        run("nsenter", &[&format!("--net=/run/netns/{router}"), "sh", "-c", &forward])?;
        for number in [1, 2] {
            let machine = self.machine(number);
            run("ip", &["netns", "add", &machine])?;
            let in_machine = |words: &str| run("ip", &in_namespace(&machine, words));
            in_router(&format!("link add to{number} type veth peer name eth0 netns {machine}"))?;
            in_router(&format!("address add {GATEWAY}/32 dev to{number}"))?;
            in_router(&format!("link set to{number} up"))?;
            in_router(&format!("route add {SUBNET}.{number}/32 dev to{number}"))?;
            in_machine("link set lo up")?;
            in_machine(&format!("address add {SUBNET}.{number}/32 dev eth0"))?;
            in_machine("link set eth0 up")?;
            in_machine(&format!("route add {GATEWAY}/32 dev eth0"))?;
            in_machine(&format!("route add default via {GATEWAY}"))?;
        }
        Ok(())
    }

    /// Gives machine 1 or 2 an address that nobody outside of the machine can reach.
    pub(crate) fn add_inner_address(&self, number: usize, address: &str) {
        let machine = self.machine(number);
        let add = format!("address add {address} dev inner");
        for words in
            ["link add inner type veth peer name inside", "link set inside up", "link set inner up", &add]
        {
            run("ip", &in_namespace(&machine, words)).unwrap_or_else(|why| panic!("{why}"));
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [self.machine(1), self.machine(2), self.router()] {
            // Some of them may not exist.
            let _ = run("ip", &["netns", "delete", &name]);
        }
    }
}

fn in_namespace<'a>(namespace: &'a str, words: &'a str) -> Vec<&'a str> {
    ["-n", namespace].into_iter().chain(words.split(' ')).collect()
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let named = || format!("{program} {}", words.join(" "));
    let output =
        Command::new(program).args(words).output().map_err(|error| format!("{}: {error}", named()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", named(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// A command that runs in a network namespace, or in that of this process.
pub(crate) fn command(namespace: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path(namespace).display())).arg("--").arg(program);
    command
}

/// The file of a namespace.
pub(crate) fn path(namespace: &str) -> std::path::PathBuf {
    Path::new("/run/netns").join(namespace)
}
