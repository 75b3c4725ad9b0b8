//! The disk itself: files, their names, and what is going to go wrong.

use std::collections::BTreeMap;
use std::io;

use super::file::SimFile;
use super::points::{CrashMoment, CrashPoints, Op};
use super::refusal::{ArmedFaults, DiskRefusal, Gone};
use super::tear::Tear;
use crate::SimRng;

/// A file's number; never used twice.
pub(super) type Inode = u64;

/// A change of the directory that is not durable yet.
#[derive(Debug, Clone)]
enum NameOp {
    Link(String, Inode),
    Rename(String, String),
    Unlink(String),
}

/// One machine's disk.
#[derive(Debug)]
pub(super) struct DiskState {
    rng: SimRng,
    /// Goes up with every crash; handles of an earlier one are stale.
    pub(super) incarnation: u64,
    pub(super) crashed: bool,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    pending_names: Vec<NameOp>,
    files: BTreeMap<Inode, SimFile>,
    next_inode: Inode,
    pub(super) faults: ArmedFaults,
    pub(super) points: CrashPoints,
    pub(super) boundaries: u64,
    pub(super) operations: u64,
    pub(super) latency_us: u64,
    pub(super) trace: Option<blake3::Hasher>,
}

impl DiskState {
    pub(super) fn new(rng: SimRng) -> Self {
        Self {
            rng,
            incarnation: 0,
            crashed: false,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            files: BTreeMap::new(),
            next_inode: 0,
            faults: ArmedFaults::default(),
            points: CrashPoints::default(),
            boundaries: 0,
            operations: 0,
            latency_us: 0,
            trace: None,
        }
    }

    /// The machine is on, and `incarnation` is the process that runs on it.
    pub(super) fn alive(&self, incarnation: u64) -> io::Result<()> {
        if incarnation != self.incarnation {
            return Err(Gone::Stale.into());
        }
        if self.crashed { Err(Gone::Crashed.into()) } else { Ok(()) }
    }

    /// A point at which the machine may crash.
    fn boundary(&mut self, op: Op, moment: CrashMoment) -> io::Result<()> {
        self.boundaries += 1;
        if !self.faults.crash_is_due() {
            return Ok(());
        }
        self.points.add(op, moment);
        self.crashed = true;
        Err(Gone::Crashed.into())
    }

    /// What every operation begins with.
    fn begin(&mut self, op: Op) -> io::Result<Option<DiskRefusal>> {
        self.boundary(op, CrashMoment::Before)?;
        self.operations += 1;
        Ok(self.faults.refusal())
    }

    fn trace(&mut self, op: Op, inode: Inode, offset: u64, data: &[u8]) {
        let Some(trace) = &mut self.trace else { return };
        trace.update(&[op.code()]);
        for number in [inode, offset, data.len() as u64] {
            trace.update(&number.to_le_bytes());
        }
        trace.update(data);
    }

