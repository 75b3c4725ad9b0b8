//! The simulated disk by itself: what it promises to whoever uses it.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use blixard_sim::SimRng;
use blixard_sim::disk::{CrashMoment, Gone, Op, SimDisk, Tear};
use blixard_store::StoreDisk;
use redb::StorageBackend;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new("/sim", SimRng::new(seed))
}

fn read(file: &dyn StorageBackend) -> Vec<u8> {
    let mut bytes = vec![0; file.len().expect("alive") as usize];
    file.read(0, &mut bytes).expect("within the file");
    bytes
}

/// A durable file of 4096 bytes of 1, with an unsynced write of 2 over all of it.
fn half_written(disk: &SimDisk) -> Box<dyn StorageBackend> {
    let file = disk.create("f").expect("made");
    file.write(0, &[1; 4096]).expect("written");
    file.sync_data().expect("synced");
    disk.sync_dir().expect("synced");
    file.write(0, &[2; 4096]).expect("written");
    file
}

/// What a power loss leaves of it, over many seeds.
fn left(tear: Tear) -> BTreeSet<Vec<u8>> {
    let one = |seed| {
        let disk = disk(seed);
        let _file = half_written(&disk);
        disk.crash_power(tear);
        read(&*disk.open("f").expect("durable"))
    };
    (0..300).map(one).collect()
}

#[test]
fn a_power_loss_keeps_what_was_synced_and_any_part_of_the_rest() {
    for (tear, unit) in [(Tear::Sectors, 512), (Tear::Bytes, 1)] {
        let left = left(tear);
        assert!(left.contains(&vec![1; 4096]) && left.contains(&vec![2; 4096]), "{tear:?}: all or nothing");
        assert!(left.len() > 20, "{tear:?}: only {} outcomes", left.len());
        for bytes in &left {
            let whole = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
            assert!(bytes.chunks(unit).all(whole), "{tear:?}: torn within a unit");
            assert!(bytes.iter().all(|byte| [1, 2].contains(byte)), "{tear:?}: never written");
        }
    }
}

#[test]
fn a_killed_process_leaves_all_it_wrote_and_dead_handles() {
    let disk = disk(1);
    let file = half_written(&disk);
    assert_eq!(read(&*file), [2; 4096], "reads see what is not synced");
    disk.crash_process();
    let stale = file.write(0, &[3; 10]).expect_err("of a process that is gone");
    let gone = stale.get_ref().and_then(|source| source.downcast_ref::<Gone>());
    assert_eq!(gone, Some(&Gone::Stale));
    assert_eq!(read(&*disk.open("f").expect("there")), [2; 4096]);
}

#[test]
fn a_name_is_durable_once_the_directory_is() {
    let kept = |synced: bool| {
        let one = |seed| {
            let disk = disk(seed);
            disk.create("a").and_then(|_| disk.rename("a", "b")).expect("done");
            if synced {
                disk.sync_dir().expect("synced");
            }
            disk.crash_power(Tear::Sectors);
            ["a", "b"].map(|name| disk.exists(name).expect("on"))
        };
        (0..50).map(one).collect::<BTreeSet<_>>()
    };
    assert_eq!(kept(true), BTreeSet::from([[false, true]]));
    assert_eq!(kept(false), BTreeSet::from([[false, false], [true, false], [false, true]]), "in order");
}

#[test]
fn the_scheduled_crash_comes_where_it_was_asked_for_and_is_counted() {
    let moments = [CrashMoment::Before, CrashMoment::Inside, CrashMoment::After];
    for (boundary, moment) in (0..).zip(moments) {
        let disk = disk(1);
        let file = half_written(&disk);
        disk.crash_after(boundary);
        let crashed = file.write(0, &[3; 4096]).expect_err("the machine is off");
        assert_eq!(crashed.kind(), ErrorKind::Other);
        assert!(disk.is_crashed() && file.len().is_err() && disk.sync_dir().is_err());
        assert_eq!(disk.points().count(Op::Write, moment), 1);
        disk.crash_process();
        let bytes = read(&*disk.open("f").expect("there"));
        let written = bytes.iter().filter(|byte| **byte == 3).count();
        match moment {
            CrashMoment::Before => assert_eq!(written, 0),
            CrashMoment::Inside => assert!(written < 4096, "{written}"),
            CrashMoment::After => assert_eq!(written, 4096),
        }
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_overwrites() {
    let disk = disk(1);
    let file = half_written(&disk);
    disk.set_capacity(Some(3 * 4096));
    file.set_len(10 * 4096).expect("a length needs no space");
    let full = file.write(4096, &[3; 4 * 4096]).expect_err("two blocks are left");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(read(&*file)[4096..5 * 4096], [[3; 2 * 4096], [0; 2 * 4096]].concat());
    file.write(0, &[4; 4096]).expect("its block is there");
    disk.set_capacity(None);
    file.write(3 * 4096, &[3; 4096]).expect("there is space again");
}

#[test]
fn a_failed_sync_drops_writes_that_no_later_one_brings_back() {
    let one = |seed| {
        let disk = disk(seed);
        let file = half_written(&disk);
        disk.fail_next_sync();
        assert_eq!(file.sync_data().expect_err("failed").raw_os_error(), Some(5));
        assert_eq!(read(&*file), [2; 4096], "the cache goes on showing it");
        file.sync_data().expect("as Linux does");
        disk.crash_power(Tear::Sectors);
        read(&*disk.open("f").expect("durable"))[0]
    };
    assert_eq!((0..50).map(one).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
}

#[test]
fn syncs_take_simulated_time() {
    let disk = disk(1);
    disk.set_sync_latency_us(2_500);
    let _file = half_written(&disk);
    assert_eq!(disk.take_latency_us(), 5_000);
    assert_eq!(disk.take_latency_us(), 0);
}
