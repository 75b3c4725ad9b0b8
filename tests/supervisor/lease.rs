//! A VM that needs a lease: the supervisor's process, the file of an agent, and a systemd that is asked to
//! watch. A notification that is read confirms the barrier that came with it, because the other end of its
//! pipe closes.

use blixard_model::lease::ENDLESS_WATCHDOG_MS;
use blixard_model::{BootId, LeaseFile};
use nix::time::{ClockId, clock_gettime};

use super::*;

/// systemd kills a unit this long after the end of its lease: the supervisor has to be faster.
const WATCHDOG_LATER_MS: u64 = 1_000;

fn cluster() -> ClusterId {
    "0123456789abcdef0123456789abcdef".parse().expect("an id")
}

/// Now, in milliseconds of CLOCK_BOOTTIME.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the time");
    u64::try_from(now.tv_sec() * 1_000 + now.tv_nsec() / 1_000_000).expect("positive")
}

/// Waits for that moment.
fn reach(at_ms: u64) {
    while now_ms() < at_ms {
        std::thread::park_timeout(Duration::from_millis(at_ms.saturating_sub(now_ms()).max(1)));
    }
}

/// What an agent writes for the VM of these tests.
fn lease(until_ms: Option<u64>) -> LeaseFile {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("read");
    LeaseFile {
        boot_id: BootId::from_text(&boot),
        cluster_id: cluster(),
        until_ms,
        grant: None,
        enforces: None,
        vms: [("web".parse().expect("a name"), 7)].into(),
    }
}

/// Replaces the file as an agent does, and makes its directory if there is none.
fn put(dir: &std::path::Path, text: &str) {
    fs::create_dir_all(dir.join("lease")).expect("a directory");
    fs::write(dir.join("lease/.new"), text).expect("written");
    fs::rename(dir.join("lease/.new"), dir.join("lease/lease.json")).expect("renamed");
}

fn put_lease(dir: &std::path::Path, lease: &LeaseFile) {
    put(dir, &serde_json::to_string(lease).expect("JSON"));
}

/// One whose guest runs with a lease for this long. Returns the end of the lease as well.
fn running_for(behaviour: &str, ms: u64) -> (Supervised, Pid, u64) {
    let prepared = Supervised::prepare(behaviour, Some(cluster()));
    // It is long until the guest runs, however busy the machine is.
    put_lease(prepared.dir.path(), &lease(Some(now_ms() + 60_000)));
    let mut supervised = prepared.run();
    let hypervisor = supervised.hypervisor();
    supervised.until("STATUS=running");
    let until_ms = now_ms() + ms;
    supervised.put(&lease(Some(until_ms)));
    assert_watched(&supervised.heard(), "", until_ms);
    (supervised, hypervisor, until_ms)
}

/// Checks a notification that systemd is to watch: what is said before, and for how long.
#[track_caller]
fn assert_watched(heard: &str, before: &str, until_ms: u64) {
    let us = heard.strip_prefix(before).and_then(|rest| rest.trim_end().strip_prefix("WATCHDOG_USEC="));
    let us: u64 = us.and_then(|us| us.parse().ok()).unwrap_or_else(|| panic!("{heard:?}"));
    let least_ms = (until_ms + WATCHDOG_LATER_MS).saturating_sub(now_ms());
    if least_ms > ENDLESS_WATCHDOG_MS / 2 {
        // Of a long lease never for longer than a look allows.
        return assert_watched_endlessly(heard, before);
    }
    let least_us = least_ms * 1_000;
    assert!(us >= least_us, "{heard:?} is less than {least_us}");
    assert!(us <= least_us + u64::try_from(DEADLINE.as_micros()).expect("short"), "{heard:?}");
}

/// Checks a notification that systemd is to watch a lease without an end: never for longer than a look
/// allows.
#[track_caller]
fn assert_watched_endlessly(heard: &str, before: &str) {
    let us = heard.strip_prefix(before).and_then(|rest| rest.trim_end().strip_prefix("WATCHDOG_USEC="));
    let us: u64 = us.and_then(|us| us.parse().ok()).unwrap_or_else(|| panic!("{heard:?}"));
    assert!(us <= ENDLESS_WATCHDOG_MS * 1_000, "{heard:?}");
    // However busy the machine is.
    assert!(us > ENDLESS_WATCHDOG_MS * 500, "{heard:?}");
}

