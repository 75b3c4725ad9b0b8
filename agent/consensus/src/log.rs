//! The log in memory: what Raft reads while the store keeps it.
//!
//! Holds the entries after a base (the last index that was compacted away) and the hard state. Invariant: all
//! that it holds is in a write that was handed out before, or that the call hands out which puts it here.

use std::cell::Cell;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// How large the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Entries kept in memory.
    pub entries: usize,
    /// Their size in bytes.
    pub bytes: usize,
    /// The last index that the last snapshot holds; 0 when there is none.
    pub snapshot_index: u64,
    /// That snapshot's state in bytes.
    pub snapshot_bytes: usize,
}

/// Raft's view of the log.
pub(crate) struct Log {
    base_index: u64,
    base_term: u64,
    entries: Vec<Entry>,
    bytes: usize,
    hard_state: HardState,
    conf_state: ConfState,
    outgoing: Option<Snapshot>,
    snapshot_wanted: Cell<bool>,
}

impl Log {
    pub(crate) fn new(snapshot: Option<&Snapshot>, entries: Vec<Entry>, hard_state: HardState) -> Self {
        let meta = snapshot.map(|snapshot| snapshot.get_metadata().clone()).unwrap_or_default();
        Self {
            base_index: meta.index,
            base_term: meta.term,
            bytes: entries.iter().map(size).sum(),
            entries,
            hard_state,
            conf_state: meta.conf_state.unwrap_or_default(),
            outgoing: snapshot.cloned(),
            snapshot_wanted: Cell::new(false),
        }
    }

    fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base_index + 1)?).ok()
    }

    /// Appends, dropping what conflicts: everything from the first new index on.
    pub(crate) fn append(&mut self, new: &[Entry]) {
        let Some(first) = new.first() else { return };
        if let Some(keep) = self.position(first.index) {
            for dropped in self.entries.drain(keep.min(self.entries.len())..) {
                self.bytes -= size(&dropped);
            }
        }
        self.bytes += new.iter().map(size).sum::<usize>();
        self.entries.extend_from_slice(new);
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    pub(crate) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// The whole log is replaced by a snapshot from the leader.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) {
        let hard_state = self.hard_state.clone();
        *self = Self::new(Some(snapshot), Vec::new(), hard_state);
        self.hard_state.commit = self.hard_state.commit.max(snapshot.get_metadata().index);
    }

    /// Entries and bytes kept in memory.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// Sizes, for whoever watches.
    pub(crate) fn stats(&self) -> LogStats {
        let snapshot = self.outgoing.as_ref();
        LogStats {
            entries: self.entries.len(),
            bytes: self.bytes,
            snapshot_index: snapshot.map_or(0, |snapshot| snapshot.get_metadata().index),
            snapshot_bytes: snapshot.map_or(0, |snapshot| snapshot.get_data().len()),
        }
    }

    /// Forgets the entries at or below `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        let Some(position) = self.position(index) else { return };
        let Some(last) = self.entries.get(position) else { return };
        self.base_term = last.term;
        for dropped in self.entries.drain(..=position) {
            self.bytes -= size(&dropped);
        }
        self.base_index = index;
    }

    /// Whether Raft asked for a snapshot since the last call.
    pub(crate) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.replace(false)
    }

    pub(crate) fn set_outgoing(&mut self, snapshot: Snapshot) {
        self.outgoing = Some(snapshot);
    }
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + 32
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let (Some(from), Some(to)) = (self.position(low), self.position(high)) else {
            return Err(Error::Store(StorageError::Unavailable));
        };
        let mut entries = self.entries[from..to].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base_index {
            return Ok(self.base_term);
        }
        let position = self.position(index).ok_or(Error::Store(StorageError::Compacted))?;
        let entry = self.entries.get(position).ok_or(Error::Store(StorageError::Unavailable))?;
        Ok(entry.term)
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        // A node refuses a snapshot whose configuration it is not in: one from before its admission is no use
        // to it.
        let serves = |snapshot: &&Snapshot| {
            let meta = snapshot.get_metadata();
            let conf = meta.get_conf_state();
            meta.index > 0
                && meta.index >= self.base_index.max(request_index)
                && (conf.voters.contains(&to) || conf.learners.contains(&to))
        };
        match self.outgoing.as_ref().filter(serves) {
            Some(snapshot) => Ok(snapshot.clone()),
            // The pump makes one of the applied state when it is next at rest; until then Raft asks again.
            None => {
                self.snapshot_wanted.set(true);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
