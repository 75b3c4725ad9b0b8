//! What the supervisors of VMs cost a machine.

use std::fs;
use std::time::Duration;

use serde_json::json;

use super::numbers;
use crate::supervisor::Supervised;

/// VMs at a time.
const VMS: usize = 20;
/// How long their processor time is counted, in seconds.
const COUNTED_SECONDS: u64 = 10;

/// A figure of `/proc/PID/smaps_rollup`, in KiB.
fn memory_kib(pid: u32, figure: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let line = rollup.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).expect("a figure")
}

/// The processor time of a process, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn memory_and_processor_time_of_20_supervisors() {
    let supervised: Vec<Supervised> = (0..VMS).map(|_| Supervised::start("well")).collect();
    for one in &supervised {
        one.until("READY=1");
    }
    let pids: Vec<u32> = supervised.iter().map(Supervised::id).collect();
    let used = || pids.iter().map(|pid| ticks(*pid)).sum::<u64>();
    let before = used();
    std::thread::park_timeout(Duration::from_secs(COUNTED_SECONDS));
    let busy_ms = (used() - before) * 10;
    let most = |figure| pids.iter().map(|pid| memory_kib(*pid, figure)).max();
    let numbers = json!({
        "vms": VMS, "most_pss_kib": most("Pss"), "most_rss_kib": most("Rss"),
        "most_private_dirty_kib": most("Private_Dirty"),
        "all_busy_ms": busy_ms, "in_s": COUNTED_SECONDS,
    });
    numbers::print("supervisors", &numbers);
}