impl Supervised {
    fn put(&self, lease: &LeaseFile) {
        put_lease(self.dir.path(), lease);
    }

    /// Waits for the end of a hypervisor whose lease ends then.
    #[track_caller]
    fn ends_in_time(self, hypervisor: Pid, until_ms: u64, why: &str) {
        is_gone(hypervisor);
        let now_ms = now_ms();
        assert!(now_ms >= until_ms, "killed {} ms before its lease ended", until_ms - now_ms);
        let late_ms = now_ms - until_ms;
        println!("killed within {late_ms} ms");
        assert!(late_ms < WATCHDOG_LATER_MS, "killed {late_ms} ms late");
        let (code, last, said) = self.ends();
        assert_eq!((code, last), (Some(17), format!("STATUS=ended: its lease ended: {why}")), "{said}");
    }
}

#[test]
fn a_guest_runs_once_its_lease_allows_it_and_systemd_watches() {
    let supervised = Supervised::prepare("well", Some(cluster())).run();
    let why = "the agent has written no lease (does blixard.service run?)";
    assert_eq!(supervised.until(&format!("STATUS=waiting: for a lease: {why}")), ["STATUS=starting\n"]);
    let until_ms = now_ms() + 60_000;
    supervised.put(&lease(Some(until_ms)));
    let mut heard = supervised.until("BARRIER=1");
    heard.extend(supervised.until("STATUS=running\n"));
    // It waits no more, which may be told at any moment before.
    heard.retain(|heard| heard != "STATUS=starting\n");
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_watched(&heard[0], "READY=1\n", until_ms);
    supervised.signal(Signal::SIGTERM);
    let (code, last, _) = supervised.ends();
    assert_eq!((code, last.as_str()), (Some(0), "STATUS=ended: stopped as asked"));
}

#[test]
fn a_file_that_does_not_allow_it_lets_no_guest_run() {
    let until_ms = Some(now_ms() + 3_600_000);
    let other = "fedcba9876543210fedcba9876543210".parse().expect("an id");
    let json = |lease: &LeaseFile| serde_json::to_string(lease).expect("JSON");
    let older = LeaseFile { vms: [("web".parse().expect("a name"), 6)].into(), ..lease(until_ms) };
    for (text, why) in [
        ("{".to_owned(), "the agent's lease cannot be read: "),
        (
            json(&LeaseFile { boot_id: BootId::from_bytes([7; 16]), ..lease(until_ms) }),
            "the agent's lease is of an earlier",
        ),
        (
            json(&LeaseFile { cluster_id: other, ..lease(until_ms) }),
            "the agent's lease is of another cluster",
        ),
        (json(&LeaseFile { vms: [].into(), ..lease(until_ms) }), "the VM is not one of those"),
        (json(&older), "generation 6 of its placement may run on this node"),
        (json(&lease(Some(1))), "the agent did not renew it in time"),
    ] {
        let prepared = Supervised::prepare("well", Some(cluster()));
        put(prepared.dir.path(), &text);
        let supervised = prepared.run();
        supervised.until(&format!("STATUS=waiting: for a lease: {why}"));
        supervised.signal(Signal::SIGTERM);
        let (code, last, _) = supervised.ends();
        assert_eq!((code, last.as_str()), (Some(0), "STATUS=ended: stopped as asked"));
    }
}

