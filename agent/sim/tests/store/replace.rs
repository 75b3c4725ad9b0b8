//! A store is put in another one's place, and the machine crashes anywhere: the old one or the new one is
//! there, whole, and never neither.

use blixard_consensus::{HardState, StoredSnapshot};
use blixard_model::{ClusterId, RaftId};
use blixard_sim::SimRng;
use blixard_sim::disk::{CrashPoints, DiskRefusal, Op, SimDisk, Tear};
use blixard_store::{Begin, FILE_NAME, ReplaceError};

use super::workload::{Held, Workload, held, id, open};

const KEPT_AS: &str = "store.redb.before";
const ENDS: [Option<Tear>; 3] = [Some(Tear::Sectors), Some(Tear::Bytes), None];

/// What the new store begins with.
fn begin(old: &Held) -> Begin {
    let mut marker = old.cluster.clone().expect("bound");
    marker.cluster_id = ClusterId::from_bytes([4; 16]);
    marker.raft_id = RaftId(7);
    let snapshot = StoredSnapshot { index: 40, bytes: vec![7; 20_000] };
    Begin { store_id: id(77), marker, log: (snapshot, HardState { term: 5, vote: 0, commit: 40 }) }
}

/// A disk with a store that was written to, and what is in it.
fn written(workload: &Workload, seed: u64) -> (SimDisk, Held) {
    let disk = SimDisk::new("/sim", SimRng::new(seed));
    let mut store = open(&disk, id(1)).expect("made");
    for step in &workload.steps {
        step.write(&mut store).expect("written");
    }
    let old = held(&store).expect("read");
    drop(store);
    (disk, old)
}

fn replace(disk: &SimDisk, begin: &Begin) -> Result<(), Option<ReplaceError>> {
    let store = open(disk, id(9)).map_err(|_| None)?;
    store.replace(disk, begin, KEPT_AS).map_err(Some)
}

/// Whether the store that is opened is the new one; it is one of the two.
fn is_new(disk: &SimDisk, begin: &Begin, old: &Held) -> bool {
    let store = open(disk, id(99)).expect("one of the two is there");
    let found = held(&store).expect("read");
    if store.store_id() == id(1) {
        assert_eq!(found, *old);
        return false;
    }
    assert_eq!(store.store_id(), begin.store_id, "neither of the two");
    let durable = blixard_consensus::Durable {
        hard_state: begin.log.1,
        snapshot: Some(begin.log.0.clone()),
        entries: Vec::new(),
    };
    assert_eq!(found, Held { promise: None, cluster: Some(begin.marker.clone()), durable });
    true
}

#[test]
fn a_crash_at_any_boundary_leaves_the_old_store_or_the_new_one() {
    let workload = Workload::fixed();
    let (disk, old) = written(&workload, 0);
    let begin = begin(&old);
    let before = disk.boundaries();
    replace(&disk, &begin).expect("replaced");
    let all = disk.boundaries() - before;
    assert!(is_new(&disk, &begin, &old));

    let (mut table, mut news) = (CrashPoints::default(), 0);
    for boundary in 0..all {
        for (n, tear) in ENDS.into_iter().enumerate() {
            let (disk, old) = written(&workload, boundary * 3 + n as u64);
            disk.crash_after(boundary);
            let done = replace(&disk, &begin).is_ok();
            match tear {
                Some(tear) => disk.crash_power(tear),
                None => disk.crash_process(),
            }
            disk.heal();
            let new = is_new(&disk, &begin, &old);
            assert!(new || !done, "a replacement that was told is taken back");
            news += u64::from(new);
            table.merge(&disk.points());
            disk.crash_process();
            // It is done again; what was left behind is in nobody's way.
            let again = disk.len(KEPT_AS).map_or(KEPT_AS, |_| "store.redb.again");
            let store = open(&disk, id(9)).expect("opened");
            store.replace(&disk, &begin, again).expect("replaced");
            assert!(is_new(&disk, &begin, &old));
        }
    }
    println!("{table}\n{} crashes, {news} times the new one was there", table.total());
    let missed: Vec<_> = table.below(1).into_iter().filter(|(op, _)| *op == Op::Link).collect();
    assert_eq!(missed, [], "boundaries that were never reached");
}

#[test]
fn a_disk_that_refuses_leaves_the_old_store_or_says_that_it_is_not_known() {
    let workload = Workload::fixed();
    let (disk, old) = written(&workload, 0);
    let begin = begin(&old);
    let before = disk.operations();
    replace(&disk, &begin).expect("replaced");
    let all = disk.operations() - before;
    for operation in 0..all {
        for refusal in [DiskRefusal::Full, DiskRefusal::Failed] {
            let (disk, old) = written(&workload, operation);
            disk.refuse_after(operation, refusal);
            let end = replace(&disk, &begin);
            disk.crash_power(Tear::Sectors);
            disk.heal();
            match end {
                // Refused where nobody looks: as the old file is closed.
                Ok(()) => assert!(is_new(&disk, &begin, &old)),
                Err(None | Some(ReplaceError::Undone(_))) => assert!(!is_new(&disk, &begin, &old)),
                Err(Some(ReplaceError::Unknown(_))) => _ = is_new(&disk, &begin, &old),
            }
        }
    }
}

#[test]
fn what_is_replaced_stays_under_another_name() {
    let workload = Workload::fixed();
    let (disk, old) = written(&workload, 0);
    replace(&disk, &begin(&old)).expect("replaced");
    blixard_store::StoreDisk::rename(&disk, KEPT_AS, FILE_NAME).expect("put back");
    let store = open(&disk, id(9)).expect("opened");
    assert_eq!((store.store_id(), held(&store).expect("read")), (id(1), old));
}
