//! The file.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use blixard_consensus::{Durable, HardState, LogWrite, StoredEntry, StoredSnapshot};
use blixard_model::formation::Genesis;
use blixard_model::id::ClusterName;
use blixard_model::{EndpointId, StoreId};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Boxed;
use crate::disk::StoreDisk;
use crate::error::{OpenError, ReplaceError, WriteError};
use crate::log_store::LogStore;
use crate::tables::{
    ClusterMarker, FORMAT, IdentityRecord, KEY_CLUSTER, KEY_HARD_STATE, KEY_IDENTITY, KEY_PROMISE,
    KEY_REMOVED, LOG, META, SNAPSHOT,
};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "store.redb";

/// The file while it is made.
const FRESH_NAME: &str = "store.redb.new";

/// An open store. Held by one process at a time (the file is locked).
#[derive(Debug)]
pub struct Store {
    db: Database,
    path: PathBuf,
    identity: IdentityRecord,
    cluster: Option<ClusterMarker>,
    promise: Option<Genesis>,
    removed: bool,
    failed: bool,
    stats: StoreStats,
}

/// What a store begins with that is made in another one's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Its id.
    pub store_id: StoreId,
    /// The cluster it belongs to.
    pub marker: ClusterMarker,
    /// The log.
    pub log: (StoredSnapshot, HardState),
}

/// Writes since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Commits that had reached the disk when they returned. Each is two fsyncs: redb commits in two phases.
    pub synced_writes: u64,
    /// How long those took, begin to end.
    pub synced_time: Duration,
    /// Commits that a later one makes durable.
    pub unsynced_writes: u64,
    /// Bytes of entries and snapshots in both.
    pub bytes: u64,
}

impl Store {
    /// Opens the store on `disk`, making an empty one under `fresh_store_id` if there is none.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is changed then.
    pub fn open(
        disk: &dyn StoreDisk,
        endpoint_id: EndpointId,
        cluster_name: &ClusterName,
        fresh_store_id: StoreId,
    ) -> Result<Self, OpenError> {
        let path = disk.path(FILE_NAME);
        if !disk.exists(FILE_NAME).map_err(io_error(&path))? {
            let identity = IdentityRecord { format: FORMAT, endpoint_id, store_id: fresh_store_id };
            create(disk, &identity, None)?;
            name_fresh(disk)?;
        }
        let store = Self::open_found(disk)?;
        let theirs = store.identity.endpoint_id;
        if theirs != endpoint_id {
            return Err(OpenError::OtherNode { path, theirs, ours: endpoint_id });
        }
        match &store.cluster {
            Some(marker) if marker.genesis.cluster_name != *cluster_name => {
                let theirs = marker.genesis.cluster_name.clone();
                Err(OpenError::OtherCluster { path, theirs, ours: cluster_name.clone() })
            }
            _ => Ok(store),
        }
    }

    /// Opens the store that is on `disk`, whosever it is and of whatever cluster.
    ///
    /// # Errors
    /// There is none, or as [`Store::open`].
    pub fn open_found(disk: &dyn StoreDisk) -> Result<Self, OpenError> {
        let path = disk.path(FILE_NAME);
        // Also for a file that was there: whoever made it may have ended between the rename and this, and a
        // power loss would take the name back after something was acknowledged under it.
        disk.sync_dir().map_err(io_error(&path))?;
        let db = open_database(disk, &path)?;
        let reader = TableReader::new(&db, &path)?;
        let identity: IdentityRecord = reader.record(KEY_IDENTITY)?.ok_or_else(|| OpenError::Record {
            path: path.clone(),
            what: "the identity is missing".to_owned(),
        })?;
        if identity.format > FORMAT {
            return Err(OpenError::Format { path, found: identity.format, known: FORMAT });
        }
        let cluster = reader.record(KEY_CLUSTER)?;
        let promise = reader.record(KEY_PROMISE)?;
        let removed = reader.record(KEY_REMOVED)?.unwrap_or(false);
        drop(reader);
        let stats = StoreStats::default();
        Ok(Self { db, path, identity, cluster, promise, removed, failed: false, stats })
    }

