//! A disk that is full, or fails.

use blixard_sim::disk::{DiskRefusal, Tear};
use blixard_store::DiskFault;

use super::crash::{End, Run};
use super::workload::Workload;

/// Every process of a node on a full disk ends with an error, until there is space again.
fn fault(end: &End) -> Option<DiskFault> {
    match end {
        End::Done => None,
        End::Open(error) => error.disk_fault(),
        End::Write(error) => error.disk_fault(),
    }
}

/// Operations of the undisturbed workload, and what it occupies at last.
fn undisturbed(workload: &Workload) -> (u64, usize) {
    let mut run = Run::new(workload, 0);
    assert!(matches!(run.process(usize::MAX), End::Done));
    (run.disk.operations(), run.disk.used_bytes())
}

#[test]
fn a_full_disk_ends_the_process_and_loses_nothing() {
    let workload = Workload::fixed();
    let (_, used_bytes) = undisturbed(&workload);
    let mut ended = 0;
    for blocks in 0..=used_bytes / 4096 {
        let mut run = Run::new(&workload, blocks as u64);
        run.disk.set_capacity(Some(blocks * 4096));
        let end = run.process(usize::MAX);
        if !matches!(end, End::Done) {
            assert_eq!(fault(&end), Some(DiskFault::Full), "{blocks} blocks: {end:?}");
            ended += 1;
            // Restarted by systemd while there is still no space.
            run.disk.crash_process();
            let end = run.process(usize::MAX);
            assert!(matches!(fault(&end), Some(DiskFault::Full)), "{blocks} blocks: {end:?}");
        }
        run.disk.crash_process();
        run.finish();
    }
    assert!(ended > 10, "only {ended} of the sizes were too small");
    println!("{ended} sizes up to {used_bytes} bytes were too small");
}

/// Refuses each operation in turn; returns how often a process ended by it, and how often nobody noticed.
fn refuse_each(refusal: DiskRefusal, then_power: bool) -> (u64, u64) {
    let workload = Workload::fixed();
    let (operations, _) = undisturbed(&workload);
    let (mut ended, mut unnoticed) = (0, 0);
    let expected = match refusal {
        DiskRefusal::Full => DiskFault::Full,
        DiskRefusal::Failed => DiskFault::Failed,
    };
    for operation in 0..operations {
        let mut run = Run::new(&workload, operation);
        run.disk.refuse_after(operation, refusal);
        let end = run.process(usize::MAX);
        if matches!(end, End::Done) {
            unnoticed += 1;
        } else {
            assert_eq!(fault(&end), Some(expected), "operation {operation}: {end:?}");
            ended += 1;
            assert_eq!(run.disk.operations(), operation + 1, "something was done after a refusal: {end:?}");
        }
        run.disk.crash_process();
        if then_power {
            // The page cache shows the next process what never reached the disk.
            assert!(matches!(run.process(2), End::Done));
            run.disk.crash_power(Tear::Sectors);
        }
        run.finish();
    }
    (ended, unnoticed)
}

#[test]
fn a_refused_operation_ends_the_process_and_is_never_repeated() {
    for refusal in [DiskRefusal::Full, DiskRefusal::Failed] {
        let (ended, unnoticed) = refuse_each(refusal, false);
        println!("{refusal:?}: {ended} processes ended, {unnoticed} refusals while the store was closed");
        assert!(unnoticed < ended / 10, "{unnoticed} of {ended}");
    }
}

#[test]
fn what_a_failed_sync_dropped_is_not_missed_after_a_restart_and_a_power_loss() {
    let (ended, _) = refuse_each(DiskRefusal::Failed, true);
    assert!(ended > 0);
}
