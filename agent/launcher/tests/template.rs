//! The shipped template of a VM's unit: settings that a guest's isolation rests on.

const TEMPLATE: &str = include_str!("../../dist/systemd/blixard-vm@.service");

/// The values of a setting, in order.
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
