//! A copy of the log in an agent's store, for the invariants to look at.

use std::collections::BTreeMap;
use std::rc::Rc;

use blixard_consensus::{Durable, EntryContent, LogWrite, StoredEntry};

/// An entry as the invariants see it.
#[derive(Debug, Clone)]
pub(crate) struct LogEntry {
    pub(crate) term: u64,
    pub(crate) hash: u64,
    pub(crate) content: Rc<EntryContent>,
}

/// What one agent has in its log.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    /// Entries after the snapshot, and until the end of the turn those that it has just replaced.
    pub(crate) entries: BTreeMap<u64, LogEntry>,
    /// Index of the snapshot.
    pub(crate) snapshot_index: u64,
    /// Written since the invariants last looked: the lowest index.
    pub(crate) written_from: Option<u64>,
    /// An entry that cannot be understood.
    pub(crate) unreadable: Option<String>,
}

impl Mirror {
    pub(crate) fn load(&mut self, durable: &Durable) {
        self.snapshot_index = durable.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        self.put(&durable.entries);
    }

    pub(crate) fn apply(&mut self, write: &LogWrite) {
        if let Some(snapshot) = &write.snapshot {
            self.snapshot_index = snapshot.index;
            // What was cut may have been applied in this very turn: it is forgotten after the invariants have
            // seen it.
            if write.clear_log {
                self.entries.clear();
            }
        }
        self.put(&write.entries);
    }

    /// Forgets what the store has cut.
    pub(crate) fn forget_cut(&mut self) {
        if self.entries.first_key_value().is_some_and(|(first, _)| *first <= self.snapshot_index) {
            self.entries = self.entries.split_off(&(self.snapshot_index + 1));
        }
    }

    fn put(&mut self, entries: &[StoredEntry]) {
        let Some(first) = entries.first() else { return };
        self.entries.split_off(&first.index);
        self.written_from = Some(self.written_from.map_or(first.index, |from| from.min(first.index)));
        for entry in entries {
            match entry.look() {
                Ok((term, content)) => {
                    let hash = crate::trace::hash_bytes(&entry.bytes);
                    let content = Rc::new(content);
                    self.entries.insert(entry.index, LogEntry { term, hash, content });
                }
                Err(why) => self.unreadable = Some(why),
            }
        }
    }
}