#[test]
fn a_guest_is_killed_when_its_lease_has_ended() {
    let (supervised, hypervisor, until_ms) = running_for("well", 2_000);
    supervised.ends_in_time(hypervisor, until_ms, "the agent did not renew it in time");
    // A file that is gone, is none or says nothing of this boot renews nothing, and takes nothing away.
    let path = |supervised: &Supervised| supervised.dir.path().join("lease");
    let (supervised, hypervisor, until_ms) = running_for("well", 2_000);
    fs::remove_dir_all(path(&supervised)).expect("removed");
    let why = "it was not renewed: the agent has written no lease (does blixard.service run?)";
    supervised.ends_in_time(hypervisor, until_ms, why);
    let (supervised, hypervisor, until_ms) = running_for("well", 2_000);
    put(supervised.dir.path(), "{}");
    let file = path(&supervised).join("lease.json");
    let why = format!(
        "it was not renewed: the agent's lease cannot be read: {}: not a lease (line 1, column 2)",
        file.display()
    );
    supervised.ends_in_time(hypervisor, until_ms, &why);
    let (supervised, hypervisor, until_ms) = running_for("well", 2_000);
    supervised.put(&LeaseFile { boot_id: BootId::from_bytes([7; 16]), ..lease(None) });
    let why = "it was not renewed: the agent's lease is of an earlier boot of this machine";
    supervised.ends_in_time(hypervisor, until_ms, why);
}

#[test]
fn a_guest_that_may_not_run_here_any_more_is_killed_at_once() {
    let other = "fedcba9876543210fedcba9876543210".parse().expect("an id");
    let newer = [("web".parse().expect("a name"), 8)].into();
    for file in [
        LeaseFile { vms: [].into(), ..lease(Some(now_ms() + 600_000)) },
        LeaseFile { vms: newer, ..lease(Some(now_ms() + 600_000)) },
        LeaseFile { cluster_id: other, ..lease(None) },
    ] {
        let (supervised, hypervisor, _) = running_for("well", 600_000);
        supervised.put(&file);
        is_gone(hypervisor);
        let (code, last, said) = supervised.ends();
        assert_eq!(code, Some(17), "{said}");
        assert!(last.starts_with("STATUS=ended: its lease ended: "), "{last}");
    }
}

#[test]
fn a_lease_that_is_renewed_goes_on_and_systemd_hears_of_each_renewal() {
    let (supervised, hypervisor, first_ms) = running_for("well", 3_000);
    let mut until_ms = first_ms;
    for step in 1..=5 {
        reach(first_ms - 2_000 + 500 * step);
        until_ms += 60_000;
        supervised.put(&lease(Some(until_ms)));
        assert_watched(&supervised.heard(), "", until_ms);
    }
    // A directory that is made anew is found as well.
    fs::rename(supervised.dir.path().join("lease"), supervised.dir.path().join("old")).expect("renamed");
    until_ms += 60_000;
    supervised.put(&lease(Some(until_ms)));
    assert_watched(&supervised.heard(), "", until_ms);
    assert!(now_ms() > first_ms);
    assert!(kill(hypervisor, None).is_ok(), "it runs on");
    // One that has no end any more is watched all the same, and systemd hears at once of its next end.
    supervised.put(&lease(None));
    assert_watched_endlessly(&supervised.heard(), "");
    until_ms = now_ms() + 30_000;
    supervised.put(&lease(Some(until_ms)));
    assert_watched(&supervised.heard(), "", until_ms);
    supervised.signal(Signal::SIGTERM);
    assert_eq!(supervised.ends().0, Some(0));
}

#[test]
fn a_lease_without_an_end_is_watched_and_systemd_hears_again_and_again() {
    let prepared = Supervised::prepare("well", Some(cluster()));
    put_lease(prepared.dir.path(), &lease(None));
    let supervised = prepared.run();
    let mut heard = supervised.until("BARRIER=1");
    heard.extend(supervised.until("STATUS=running\n"));
    heard.retain(|heard| heard != "STATUS=starting\n");
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_watched_endlessly(&heard[0], "READY=1\n");
    assert_watched_endlessly(&supervised.heard(), "");
    // A file that says nothing takes nothing away.
    fs::remove_dir_all(supervised.dir.path().join("lease")).expect("removed");
    assert_watched_endlessly(&supervised.heard(), "");
    supervised.signal(Signal::SIGTERM);
    let (code, last, _) = supervised.ends();
    assert_eq!((code, last.as_str()), (Some(0), "STATUS=ended: stopped as asked"));
}