    pub(super) fn inode(&self, name: &str) -> io::Result<Inode> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn file(&self, inode: Inode) -> io::Result<&SimFile> {
        self.files.get(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file_mut(&mut self, inode: Inode) -> io::Result<&mut SimFile> {
        self.files.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.files.values().map(SimFile::used_bytes).sum()
    }

    fn free_bytes(&self) -> usize {
        self.faults.capacity_bytes.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<Inode> {
        if self.exists(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(refusal) = self.begin(Op::Create)? {
            return Err(refusal.error());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.files.insert(inode, SimFile::default());
        self.change_names(NameOp::Link(name.to_owned(), inode));
        self.trace(Op::Create, inode, 0, name.as_bytes());
        self.boundary(Op::Create, CrashMoment::After)?;
        Ok(inode)
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        let inode = self.inode(name)?;
        if let Some(refusal) = self.begin(Op::Remove)? {
            return Err(refusal.error());
        }
        self.change_names(NameOp::Unlink(name.to_owned()));
        self.trace(Op::Remove, inode, 0, name.as_bytes());
        self.boundary(Op::Remove, CrashMoment::After)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.inode(from)?;
        if let Some(refusal) = self.begin(Op::Rename)? {
            return Err(refusal.error());
        }
        self.change_names(NameOp::Rename(from.to_owned(), to.to_owned()));
        self.trace(Op::Rename, inode, 0, to.as_bytes());
        self.boundary(Op::Rename, CrashMoment::After)
    }

    pub(super) fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.inode(from)?;
        if self.exists(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(refusal) = self.begin(Op::Link)? {
            return Err(refusal.error());
        }
        self.change_names(NameOp::Link(to.to_owned(), inode));
        self.trace(Op::Link, inode, 0, to.as_bytes());
        self.boundary(Op::Link, CrashMoment::After)
    }

    pub(super) fn sync_dir(&mut self) -> io::Result<()> {
        let refusal = self.begin(Op::SyncDir)?;
        self.latency_us += self.faults.sync_latency_us;
        if let Some(refusal) = refusal {
            return Err(refusal.error());
        }
        for op in std::mem::take(&mut self.pending_names) {
            apply(&mut self.durable_names, &op);
        }
        self.trace(Op::SyncDir, 0, 0, &[]);
        self.boundary(Op::SyncDir, CrashMoment::After)
    }

    pub(super) fn sync_file(&mut self, inode: Inode, op: Op) -> io::Result<()> {
        let refusal = self.begin(op)?;
        self.latency_us += self.faults.sync_latency_us;
        let failed = std::mem::take(&mut self.faults.fail_sync).then_some(DiskRefusal::Failed);
        if let Some(refusal) = refusal.or(failed) {
            let mut rng = self.rng.fork();
            self.file_mut(inode)?.fail_sync(&mut rng);
            return Err(refusal.error());
        }
        self.file_mut(inode)?.sync();
        self.trace(op, inode, 0, &[]);
        self.boundary(op, CrashMoment::After)
    }

    pub(super) fn set_len(&mut self, inode: Inode, len: u64) -> io::Result<()> {
        if let Some(refusal) = self.begin(Op::SetLen)? {
            return Err(refusal.error());
        }
        self.file_mut(inode)?.set_len(len)?;
        self.trace(Op::SetLen, inode, len, &[]);
        self.boundary(Op::SetLen, CrashMoment::After)
    }

    pub(super) fn write(&mut self, inode: Inode, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(refusal) = self.begin(Op::Write)? {
            return Err(refusal.error());
        }
        let free_bytes = self.free_bytes();
        if let Err(crashed) = self.boundary(Op::Write, CrashMoment::Inside) {
            let part = usize::try_from(self.rng.below(data.len() as u64)).unwrap_or_default();
            self.file_mut(inode)?.write(offset, &data[..part], free_bytes)?;
            return Err(crashed);
        }
        self.file_mut(inode)?.write(offset, data, free_bytes)?;
        self.trace(Op::Write, inode, offset, data);
        self.boundary(Op::Write, CrashMoment::After)
    }

    fn change_names(&mut self, op: NameOp) {
        apply(&mut self.names, &op);
        self.pending_names.push(op);
    }

    /// The process is gone, the machine is not: what was written is there, synced or not.
    pub(super) fn end_process(&mut self) {
        self.incarnation += 1;
        self.crashed = false;
        self.faults.crash_after = None;
    }

    /// The power is gone: what was not synced is there, or not, or in part.
    pub(super) fn lose_power(&mut self, tear: Tear) {
        let kept = self.rng.below(self.pending_names.len() as u64 + 1);
        for (_, op) in (0..kept).zip(std::mem::take(&mut self.pending_names)) {
            apply(&mut self.durable_names, &op);
        }
        for file in self.files.values_mut() {
            file.lose_power(&mut self.rng, tear);
        }
        self.names.clone_from(&self.durable_names);
        self.drop_nameless();
        self.end_process();
    }

    fn drop_nameless(&mut self) {
        let named: Vec<Inode> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }

    /// What is durable, by name.
    pub(super) fn durable(&self) -> BTreeMap<String, Vec<u8>> {
        let content = |inode| self.files.get(inode).map(|file| file.durable_bytes().to_vec());
        self.durable_names.iter().filter_map(|(name, inode)| Some((name.clone(), content(inode)?))).collect()
    }

    /// Puts this content in place of everything; ends the process.
    pub(super) fn replace(&mut self, files: &BTreeMap<String, Vec<u8>>) {
        self.pending_names.clear();
        self.files.clear();
        self.names.clear();
        for (name, bytes) in files {
            self.names.insert(name.clone(), self.next_inode);
            self.files.insert(self.next_inode, SimFile::durable(bytes.clone()));
            self.next_inode += 1;
        }
        self.durable_names.clone_from(&self.names);
        self.end_process();
    }

    pub(super) fn flip(&mut self, name: &str, bit: u64) -> bool {
        let inode = self.inode(name);
        inode.and_then(|inode| self.file_mut(inode)).is_ok_and(|file| file.flip(bit))
    }
}

fn apply(names: &mut BTreeMap<String, Inode>, op: &NameOp) {
    match op {
        NameOp::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        NameOp::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameOp::Unlink(name) => {
            names.remove(name);
        }
    }
}