    /// Whose it is.
    pub fn endpoint_id(&self) -> EndpointId {
        self.identity.endpoint_id
    }

    /// This store's id.
    pub fn store_id(&self) -> StoreId {
        self.identity.store_id
    }

    /// The cluster it belongs to; `None` for an empty store.
    pub fn cluster(&self) -> Option<&ClusterMarker> {
        self.cluster.as_ref()
    }

    /// The genesis it promised to form.
    pub fn promise(&self) -> Option<&Genesis> {
        self.promise.as_ref()
    }

    /// Whether its node was removed from the cluster: it is of no use any more.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Writes down that its node was removed from the cluster.
    ///
    /// # Errors
    /// The disk's; final.
    pub fn set_removed(&mut self) -> Result<(), WriteError> {
        self.transaction(true, |txn| put(txn, KEY_REMOVED, &true))?;
        self.removed = true;
        Ok(())
    }

    /// Writes since it was opened.
    pub fn stats(&self) -> StoreStats {
        self.stats
    }

    /// Keeps a promise durably.
    ///
    /// # Errors
    /// The disk's; final.
    pub fn set_promise(&mut self, genesis: &Genesis) -> Result<(), WriteError> {
        self.transaction(true, |txn| put(txn, KEY_PROMISE, genesis))?;
        self.promise = Some(genesis.clone());
        Ok(())
    }

    /// Binds the empty store to a cluster, with the log to begin with (none for a node that waits for a
    /// snapshot).
    ///
    /// # Errors
    /// The disk's; final.
    pub fn bind(
        &mut self,
        marker: &ClusterMarker,
        begin: Option<(StoredSnapshot, HardState)>,
    ) -> Result<(), WriteError> {
        self.transaction(true, |txn| put_begin(txn, marker, begin.as_ref()))?;
        self.cluster = Some(marker.clone());
        Ok(())
    }

    /// Puts another store in this one's place, of the same node, which begins so. The old file stays as
    /// `kept_as`, unless there is nothing in it. Whoever opens the store finds the old one or the new one,
    /// whole, whatever happens meanwhile; this one is held until the end, so that no agent starts on it.
    ///
    /// # Errors
    /// [`ReplaceError::Undone`]: the old store is in its place. [`ReplaceError::Unknown`]: one of the two is.
    pub fn replace(self, disk: &dyn StoreDisk, begin: &Begin, kept_as: &str) -> Result<(), ReplaceError> {
        let identity = IdentityRecord { store_id: begin.store_id, ..self.identity.clone() };
        create(disk, &identity, Some(begin)).map_err(ReplaceError::Undone)?;
        let undone = |error| ReplaceError::Undone(io_error(&self.path)(error));
        let is_empty = self.cluster.is_none() && self.promise.is_none();
        // A second name, and not a new one: at no moment may there be no store, or an agent that starts then
        // makes an empty one and takes itself for a node that lost its disk.
        if !is_empty {
            disk.link(FILE_NAME, kept_as).map_err(undone)?;
        }
        // The name that the old file keeps is durable before it loses the other one.
        disk.sync_dir().map_err(undone)?;
        // The one step between the old store and the new one.
        let placed = name_fresh(disk).and_then(|()| disk.sync_dir().map_err(io_error(&self.path)));
        placed.map_err(ReplaceError::Unknown)
    }

