//! `blixard vm-run` as systemd starts it, with a hypervisor that behaves as a test wants
//! (`agent/launcher/examples/fake_hypervisor.rs`). With QEMU and a guest: the story `paused_guest`.

mod lease;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blixard_model::ClusterId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binary;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A supervisor that does not run yet.
struct Prepared {
    dir: tempfile::TempDir,
    systemd: UnixDatagram,
    command: Command,
}

impl Prepared {
    fn run(mut self) -> Supervised {
        let (console, theirs) = UnixStream::pair().expect("sockets");
        console.set_read_timeout(Some(DEADLINE)).expect("set");
        let theirs = OwnedFd::from(theirs);
        self.command.stdout(theirs.try_clone().expect("another one")).stderr(theirs);
        let child = self.command.spawn().expect("runs");
        let Self { dir, systemd, .. } = self;
        Supervised { dir, systemd, child, console: BufReader::new(console) }
    }
}

/// A supervisor in a runtime directory of its own, and a systemd that hears it.
pub(crate) struct Supervised {
    dir: tempfile::TempDir,
    systemd: UnixDatagram,
    child: Child,
    /// What it and the hypervisor write to, which is one socket as in the unit.
    console: BufReader<UnixStream>,
}

impl Supervised {
    pub(crate) fn start(behaviour: &str) -> Self {
        Self::prepare(behaviour, None).run()
    }

