//! The same calls are the same writes, in every process.

use std::process::Command;

use blixard_sim::SimRng;

use super::crash::{End, Run};
use super::workload::Workload;

/// Set in the process that this test starts: it only prints.
const CHILD: &str = "BLIXARD_SIM_TRACE_CHILD";
const MARK: &str = "trace ";

/// Every operation of two workloads, crashes between them included.
fn trace() -> String {
    let mut hashes = Vec::new();
    for workload in [Workload::fixed(), Workload::random(&mut SimRng::new(5), 60)] {
        let mut run = Run::new(&workload, 3);
        run.disk.start_trace();
        run.disk.crash_after(200);
        assert!(matches!(run.process(usize::MAX), End::Open(_) | End::Write(_)));
        run.disk.crash_power(blixard_sim::disk::Tear::Bytes);
        run.finish();
        hashes.push(run.disk.trace_hash().expect("started").to_string());
    }
    hashes.join(" ")
}

#[test]
fn the_same_calls_write_the_same_bytes_in_every_process() {
    let ours = trace();
    if std::env::var_os(CHILD).is_some() {
        println!("{MARK}{ours}");
        return;
    }
    assert_eq!(ours, trace(), "twice in one process");
    let name = "repeat::the_same_calls_write_the_same_bytes_in_every_process";
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&child.stdout);
    let theirs = text.lines().find_map(|line| line.split_once(MARK)).map(|(_, hash)| hash);
    assert_eq!(theirs, Some(ours.as_str()), "in another process");
}
