//! The store against what Raft and the product need of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use blixard_consensus::{HardState, LogWrite, StoredEntry, StoredSnapshot};
use blixard_model::formation::Genesis;
use blixard_model::{ClusterVersion, EndpointId, RaftId, StoreId};
use blixard_store::{ClusterMarker, DirDisk, LogStore, OpenError, Store};

fn endpoint(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 32])
}

fn open(dir: &Path) -> Result<Store, OpenError> {
    Store::open(&DirDisk::new(dir), endpoint(1), &"lab".parse().expect("name"), StoreId::from_bytes([9; 16]))
}

fn genesis(name: &str) -> Genesis {
    Genesis {
        cluster_name: name.parse().expect("name"),
        voters: Vec::new(),
        origin: None,
        version: ClusterVersion::NEWEST,
    }
}

fn marker(name: &str) -> ClusterMarker {
    ClusterMarker {
        contacts: Vec::new(),
        cluster_id: blixard_model::ClusterId::from_bytes([3; 16]),
        genesis: genesis(name),
        raft_id: RaftId(1),
        node_name: "n1".parse().expect("name"),
    }
}

fn entries(range: std::ops::Range<u64>, text: &str) -> Vec<StoredEntry> {
    range.map(|index| StoredEntry { index, bytes: format!("{text}{index}").into_bytes() }).collect()
}

fn append(store: &mut Store, entries: Vec<StoredEntry>) {
    store.write(&LogWrite { entries, sync: true, ..LogWrite::default() }).expect("write");
}

#[test]
fn an_empty_store_keeps_its_id_and_is_bound_to_no_cluster() {
    let dir = tempfile::tempdir().expect("dir");
    let first = open(dir.path()).expect("made");
    assert_eq!(first.store_id(), StoreId::from_bytes([9; 16]));
    let mode = std::fs::metadata(dir.path().join("store.redb")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(first);
    let cluster = "lab".parse().expect("name");
    let again = Store::open(&DirDisk::new(dir.path()), endpoint(1), &cluster, StoreId::from_bytes([8; 16]))
        .expect("opened");
    assert_eq!(again.store_id(), StoreId::from_bytes([9; 16]));
    assert_eq!(again.cluster(), None);
    assert_eq!(again.load().expect("read"), blixard_consensus::Durable::default());
}

#[test]
fn another_nodes_disk_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    drop(open(dir.path()).expect("made"));
    let cluster = "lab".parse().expect("name");
    let other = Store::open(&DirDisk::new(dir.path()), endpoint(2), &cluster, StoreId::from_bytes([8; 16]));
    assert!(matches!(other, Err(OpenError::OtherNode { .. })), "{other:?}");
}

#[test]
fn another_clusters_disk_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let mut store = open(dir.path()).expect("made");
    store.bind(&marker("other"), None).expect("bound");
    drop(store);
    let refused = open(dir.path());
    assert!(matches!(refused, Err(OpenError::OtherCluster { .. })), "{refused:?}");
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let _first = open(dir.path()).expect("made");
    let second = open(dir.path());
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
}

#[test]
fn a_broken_file_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("store.redb"), vec![7; 8192]).expect("write");
    let refused = open(dir.path()).expect_err("no store");
    assert!(refused.to_string().contains("counts as lost"), "{refused}");
}

#[test]
fn an_empty_file_is_no_new_store() {
    for size in [0, 1, 9, 4096] {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("store.redb"), vec![0; size]).expect("write");
        let refused = open(dir.path()).expect_err("no store");
        assert!(matches!(refused, OpenError::Broken { .. }), "{size}: {refused}");
    }
}

#[test]
fn a_cut_off_or_damaged_file_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("store.redb");
    let mut store = open(dir.path()).expect("made");
    append(&mut store, entries(1..2000, "entry"));
    drop(store);
    let whole = std::fs::read(&path).expect("read");
    for len in [1, 9, 100, 4096, 10_000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).expect("write");
        let refused = open(dir.path()).expect_err("cut off");
        assert!(refused.to_string().contains("counts as lost"), "{len}: {refused}");
    }
    let mut flipped = whole.clone();
    let at = whole.windows(8).rposition(|bytes| bytes == b"entry777").expect("there");
    flipped[at] ^= 1;
    std::fs::write(&path, &flipped).expect("write");
    let refused = open(dir.path()).expect_err("another content");
    assert!(refused.to_string().contains("counts as lost"), "{refused}");
    std::fs::write(&path, &whole).expect("write");
    assert_eq!(open(dir.path()).expect("whole").load().expect("read").entries.len(), 1999);
}

