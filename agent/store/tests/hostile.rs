//! Records that no store wrote: refused with the file's name, and nobody panics. Files that are broken below
//! the records are redb's to notice; it ends the process at some of them.

use std::path::Path;

use blixard_consensus::{HardState, StoredSnapshot};
use blixard_hostile::Target;
use blixard_model::formation::Genesis;
use blixard_model::{ClusterId, ClusterVersion, EndpointId, RaftId, StoreId};
use blixard_store::{ClusterMarker, DirDisk, FILE_NAME, OpenError, Store};
use redb::{ReadableDatabase, TableDefinition};

fn open(dir: &Path) -> Result<Store, OpenError> {
    let cluster = "lab".parse().expect("name");
    Store::open(&DirDisk::new(dir), EndpointId::from_bytes([1; 32]), &cluster, StoreId::from_bytes([9; 16]))
}

/// Opens and reads everything; says how it ended.
fn read(dir: &Path) -> String {
    match open(dir).and_then(|store| store.load().map(|durable| (store, durable))) {
        Ok((store, durable)) => format!("{:?} {:?}", store.cluster().is_some(), durable.snapshot.is_some()),
        // The directory's name differs from run to run.
        Err(error) => error.to_string().replace(&dir.display().to_string(), ""),
    }
}

fn genesis() -> Genesis {
    Genesis {
        cluster_name: "lab".parse().expect("name"),
        voters: Vec::new(),
        origin: None,
        version: ClusterVersion::NEWEST,
    }
}

/// A store that belongs to a cluster.
fn bound(dir: &Path) {
    let mut store = open(dir).expect("made");
    store.set_promise(&genesis()).expect("kept");
    let marker = ClusterMarker {
        contacts: Vec::new(),
        cluster_id: ClusterId::from_bytes([3; 16]),
        genesis: genesis(),
        raft_id: RaftId(1),
        node_name: "n1".parse().expect("name"),
    };
    let snapshot = StoredSnapshot { index: 1, bytes: b"snapshot".to_vec() };
    store.bind(&marker, Some((snapshot, HardState { term: 1, vote: 0, commit: 1 }))).expect("bound");
}

/// The single records, by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const KEYS: [&str; 4] = ["identity", "cluster", "promise", "hard_state"];

#[test]
fn fuzz_store_records() {
    // In memory where there is such a place: each execution opens the file three times.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("dir");
    bound(dir.path());
    let path = dir.path().join(FILE_NAME);
    let db = redb::Database::open(&path).expect("opened");
    let values = KEYS.map(|key| {
        let table = db.begin_read().expect("read").open_table(META).expect("table");
        table.get(key).expect("read").expect("there").value().to_vec()
    });
    drop(db);
    let mut target = Target::new("store-records").len_max(16 << 10).heap_max(64 << 20);
    for (at, value) in (0..).zip(&values) {
        target = target.valid([&[at][..], value].concat());
    }
    target.words(["\"format\":", "\"endpoint_id\":", "\"voters\":[", "null", "{", "}"]).run(|bytes| {
        let Some((at, value)) = bytes.split_first() else { return "nothing".to_owned() };
        let at = usize::from(*at) % KEYS.len();
        let put = |value: &[u8]| {
            let db = redb::Database::open(&path).expect("opened");
            let mut txn = db.begin_write().expect("begun");
            txn.set_durability(redb::Durability::None).expect("set");
            txn.open_table(META).expect("table").insert(KEYS[at], value).expect("inserted");
            txn.commit().expect("committed");
            drop(db);
        };
        put(value);
        let words = read(dir.path());
        put(&values[at]);
        words
    });
}
