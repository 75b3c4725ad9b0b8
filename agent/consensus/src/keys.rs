//! The proposals and reads of this run that somebody waits for.
//!
//! Each has a key, which its owner knows, and a name, which travels through the log and between members. A
//! name is unique in the cluster for ever: a read whose name was used before would be answered by the old
//! one.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{RaftId, mutant};

use crate::limits::{PROPOSALS_MAX, READS_MAX};

/// Raft id and incarnation, which every name begins with, in bytes.
const PREFIX_LEN: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: [u8; PREFIX_LEN],
    last: u64,
    proposals: BTreeSet<u64>,
    /// The index that each read waits for, once Raft has said it.
    reads: BTreeMap<u64, Option<u64>>,
}

impl Keys {
    /// Of this run of this node, which no other run of it shares its incarnation with.
    pub(crate) fn new(raft_id: RaftId, incarnation: u64) -> Self {
        let run = if mutant::lives("names-used-again") { 0 } else { incarnation };
        let mut prefix = [0; PREFIX_LEN];
        prefix[..8].copy_from_slice(&raft_id.0.to_be_bytes());
        prefix[8..].copy_from_slice(&run.to_be_bytes());
        Self { prefix, last: 0, proposals: BTreeSet::new(), reads: BTreeMap::new() }
    }

    /// A new key and its name.
    pub(crate) fn make(&mut self) -> (u64, Vec<u8>) {
        self.last += 1;
        (self.last, [&self.prefix[..], &self.last.to_be_bytes()].concat())
    }

    /// The key of a name that this run of this node gave; `None` for any other.
    fn key(&self, name: &[u8]) -> Option<u64> {
        let (prefix, key) = name.split_at_checked(PREFIX_LEN)?;
        (prefix == self.prefix).then_some(u64::from_be_bytes(key.try_into().ok()?))
    }

    pub(crate) fn has_room_for_proposal(&self) -> bool {
        self.proposals.len() < PROPOSALS_MAX
    }

    pub(crate) fn has_room_for_read(&self) -> bool {
        self.reads.len() < READS_MAX
    }

    pub(crate) fn add_proposal(&mut self, key: u64) {
        self.proposals.insert(key);
    }

    pub(crate) fn forget_proposal(&mut self, key: u64) {
        self.proposals.remove(&key);
    }

    /// The key of the proposal of this name, if it is waited for: it is not any more.
    pub(crate) fn take_proposal(&mut self, name: &[u8]) -> Option<u64> {
        self.key(name).filter(|key| self.proposals.remove(key))
    }

    /// Adds a read that may be served once `index` is applied, if that is known.
    pub(crate) fn add_read(&mut self, key: u64, index: Option<u64>) {
        self.reads.insert(key, index);
    }

    pub(crate) fn forget_read(&mut self, key: u64) {
        self.reads.remove(&key);
    }

    /// The read of this name, if it is one of ours, may be served once `index` is applied.
    pub(crate) fn note_read(&mut self, name: &[u8], index: u64) {
        if let Some(waiting) = self.key(name).and_then(|key| self.reads.get_mut(&key)) {
            *waiting = Some(index);
        }
    }

    /// The reads that may be served with so much applied, the oldest first: they are not waited for any more.
    pub(crate) fn take_reads(&mut self, applied: u64) -> Vec<u64> {
        let ready = |index: &Option<u64>| index.is_some_and(|index| index <= applied);
        let keys = self.reads.iter().filter(|(_, index)| ready(index)).map(|(key, _)| *key).collect();
        self.reads.retain(|_, index| !ready(index));
        keys
    }
}