    /// Everything but the process, which [`run`](Prepared::run) starts.
    fn prepare(behaviour: &str, lease: Option<ClusterId>) -> Prepared {
        let hypervisor = binary::example("blixard-launcher", "fake_hypervisor");
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("disks")).expect("a directory");
        for file in ["kernel", "disks/a.raw"] {
            fs::write(at(file), b"x").expect("written");
        }
        let mut order = serde_json::json!({
            "vm": {
                "name": "web", "cpus": 1, "memory_mib": 64, "kernel": at("kernel"),
                "cmdline": format!("fake={behaviour}"), "disks": [{ "path": at("disks/a.raw") }],
            },
            "accel": "tcg", "qemu": hypervisor, "disk_dirs": [at("disks")], "generation": 7,
        });
        if let Some(cluster_id) = lease {
            order["lease"] = serde_json::json!(cluster_id);
        }
        fs::write(at("order"), order.to_string()).expect("written");
        let systemd = UnixDatagram::bind(at("notify.sock")).expect("a socket");
        systemd.set_read_timeout(Some(DEADLINE)).expect("set");
        let mut command = Command::new(binary::path());
        command
            .args(["vm-run", "web", "--lease-dir"])
            .arg(at("lease"))
            .env("CREDENTIALS_DIRECTORY", dir.path())
            .env("RUNTIME_DIRECTORY", dir.path())
            .env("NOTIFY_SOCKET", at("notify.sock"))
            .stdin(Stdio::null());
        Prepared { dir, systemd, command }
    }

    /// Its process id.
    #[cfg(feature = "measure")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next notification.
    fn heard(&self) -> String {
        let mut bytes = [0; 4096];
        let len = self.systemd.recv(&mut bytes).expect("it says something");
        String::from_utf8(bytes[..len].to_vec()).expect("text")
    }

    /// Waits for a notification that says this. Returns the ones before it.
    pub(crate) fn until(&self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let heard = self.heard();
            if heard.contains(wanted) {
                return before;
            }
            assert!(!heard.contains("STATUS=ended"), "{wanted:?} is never said: {before:?} {heard:?}");
            before.push(heard);
        }
    }

    /// Waits for the last notification.
    fn until_ended(&self, wanted: &str) {
        loop {
            let heard = self.heard();
            if heard.contains("STATUS=ended") {
                return assert_eq!(heard.trim_end(), wanted);
            }
        }
    }

    /// The hypervisor's process.
    fn hypervisor(&mut self) -> Pid {
        let mut line = String::new();
        self.console.read_line(&mut line).expect("it says so");
        let pid = line.split(' ').nth(2).and_then(|pid| pid.parse().ok());
        Pid::from_raw(pid.unwrap_or_else(|| panic!("{line:?}")))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("sent");
    }

    /// Waits for the end. Returns the exit status, the last word to systemd, and what the supervisor said.
    fn ends(mut self) -> (Option<i32>, String, String) {
        let mut said = String::new();
        self.console.read_to_string(&mut said).expect("read");
        let said =
            said.lines().filter(|line| !line.starts_with("fake hypervisor ")).collect::<Vec<_>>().join("\n");
        let status = self.child.wait().expect("ends").code();
        self.systemd.set_nonblocking(true).expect("set");
        let mut last = String::new();
        let mut bytes = [0; 4096];
        while let Ok(len) = self.systemd.recv(&mut bytes) {
            last = String::from_utf8_lossy(&bytes[..len]).trim_end().to_owned();
        }
        (status, last, said)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Its hypervisor ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the process is gone.
fn is_gone(pid: Pid) {
    let begun = std::time::Instant::now();
    while kill(pid, None).is_ok() {
        assert!(begun.elapsed() < DEADLINE, "{pid} is still there");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_vm_is_started_told_of_and_stopped() {
    let supervised = Supervised::start("well");
    let before = supervised.until("READY=1\nSTATUS=running\n");
    assert_eq!(before, ["STATUS=starting\n"]);
    let mut status = String::new();
    let stream = UnixStream::connect(supervised.dir.path().join("status.sock"));
    stream.expect("it listens").read_to_string(&mut status).expect("read");
    assert_eq!(status, "running\n");
    supervised.signal(Signal::SIGTERM);
    let (code, last, said) = supervised.ends();
    assert_eq!((code, last.as_str(), said.as_str()), (Some(0), "STATUS=ended: stopped as asked", ""));
}

#[test]
fn a_guest_whose_disk_is_full_is_told_of_and_goes_on() {
    let supervised = Supervised::start("full");
    let disk = supervised.dir.path().join("disks/a.raw");
    supervised.until(&format!("STATUS=paused: disk0 {}: No space left on device\n", disk.display()));
    supervised.until("STATUS=running");
    supervised.signal(Signal::SIGTERM);
    assert_eq!(supervised.ends().0, Some(0));
}

#[test]
fn an_end_that_nobody_asked_for_has_a_status_and_a_reason() {
    for (behaviour, code, reason) in [
        ("gone", 15, "the hypervisor exited 3 before the guest ran"),
        ("shutdown", 10, "the guest shut itself down"),
        ("flood", 15, "the hypervisor's control connection was lost: a line longer than 65536 bytes"),
        ("garbage", 15, "the hypervisor's control connection was lost: not JSON"),
    ] {
        let (ended, last, said) = Supervised::start(behaviour).ends();
        assert_eq!(ended, Some(code), "{behaviour}: {said}");
        assert_eq!(last, format!("STATUS=ended: {reason}"), "{behaviour}");
        assert!(said.ends_with(reason), "{behaviour}: {said}");
    }
}

#[test]
fn an_order_that_cannot_be_carried_out_says_why() {
    let mut supervised = Supervised::start("well");
    supervised.until("READY=1");
    supervised.signal(Signal::SIGTERM);
    supervised.child.wait().expect("ends");
    let kernel = supervised.dir.path().join("kernel");
    fs::remove_file(&kernel).expect("removed");
    let run = Command::new(binary::path())
        .args(["vm-run", "web"])
        .env("CREDENTIALS_DIRECTORY", supervised.dir.path())
        .env("RUNTIME_DIRECTORY", supervised.dir.path())
        .env("NOTIFY_SOCKET", supervised.dir.path().join("notify.sock"))
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(15), "{said}");
    assert!(said.starts_with(&format!("kernel {:?}: No such file", kernel.display().to_string())), "{said}");
    while !supervised.heard().starts_with("STATUS=ended: kernel ") {}
}

#[test]
fn a_connection_that_the_hypervisor_closes_is_told_of_and_the_stop_ends_it_all_the_same() {
    let mut supervised = Supervised::start("close");
    let hypervisor = supervised.hypervisor();
    supervised.until("STATUS=not answering: its control connection was lost: the hypervisor closed it");
    supervised.signal(Signal::SIGTERM);
    let (code, _, said) = supervised.ends();
    assert_eq!(code, Some(0));
    // It hears that it is to end, and is not killed.
    assert_eq!(said, "the guest could not be asked to shut down: the hypervisor closed it");
    is_gone(hypervisor);
}

#[test]
fn a_console_that_nobody_reads_holds_up_neither_the_stop_nor_the_last_word() {
    for stop in [true, false] {
        let mut supervised = Supervised::start("deaf");
        supervised.until("READY=1");
        // Neither is there room for the words that each of these would have.
        if stop {
            supervised.signal(Signal::SIGTERM);
            supervised.until_ended("STATUS=ended: stopped as asked");
        } else {
            let hypervisor = supervised.hypervisor();
            kill(hypervisor, Signal::SIGTERM).expect("sent");
            supervised.until_ended("STATUS=ended: the hypervisor was killed by signal 15 (SIGTERM)");
        }
        assert_eq!(supervised.child.wait().expect("ends").code(), Some(if stop { 0 } else { 14 }));
    }
}

#[test]
fn a_hypervisor_does_not_outlive_its_supervisor() {
    let mut supervised = Supervised::start("well");
    let hypervisor = supervised.hypervisor();
    supervised.until("READY=1");
    supervised.signal(Signal::SIGKILL);
    is_gone(hypervisor);
    assert_eq!(supervised.ends().0, None);
}