#[test]
fn a_supervisor_that_stood_still_looks_at_the_lease_first() {
    let (supervised, hypervisor, until_ms) = running_for("well", 2_000);
    supervised.signal(Signal::SIGSTOP);
    reach(until_ms + 500);
    assert!(kill(hypervisor, None).is_ok(), "here it is systemd's to kill it");
    let woken_ms = now_ms();
    supervised.signal(Signal::SIGCONT);
    supervised.ends_in_time(hypervisor, woken_ms, "the agent did not renew it in time");
    // One that was renewed meanwhile goes on.
    let (supervised, hypervisor, until_ms) = running_for("well", 2_000);
    supervised.signal(Signal::SIGSTOP);
    let later_ms = until_ms + 60_000;
    supervised.put(&lease(Some(later_ms)));
    reach(until_ms + 500);
    supervised.signal(Signal::SIGCONT);
    assert_watched(&supervised.heard(), "", later_ms);
    assert!(kill(hypervisor, None).is_ok());
}

#[test]
fn a_stop_is_cut_by_the_end_of_the_lease_and_systemd_goes_on_watching() {
    let (supervised, hypervisor, until_ms) = running_for("busy", 5_000);
    supervised.signal(Signal::SIGTERM);
    let mut told = 0;
    while told < 3 {
        let heard = supervised.heard();
        if heard.starts_with("STATUS=stopping: ") {
            continue;
        }
        let (extend, watch) = heard.split_once('\n').expect("two lines");
        assert_eq!(extend.replace("EXTEND_TIMEOUT_USEC=", "WATCHDOG_USEC="), watch.trim_end());
        assert_watched(&heard, &format!("{extend}\n"), until_ms);
        told += 1;
    }
    is_gone(hypervisor);
    assert!(now_ms() >= until_ms);
    let (code, last, said) = supervised.ends();
    assert_eq!((code, last.as_str()), (Some(0), "STATUS=ended: stopped as asked"));
    assert!(said.starts_with("the VM's lease ended before it had stopped: "), "{said}");
}

/// `vm-stop` as systemd runs it: the programs of ExecStop= get no credentials.
fn stop_program(supervised: &Supervised) -> Child {
    Command::new(binary::path())
        .args(["vm-stop", "web"])
        .env_remove("CREDENTIALS_DIRECTORY")
        .env("MAINPID", supervised.child.id().to_string())
        .env("RUNTIME_DIRECTORY", supervised.dir.path())
        .env("NOTIFY_SOCKET", supervised.dir.path().join("notify.sock"))
        .stderr(Stdio::null())
        .spawn()
        .expect("runs")
}

/// Hears that `vm-stop` tells systemd when the lease ends, as it does again and again: a reload of systemd
/// forgets it.
fn hear_stop_program(supervised: &Supervised, until_ms: u64) {
    let us = |line: &str| line.trim_end().split_once('=').and_then(|(_, us)| us.parse::<u64>().ok());
    loop {
        let heard = supervised.heard();
        let Some((extend, watch)) = heard.split_once('\n').filter(|(extend, _)| extend.starts_with("EXTEND"))
        else {
            continue;
        };
        assert_watched(&heard, &format!("{extend}\n"), until_ms);
        // SIGTERM, at the end of that time, would take the watchdog away. The supervisor's own is shorter.
        if us(extend) == us(watch).map(|us| us + 10_000_000) {
            return;
        }
    }
}

#[test]
fn a_stop_that_a_frozen_supervisor_does_not_hear_is_watched_by_who_asks_for_it() {
    let (supervised, hypervisor, until_ms) = running_for("well", 3_000);
    supervised.signal(Signal::SIGSTOP);
    let mut stop = stop_program(&supervised);
    for _ in 0..2 {
        hear_stop_program(&supervised, until_ms);
    }
    // SIGTERM, which takes the watchdog away again, comes only once it ends.
    reach(until_ms);
    assert!(stop.try_wait().expect("looked at").is_none());
    assert!(kill(hypervisor, None).is_ok(), "here it is systemd's to kill it");
    supervised.signal(Signal::SIGCONT);
    // It looks at the lease first. The word to stop may come before its hypervisor is gone.
    is_gone(hypervisor);
    supervised.until("STATUS=ended: ");
    assert!(stop.wait().expect("ends").success());
}