#[test]
fn a_crash_while_the_file_was_made_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("store.redb.new"), b"half").expect("write");
    open(dir.path()).expect("made");
}

#[test]
fn promise_cluster_and_log_come_back() {
    let dir = tempfile::tempdir().expect("dir");
    let mut store = open(dir.path()).expect("made");
    store.set_promise(&genesis("lab")).expect("promise");
    let snapshot = StoredSnapshot { index: 1, bytes: b"s".to_vec() };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    store.bind(&marker("lab"), Some((snapshot.clone(), hard_state))).expect("bound");
    append(&mut store, entries(2..5, "a"));
    let later = HardState { term: 2, vote: 3, commit: 4 };
    store.write(&LogWrite { hard_state: Some(later), ..LogWrite::default() }).expect("write");
    drop(store);

    let store = open(dir.path()).expect("opened");
    assert_eq!(store.promise(), Some(&genesis("lab")));
    assert_eq!(store.cluster(), Some(&marker("lab")));
    let durable = store.load().expect("read");
    assert_eq!(durable.snapshot, Some(snapshot));
    assert_eq!(durable.entries, entries(2..5, "a"));
    assert!(durable.hard_state == later || durable.hard_state == hard_state, "unsynced: one of the two");
}

#[test]
fn a_conflicting_suffix_is_replaced_whole() {
    let dir = tempfile::tempdir().expect("dir");
    let mut store = open(dir.path()).expect("made");
    append(&mut store, entries(2..10, "a"));
    append(&mut store, entries(5..7, "b"));
    let durable = store.load().expect("read");
    assert_eq!(durable.entries, [entries(2..5, "a"), entries(5..7, "b")].concat());
}

#[test]
fn a_snapshot_replaces_what_it_covers_and_a_leaders_replaces_all() {
    let dir = tempfile::tempdir().expect("dir");
    let mut store = open(dir.path()).expect("made");
    append(&mut store, entries(2..10, "a"));
    let write = |index, clear_log| LogWrite {
        snapshot: Some(StoredSnapshot { index, bytes: b"s".to_vec() }),
        clear_log,
        sync: true,
        ..LogWrite::default()
    };
    store.write(&write(6, false)).expect("write");
    let durable = store.load().expect("read");
    assert_eq!(durable.entries, entries(7..10, "a"));
    assert_eq!(durable.snapshot.map(|s| s.index), Some(6));
    store.write(&write(20, true)).expect("write");
    let durable = store.load().expect("read");
    assert_eq!(durable.entries, []);
    assert_eq!(durable.snapshot.map(|s| s.index), Some(20));
}

/// Free pages are used again: the file is as large as what it holds at most, several times over, and not as
/// all that was ever written.
#[test]
fn the_file_does_not_grow_with_the_number_of_writes() {
    const ENTRY_LEN: usize = 1 << 10;
    const ENTRIES: u64 = 256;
    const SNAPSHOT_LEN: usize = 256 << 10;
    /// A cut holds the old log, and the old snapshot beside the new one; pages are not filled, and redb takes
    /// space in steps.
    const BOUND: u64 = 6 * (ENTRIES * ENTRY_LEN as u64 + 2 * SNAPSHOT_LEN as u64);
    let dir = tempfile::tempdir().expect("dir");
    let mut store = open(dir.path()).expect("made");
    let mut index = 1;
    let mut lens = Vec::new();
    for round in 0..40_u8 {
        for _ in 0..ENTRIES / 32 {
            let entry = |index| StoredEntry { index, bytes: vec![round; ENTRY_LEN] };
            append(&mut store, (index + 1..=index + 32).map(entry).collect());
            index += 32;
        }
        let snapshot = Some(StoredSnapshot { index, bytes: vec![round; SNAPSHOT_LEN] });
        store.write(&LogWrite { snapshot, sync: true, ..LogWrite::default() }).expect("write");
        lens.push(std::fs::metadata(dir.path().join("store.redb")).expect("there").len());
    }
    assert!(lens.iter().all(|len| *len <= BOUND), "{BOUND} bytes is the most: {lens:?}");
    let (early, later) = lens.split_at(10);
    assert!(later.iter().max() <= early.iter().max(), "it has its size after a few rounds: {lens:?}");
}
