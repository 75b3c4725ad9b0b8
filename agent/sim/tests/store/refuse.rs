//! A disk that is full, or fails.

use blixard_model::formation::Genesis;
use blixard_model::{ClusterName, ClusterVersion, EndpointId, NodeName, StoreId};
use blixard_node::host::disk::{Write, Written, carry_out};
use blixard_sim::SimRng;
use blixard_sim::disk::{DiskRefusal, SimDisk, Tear};
use blixard_store::{DiskFault, Store};

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

/// A node that was removed has nothing more to write, and is worth more while it says so.
#[test]
fn only_a_removal_that_cannot_be_written_down_is_survived() {
    let me = (EndpointId::from_bytes([1; 32]), "n1".parse::<NodeName>().expect("a name"));
    let cluster_name = "lab".parse::<ClusterName>().expect("a name");
    let version = ClusterVersion::NEWEST;
    let genesis = Genesis { cluster_name, voters: Vec::new(), origin: None, version };
    for write in [Write::Removed, Write::Promise(Box::new(genesis.clone()))] {
        let disk = SimDisk::new("/sim", SimRng::new(1));
        let store_id = StoreId::from_bytes([1; 16]);
        let mut store = Store::open(&disk, me.0, &genesis.cluster_name, store_id).expect("opened");
        disk.refuse_after(0, DiskRefusal::Failed);
        let written = carry_out(&mut store, (me.0, &me.1), &write);
        match write {
            Write::Removed => {
                let Ok(Written::Removed { failure: Some(why) }) = written else { panic!("{written:?}") };
                assert!(!why.is_empty());
            }
            _ => assert!(written.expect_err("refused").disk_fault().is_some()),
        }
    }
}