    /// Reads back what Raft resumes from.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self) -> Result<Durable, OpenError> {
        TableReader::new(&self.db, &self.path)?.durable()
    }

    /// One transaction, all or nothing. After an error the store stays closed: what is on disk is what
    /// counts, and an fsync that failed once may lie when it is repeated.
    fn transaction(
        &mut self,
        sync: bool,
        work: impl FnOnce(&WriteTransaction) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::Closed);
        }
        self.failed = true;
        let begun = Instant::now();
        let mut txn = self.db.begin_write()?;
        if sync {
            // Quick repair keeps the allocator's state in the file, and brings two-phase commit: the checksum
            // of a one-phase commit is not cryptographic, and specs are user input.
            txn.set_quick_repair(true);
        } else {
            txn.set_durability(Durability::None)?;
        }
        work(&txn)?;
        txn.commit()?;
        self.failed = false;
        if sync {
            self.stats.synced_writes += 1;
            self.stats.synced_time += begun.elapsed();
        } else {
            self.stats.unsynced_writes += 1;
        }
        Ok(())
    }
}

impl LogStore for Store {
    type Error = WriteError;

    fn write(&mut self, batch: &LogWrite) -> Result<(), WriteError> {
        self.transaction(batch.sync, |txn| {
            if let Some(snapshot) = &batch.snapshot {
                write_snapshot(txn, snapshot, batch.clear_log)?;
            }
            write_entries(txn, &batch.entries)?;
            match &batch.hard_state {
                Some(hard_state) => put(txn, KEY_HARD_STATE, hard_state),
                None => Ok(()),
            }
        })?;
        let snapshot = batch.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes.len());
        let bytes = batch.entries.iter().map(|entry| entry.bytes.len()).sum::<usize>() + snapshot;
        self.stats.bytes += bytes as u64;
        Ok(())
    }
}

fn write_snapshot(
    txn: &WriteTransaction,
    snapshot: &StoredSnapshot,
    clear_log: bool,
) -> Result<(), WriteError> {
    let mut table = txn.open_table(SNAPSHOT)?;
    table.retain(|_, _| false)?;
    table.insert(snapshot.index, snapshot.bytes.as_slice())?;
    let mut log = txn.open_table(LOG)?;
    if clear_log {
        log.retain(|_, _| false)?;
    } else {
        log.retain_in(..=snapshot.index, |_, _| false)?;
    }
    Ok(())
}

fn write_entries(txn: &WriteTransaction, entries: &[StoredEntry]) -> Result<(), WriteError> {
    let Some(first) = entries.first() else { return Ok(()) };
    let mut log = txn.open_table(LOG)?;
    let conflicting = log.range(first.index..)?.next().is_some();
    if conflicting {
        log.retain_in(first.index.., |_, _| false)?;
    }
    for entry in entries {
        log.insert(entry.index, entry.bytes.as_slice())?;
    }
    Ok(())
}

fn put<T: Serialize>(txn: &WriteTransaction, key: &str, record: &T) -> Result<(), WriteError> {
    let bytes = serde_json::to_vec(record)?;
    txn.open_table(META)?.insert(key, bytes.as_slice())?;
    Ok(())
}

/// Makes a whole file under another name: a crash while making it leaves none. Its content is durable then.
fn create(disk: &dyn StoreDisk, identity: &IdentityRecord, begin: Option<&Begin>) -> Result<(), OpenError> {
    let fresh = disk.path(FRESH_NAME);
    match disk.remove(FRESH_NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&fresh)(error)),
        _ => {}
    }
    let backend = disk.create(FRESH_NAME).map_err(io_error(&fresh))?;
    let db = Database::builder()
        .create_with_backend(Boxed(backend))
        .map_err(|error| open_error(&fresh, error.into()))?;
    let first = || -> Result<(), WriteError> {
        let mut txn = db.begin_write()?;
        txn.set_quick_repair(true);
        put(&txn, KEY_IDENTITY, identity)?;
        txn.open_table(LOG)?;
        txn.open_table(SNAPSHOT)?;
        if let Some(begin) = begin {
            put_begin(&txn, &begin.marker, Some(&begin.log))?;
        }
        txn.commit()?;
        Ok(())
    };
    first().map_err(|error| match error {
        WriteError::Redb(error) => open_error(&fresh, error),
        error => OpenError::Record { path: fresh.clone(), what: error.to_string() },
    })?;
    db.close().map_err(|error| open_error(&fresh, error.into()))?;
    disk.sync_file(FRESH_NAME).map_err(io_error(&fresh))
}