#[test]
fn who_asks_for_a_stop_has_it_watched_when_the_supervisor_stands_still_after_it_was_asked() {
    let (supervised, hypervisor, until_ms) = running_for("busy", 4_000);
    let mut stop = stop_program(&supervised);
    supervised.until("STATUS=stopping: the guest is asked to shut down\n");
    supervised.signal(Signal::SIGSTOP);
    for _ in 0..2 {
        hear_stop_program(&supervised, until_ms);
    }
    reach(until_ms);
    assert!(stop.try_wait().expect("looked at").is_none());
    assert!(kill(hypervisor, None).is_ok(), "here it is systemd's to kill it");
    supervised.signal(Signal::SIGCONT);
    is_gone(hypervisor);
    assert!(stop.wait().expect("ends").success());
    assert_eq!(supervised.ends().0, Some(0));
}

#[test]
fn who_asks_for_a_stop_stays_until_the_vm_has_ended() {
    let (supervised, hypervisor, until_ms) = running_for("well", 60_000);
    // A lease that holds for longer than a stop may last is left to systemd's signals.
    assert!(stop_program(&supervised).wait().expect("ends").success());
    assert!(kill(hypervisor, None).is_ok());
    supervised.put(&lease(Some(until_ms - 40_000)));
    assert_watched(&supervised.heard(), "", until_ms - 40_000);
    assert!(stop_program(&supervised).wait().expect("ends").success());
    is_gone(hypervisor);
    assert_eq!(supervised.ends().0, Some(0));
}

#[test]
fn a_systemd_that_does_not_confirm_lets_no_guest_run() {
    let prepared = Supervised::prepare("well", Some(cluster()));
    put_lease(prepared.dir.path(), &lease(Some(now_ms() + 3_600_000)));
    // Nobody reads what it is told before the end.
    let (code, last, said) = prepared.run().ends();
    let why = "systemd's watchdog could not be armed: it has not confirmed within 5 s";
    assert_eq!((code, last), (Some(15), format!("STATUS=ended: {why}")), "{said}");
    // Nor is it told anything.
    let prepared = Supervised::prepare("well", Some(cluster()));
    put_lease(prepared.dir.path(), &lease(Some(now_ms() + 3_600_000)));
    fs::remove_file(prepared.dir.path().join("notify.sock")).expect("removed");
    let (code, _, said) = prepared.run().ends();
    assert_eq!(code, Some(15));
    assert!(said.contains("systemd's watchdog could not be armed: systemd cannot be told: "), "{said}");
}

#[test]
fn without_systemd_nobody_is_asked_to_watch() {
    let mut prepared = Supervised::prepare("well", Some(cluster()));
    prepared.command.env_remove("NOTIFY_SOCKET");
    put_lease(prepared.dir.path(), &lease(Some(now_ms() + 60_000)));
    let begun_ms = now_ms();
    let mut supervised = prepared.run();
    let hypervisor = supervised.hypervisor();
    let mut status = String::new();
    while status != "running\n" {
        assert!(now_ms() < begun_ms + 60_000, "{status}");
        status.clear();
        if let Ok(mut stream) = UnixStream::connect(supervised.dir.path().join("status.sock")) {
            stream.read_to_string(&mut status).expect("read");
        }
    }
    let until_ms = now_ms() + 1_000;
    supervised.put(&lease(Some(until_ms)));
    is_gone(hypervisor);
    assert!(now_ms() >= until_ms);
    assert_eq!(supervised.ends().0, Some(17));
}

#[test]
fn a_vm_that_needs_a_lease_is_not_run_without_a_supervisor() {
    let prepared = Supervised::prepare("well", Some(cluster()));
    put_lease(prepared.dir.path(), &lease(None));
    let run = Command::new(binary::path())
        .args(["vm-exec", "web"])
        .env("CREDENTIALS_DIRECTORY", prepared.dir.path())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(said.contains("VM web needs a lease, and so a supervisor"), "{said}");
    assert!(!run.status.success() && run.stdout.is_empty());
}
