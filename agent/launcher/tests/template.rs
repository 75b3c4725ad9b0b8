//! The shipped units and the polkit rule: settings on which the isolation of guests rests, and things that
//! belong together.

const TEMPLATE: &str = include_str!("../../dist/systemd/blixard-vm@.service");

const LEASE_DIR: &str = include_str!("../../dist/systemd/blixard-lease-dir.service");
const LAST_RESORT: &str = include_str!("../../dist/systemd/blixard-last-resort.service");
const AGENT: &str = include_str!("../../dist/systemd/blixard.service");
const FORGET: &str = include_str!("../../dist/systemd/blixard-vm-forget@.service");
const RULE: &str = include_str!("../../dist/polkit/50-blixard.rules");

/// The values of a setting in the template, in their order.
fn values(setting: &str) -> Vec<&'static str> {
    TEMPLATE.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).collect()
}

#[test]
fn a_guest_chooses_neither_priority_nor_rate_of_its_console_lines() {
    assert_eq!(values("StandardOutput"), ["journal"]);
    assert_eq!(values("SyslogLevelPrefix"), ["no"]);
    assert_eq!(values("SyslogLevel"), [""; 0], "the default, info");
    assert_eq!(values("LogRateLimitIntervalSec"), ["30s"]);
    assert_eq!(values("LogRateLimitBurst"), ["1000"]);
}

/// A VM with a lease is ended by systemd where its supervisor cannot, and no other VM is.
#[test]
fn the_watchdog_that_a_supervisor_arms_ends_the_whole_unit_at_once() {
    assert_eq!(values("Type"), ["notify"]);
    // `main` would leave ExecStop= without a socket on which to arm the watchdog again.
    assert_eq!(values("NotifyAccess"), ["exec"]);
    assert_eq!(values("WatchdogSec"), [""; 0], "armed for each VM by its supervisor");
    assert_eq!(values("WatchdogSignal"), ["SIGKILL"]);
    assert_eq!(values("TimeoutAbortSec"), ["1s"]);
    assert_eq!(values("LimitCORE"), ["0"]);
    assert_eq!(values("Restart"), ["no"]);
}

/// While a lease has no end, a stop takes the watchdog away and is not told to systemd again: its own limit
/// ends a VM sooner than the watchdog would have.
#[test]
fn a_stop_is_over_sooner_than_the_watchdog_of_a_lease_without_an_end() {
    let [stop] = values("TimeoutStopSec")[..] else { panic!("one limit") };
    let seconds: u64 = stop.strip_suffix('s').and_then(|stop| stop.parse().ok()).expect("seconds");
    assert!(seconds * 1_000 < blixard_model::lease::ENDLESS_WATCHDOG_MS);
}

#[test]
fn the_root_helper_can_do_one_thing_and_the_polkit_rule_allows_its_start() {
    for line in [
        "ExecStart=/usr/bin/blixard vm-forget %i",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ReadWritePaths=-/run/systemd/system.control",
    ] {
        assert!(FORGET.lines().any(|found| found == line), "{line}");
    }
    assert!(RULE.contains(r"/^blixard-vm-forget@[a-z]([a-z0-9-]{0,46}[a-z0-9])?\.service$/"));
}

/// A directory that was removed comes back with the agent, and none is removed when anything ends.
#[test]
fn the_directory_of_the_lease_is_made_before_each_start_of_the_agent_and_stays() {
    for line in [
        "Type=oneshot",
        "User=blixard",
        "RuntimeDirectory=blixard-lease",
        "RuntimeDirectoryMode=0755",
        "RuntimeDirectoryPreserve=yes",
        "StartLimitIntervalSec=0",
    ] {
        assert!(LEASE_DIR.lines().any(|found| found == line), "{line}");
    }
    assert!(!LEASE_DIR.contains("RemainAfterExit"), "it runs again");
    let all = |key: &str| AGENT.lines().filter_map(move |line| line.strip_prefix(key)).collect::<String>();
    for key in ["Wants=", "After="] {
        assert!(all(key).split(' ').any(|unit| unit == "blixard-lease-dir.service"), "{key}");
    }
}

#[test]
fn the_last_resort_starts_with_the_agent_can_do_little_and_ends_with_nobody() {
    for line in [
        "ExecStart=/usr/bin/blixard last-resort --config /etc/blixard/config.toml",
        "CapabilityBoundingSet=CAP_SYS_BOOT CAP_KILL CAP_DAC_READ_SEARCH",
        "SystemCallFilter=@system-service reboot",
        "LimitMEMLOCK=infinity",
        "StartLimitIntervalSec=0",
        "PrivateNetwork=yes",
        "ProtectSystem=strict",
    ] {
        assert!(LAST_RESORT.lines().any(|found| found == line), "{line}");
    }
    for word in ["PartOf=", "BindsTo=", "Requires=", "ProtectProc=invisible"] {
        assert!(!LAST_RESORT.contains(word), "{word}");
    }
    assert!(
        AGENT.lines().any(|line| line.starts_with("Wants=") && line.contains("blixard-last-resort.service"))
    );
}

/// The values of a setting in the agent's unit, in their order.
fn of_the_agent(setting: &str) -> Vec<&'static str> {
    AGENT.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).collect()
}

/// A node whose agent does not get to its disk or its processor is taken for lost.
#[test]
fn the_agent_comes_before_vms_where_they_compete() {
    for setting in ["CPUWeight", "IOWeight"] {
        let [weight] = of_the_agent(setting)[..] else { panic!("one {setting}") };
        assert!(weight.parse::<u32>().expect("a number") > 100, "{setting}: 100 is what the VMs have");
        assert_eq!(values(setting), [""; 0], "the default, 100");
    }
}

/// Since systemd 258, polkit is asked by the unit's name for transient units too. With the rule alone, the
/// agent's user could start a unit of any content under the name of a VM's unit.
#[test]
fn the_polkit_rule_is_installed_only_together_with_the_template() {
    let package = include_str!("../../../modules/package.nix");
    let installs =
        |files: &str| package.lines().any(|line| line.contains("install ") && line.contains(files));
    assert!(installs("agent/dist/systemd/*.service") && installs("agent/dist/polkit/*.rules"));
    let lab = include_str!("../../../vm-tests/lab/package.py");
    assert!(lab.contains("\"systemd\": ") && lab.contains("\"polkit\": "));
    for unit in ["blixard-vm@", "blixard-vm-forget@"] {
        assert!(RULE.contains(&format!("/^{unit}[a-z]")), "{unit}");
    }
    assert_eq!(RULE.matches("/^").count(), 2, "a unit that the package does not bring");
}