/// Gives the file that [`create`] made its name. It is not durable yet.
fn name_fresh(disk: &dyn StoreDisk) -> Result<(), OpenError> {
    disk.rename(FRESH_NAME, FILE_NAME).map_err(io_error(&disk.path(FILE_NAME)))
}

fn put_begin(
    txn: &WriteTransaction,
    marker: &ClusterMarker,
    log: Option<&(StoredSnapshot, HardState)>,
) -> Result<(), WriteError> {
    put(txn, KEY_CLUSTER, marker)?;
    let Some((snapshot, hard_state)) = log else { return Ok(()) };
    put(txn, KEY_HARD_STATE, hard_state)?;
    txn.open_table(SNAPSHOT)?.insert(snapshot.index, snapshot.bytes.as_slice())?;
    Ok(())
}

/// Opens the file that is there, and checks all of it: redb trusts a file that was closed well, and would
/// serve a flipped bit of a log entry, or panic. redb would also make a new database of an empty file, and
/// so forget what was acknowledged: here it is broken.
fn open_database(disk: &dyn StoreDisk, path: &Path) -> Result<Database, OpenError> {
    let backend = disk.open(FILE_NAME).map_err(io_error(path))?;
    if backend.len().map_err(io_error(path))? == 0 {
        let empty = io::Error::new(io::ErrorKind::InvalidData, "the file is empty");
        return Err(open_error(path, redb::Error::Io(empty)));
    }
    Database::builder()
        .set_check_integrity_on_open(true)
        .create_with_backend(Boxed(backend))
        .map_err(|error| open_error(path, error.into()))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, source }
}

fn open_error(path: &Path, source: redb::Error) -> OpenError {
    let path = path.to_owned();
    match source {
        redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path },
        // What is in the file is wrong, and what is missing at its end as well; all else is the disk's.
        redb::Error::Io(source)
            if !matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Io { path, source }
        }
        source => OpenError::Broken { path, source },
    }
}

/// Reads with the file's name in every error.
struct TableReader {
    txn: redb::ReadTransaction,
    path: PathBuf,
}

impl TableReader {
    fn new(db: &Database, path: &Path) -> Result<Self, OpenError> {
        let txn = db.begin_read().map_err(|error| open_error(path, error.into()))?;
        Ok(Self { txn, path: path.to_owned() })
    }

    fn broken(&self, error: impl Into<redb::Error>) -> OpenError {
        open_error(&self.path, error.into())
    }

    fn record<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, OpenError> {
        let table = self.txn.open_table(META).map_err(|error| self.broken(error))?;
        let Some(bytes) = table.get(key).map_err(|error| self.broken(error))? else { return Ok(None) };
        let read = serde_json::from_slice(bytes.value());
        read.map(Some)
            .map_err(|error| OpenError::Record { path: self.path.clone(), what: format!("{key}: {error}") })
    }

    fn durable(&self) -> Result<Durable, OpenError> {
        let hard_state: HardState = self.record(KEY_HARD_STATE)?.unwrap_or_default();
        let snapshots = self.txn.open_table(SNAPSHOT).map_err(|error| self.broken(error))?;
        let snapshot = snapshots.last().map_err(|error| self.broken(error))?;
        let snapshot = snapshot
            .map(|(index, bytes)| StoredSnapshot { index: index.value(), bytes: bytes.value().to_vec() });
        let log = self.txn.open_table(LOG).map_err(|error| self.broken(error))?;
        let mut entries = Vec::new();
        for item in log.iter().map_err(|error| self.broken(error))? {
            let (index, bytes) = item.map_err(|error| self.broken(error))?;
            entries.push(StoredEntry { index: index.value(), bytes: bytes.value().to_vec() });
        }
        Ok(Durable { hard_state, snapshot, entries })
    }
}
