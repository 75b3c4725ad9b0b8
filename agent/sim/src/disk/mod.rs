//! A disk in memory that loses, tears and refuses what a real one may.
//!
//! [`SimDisk`] outlives the process that uses it: end it with [`SimDisk::crash_process`] or
//! [`SimDisk::crash_power`] and open the store again on the same disk. Never sleeps: how long syncs took is
//! added up and read with [`SimDisk::take_latency_us`].

mod backend;
mod file;
mod points;
mod refusal;
mod state;
mod tear;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blixard_store::StoreDisk;
use redb::StorageBackend;

use crate::{SimRng, planted};
use backend::SimBackend;
use state::DiskState;

pub use points::{CrashMoment, CrashPoints, Op};
pub use refusal::{DiskRefusal, Gone};
pub use tear::Tear;

/// What was durable at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image(BTreeMap<String, Vec<u8>>);

/// One machine's disk. A clone is the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    path: PathBuf,
    state: Arc<Mutex<DiskState>>,
}

impl SimDisk {
    /// An empty disk, shown as `path` in messages. Everything that is random about it comes from `rng`.
    pub fn new(path: impl Into<PathBuf>, rng: SimRng) -> Self {
        Self { path: path.into(), state: Arc::new(Mutex::new(DiskState::new(rng))) }
    }

    /// A panic of a test while it holds the lock leaves nothing half done that matters after it.
    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine crashes at the `boundaries`-th boundary from now (0: the next). Before and after every
    /// operation, and inside a write, is one. From then on everything fails with [`Gone::Crashed`] until
    /// [`SimDisk::crash_power`] or [`SimDisk::crash_process`].
    pub fn crash_after(&self, boundaries: u64) {
        self.state().faults.crash_after = Some(boundaries);
    }

    /// Whether the scheduled crash came.
    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    /// The machine loses its power now: of what was not synced, any part is kept. Open handles are stale.
    pub fn crash_power(&self, tear: Tear) {
        self.state().lose_power(tear);
    }

    /// The process is killed now: what it wrote is kept, synced or not. Open handles are stale.
    pub fn crash_process(&self) {
        self.state().end_process();
    }

    /// Boundaries passed since the disk was made: what [`SimDisk::crash_after`] counts in.
    pub fn boundaries(&self) -> u64 {
        self.state().boundaries
    }

    /// Operations since the disk was made: what [`SimDisk::refuse_after`] counts in.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Where it crashed so far.
    pub fn points(&self) -> CrashPoints {
        self.state().points.clone()
    }

    /// All files together may occupy at most this much, in blocks of 4 KiB; `None` for no limit. Overwriting
    /// and setting a length need no space, as on ext4.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state().faults.capacity_bytes = bytes;
    }

    /// What all files occupy, in bytes.
    pub fn used_bytes(&self) -> usize {
        self.state().used_bytes()
    }

    /// The `operations`-th operation from now (0: the next) is refused, that one alone. A refused sync is a
    /// failed one, see [`SimDisk::fail_next_sync`].
    pub fn refuse_after(&self, operations: u64, refusal: DiskRefusal) {
        self.state().faults.refuse_after = Some((operations, refusal));
    }

    /// The next sync of a file fails with EIO. Each write it was to make durable is so, or will never be,
    /// although later syncs succeed: that is what Linux does.
    pub fn fail_next_sync(&self) {
        self.state().faults.fail_sync = true;
    }

    /// Whether it is going to fail, or to refuse an operation.
    pub fn is_armed(&self) -> bool {
        let state = self.state();
        state.faults.fail_sync || state.faults.refuse_after.is_some()
    }

    /// Nothing is going to go wrong any more: no crash, no refusal, no limit, no latency.
    pub fn heal(&self) {
        self.state().faults = refusal::ArmedFaults::default();
    }

    /// How long each sync takes from now on, in simulated µs.
    pub fn set_sync_latency_us(&self, us: u64) {
        self.state().faults.sync_latency_us = us;
    }

    /// How long all syncs took since the last call, in simulated µs.
    pub fn take_latency_us(&self) -> u64 {
        std::mem::take(&mut self.state().latency_us)
    }

    /// A copy of what is durable.
    pub fn image(&self) -> Image {
        Image(self.state().durable())
    }

    /// Puts an earlier image back in place of everything; open handles are stale.
    pub fn restore(&self, image: &Image) {
        self.state().replace(&image.0);
    }

    /// The disk is a new, empty one; open handles are stale.
    pub fn wipe(&self) {
        self.state().replace(&BTreeMap::new());
    }

    /// The length of the file `name` as reads see it, in bytes; `None` if there is none.
    pub fn len(&self, name: &str) -> Option<usize> {
        let state = self.state();
        let file = state.inode(name).and_then(|inode| state.file(inode)).ok()?;
        Some(file.len())
    }

    /// Flips one bit of the file `name`, counted from its begin, durably and behind everybody's back. False
    /// if there is no such bit.
    pub fn flip_bit(&self, name: &str, bit: u64) -> bool {
        self.state().flip(name, bit)
    }

    /// From now on every operation that succeeds goes into a hash: kind, file, offset, length and data.
    pub fn start_trace(&self) {
        self.state().trace = Some(blake3::Hasher::new());
    }

    /// The hash of the operations since [`SimDisk::start_trace`]; `None` without it.
    pub fn trace_hash(&self) -> Option<blake3::Hash> {
        self.state().trace.as_ref().map(blake3::Hasher::finalize)
    }

    /// The state, for the process that runs now.
    fn running(&self) -> io::Result<MutexGuard<'_, DiskState>> {
        let state = self.state();
        state.alive(state.incarnation)?;
        Ok(state)
    }

    fn backend(&self, state: &DiskState, inode: state::Inode) -> Box<dyn StorageBackend> {
        Box::new(SimBackend { state: Arc::clone(&self.state), inode, incarnation: state.incarnation })
    }
}

impl StoreDisk for SimDisk {
    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.running()?.exists(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut state = self.running()?;
        let inode = state.create(planted::file_name(name))?;
        Ok(self.backend(&state, inode))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let state = self.running()?;
        let inode = state.inode(name)?;
        Ok(self.backend(&state, inode))
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        let mut state = self.running()?;
        let inode = state.inode(planted::file_name(name))?;
        state.sync_file(inode, Op::SyncFile)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.running()?.remove(planted::file_name(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if planted::file_name(from) == to {
            return Ok(());
        }
        self.running()?.rename(from, to)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        if planted::links_move() {
            return self.rename(from, to);
        }
        self.running()?.link(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.running()?.sync_dir()
    }
}
