//! Bugs planted into what the pump works with: Raft, the log, the state machine. Only a build for planted
//! bugs holds this file; `parts.rs` puts it in the place of the real ones.
//!
//! Each wrapper is the real one but for the methods that it has itself.

use std::ops::{Deref, DerefMut};

use blixard_model::mutant;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, HardState, Snapshot};
use raft::{
    Config, Error, GetEntriesContext, LightReady, RaftState, RawNode, Ready, Result, Storage, StorageError,
};

use crate::log;
use crate::machine::Machine;
use crate::replicated;

/// Raft, and what it gives the pump.
pub(crate) struct PlantedRaft(RawNode<PlantedLog>);

impl PlantedRaft {
    pub(crate) fn new(config: &Config, log: PlantedLog, logger: &slog::Logger) -> Result<Self> {
        RawNode::new(config, log, logger).map(Self)
    }

    pub(crate) fn ready(&mut self) -> Ready {
        let mut ready = self.0.ready();
        if mutant::lives("persisted-messages-not-sent") {
            ready.take_persisted_messages();
        }
        ready
    }

    pub(crate) fn advance(&mut self, ready: Ready) -> LightReady {
        let mut light = self.0.advance(ready);
        if mutant::lives("light-ready-dropped") {
            light.take_committed_entries();
        }
        light
    }

    pub(crate) fn apply_conf_change(&mut self, change: &ConfChangeV2) -> Result<ConfState> {
        let new = self.0.apply_conf_change(change)?;
        Ok(if mutant::lives("stale-conf-state") { self.store().conf_state().clone() } else { new })
    }
}

impl Deref for PlantedRaft {
    type Target = RawNode<PlantedLog>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for PlantedRaft {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// The log, and what Raft and the pump are told of it.
pub(crate) struct PlantedLog(log::Log);

impl PlantedLog {
    pub(crate) fn new(snapshot: Option<&Snapshot>, entries: Vec<Entry>, hard_state: HardState) -> Self {
        Self(log::Log::new(snapshot, entries, hard_state))
    }

    pub(crate) fn append(&mut self, new: &[Entry]) {
        match new.first() {
            Some(first) if mutant::lives("suffix-stays-in-memory") => {
                let left = self.from(first.index);
                self.0.append(&[&left, new].concat());
            }
            _ => self.0.append(new),
        }
    }

    pub(crate) fn size(&self) -> (usize, usize) {
        if mutant::lives("log-never-cut") { (0, 0) } else { self.0.size() }
    }

    /// The entries from this index on.
    fn from(&self, first: u64) -> Vec<Entry> {
        let end = self.0.last_index().map_or(0, |last| last + 1);
        self.0.entries(first, end.max(first), None, GetEntriesContext::empty(false)).unwrap_or_default()
    }

    fn forgets_snapshot(&self) -> bool {
        mutant::lives("empty-log-forgets-snapshot")
            && self.0.size().0 == 0
            && self.0.last_index().is_ok_and(|last| last > 1)
    }
}

impl Storage for PlantedLog {
    fn initial_state(&self) -> Result<RaftState> {
        self.0.initial_state()
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let low = if mutant::lives("holes-skipped") { low.max(self.0.first_index()?) } else { low };
        self.0.entries(low, high, max_size, context)
    }

    fn term(&self, index: u64) -> Result<u64> {
        match self.0.term(index) {
            Err(Error::Store(StorageError::Compacted)) if mutant::lives("holes-skipped") => Ok(0),
            told => told,
        }
    }

    fn first_index(&self) -> Result<u64> {
        if mutant::lives("holes-skipped") || self.forgets_snapshot() { Ok(1) } else { self.0.first_index() }
    }

    fn last_index(&self) -> Result<u64> {
        if self.forgets_snapshot() { Ok(0) } else { self.0.last_index() }
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        self.0.snapshot(request_index, to)
    }
}

impl Deref for PlantedLog {
    type Target = log::Log;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for PlantedLog {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// The state machine with its place in the log.
pub(crate) struct PlantedReplica<M: Machine> {
    replica: replicated::ReplicatedMachine<M>,
    /// Where this run of the agent began: nodes differ in it.
    began_at: u64,
    /// Index and term of the last two entries.
    passed: [(u64, u64); 2],
    /// The last command of this turn.
    command: Option<u64>,
}

impl<M: Machine> PlantedReplica<M> {
    pub(crate) fn new(machine: M, snapshot: Option<&Snapshot>) -> std::result::Result<Self, String> {
        let replica = replicated::ReplicatedMachine::new(machine, snapshot)?;
        Ok(Self { began_at: replica.index(), replica, passed: [(0, 0); 2], command: None })
    }

    pub(crate) fn apply(
        &mut self,
        (index, term): (u64, u64),
        data: &[u8],
    ) -> std::result::Result<M::Outcome, String> {
        let follows = self.command.replace(index).is_some_and(|last| last + 1 == index);
        if follows && mutant::lives("second-of-two-lost") {
            self.command = None;
            return self.lose((index, term), data);
        }
        let own = if mutant::lives("local-value-in-apply") { self.began_at } else { 0 };
        self.replica.apply((index + own, term), data)
    }

    /// Tells the outcome of a command and leaves the state as it was.
    fn lose(&mut self, at: (u64, u64), data: &[u8]) -> std::result::Result<M::Outcome, String> {
        let known = self.machine().snapshot();
        let outcome = self.replica.apply(at, data)?;
        let known = self.machine().read_snapshot(&known)?;
        self.machine_mut().restore(known);
        Ok(outcome)
    }

    pub(crate) fn pass(&mut self, entry: &Entry) {
        self.passed = [self.passed[1], (entry.index, entry.term)];
        self.replica.pass(entry);
    }

    pub(crate) fn snapshot(&self, conf_state: &ConfState) -> Snapshot {
        let mut snapshot = self.replica.snapshot(conf_state);
        let [before, _] = self.passed;
        // Nothing is known of what came before a snapshot that was restored.
        if mutant::lives("applied-not-atomic") && before.0 > 0 && before.0 + 1 == self.index() {
            let metadata = snapshot.mut_metadata();
            (metadata.index, metadata.term) = before;
        }
        snapshot
    }

    /// The end of a turn.
    pub(crate) fn forget_read_ahead(&mut self) {
        self.command = None;
        self.replica.forget_read_ahead();
    }

    pub(crate) fn into_machine(self) -> M {
        self.replica.into_machine()
    }
}

impl<M: Machine> Deref for PlantedReplica<M> {
    type Target = replicated::ReplicatedMachine<M>;

    fn deref(&self) -> &Self::Target {
        &self.replica
    }
}

impl<M: Machine> DerefMut for PlantedReplica<M> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.replica
    }
}
