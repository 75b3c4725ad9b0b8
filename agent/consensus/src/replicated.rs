//! The state machine and how much of the log is in it.

use blixard_model::{MembershipChange, RaftId, Refusal};
use raft::eraftpb::{ConfState, Entry, Snapshot};

use crate::machine::Machine;

/// The state machine with the index and term of the last entry that was applied to it: they move together.
pub(crate) struct ReplicatedMachine<M: Machine> {
    machine: M,
    index: u64,
    term: u64,
    /// The last snapshot that a peer sent and what it holds, until the next pump: a large one is read once.
    read_ahead: Option<(Snapshot, M::State)>,
}

impl<M: Machine> ReplicatedMachine<M> {
    /// At the snapshot that the store holds; `machine` as it is when there is none.
    ///
    /// # Errors
    /// The machine cannot read the snapshot.
    pub(crate) fn new(machine: M, snapshot: Option<&Snapshot>) -> Result<Self, String> {
        let mut replica = Self { machine, index: 0, term: 0, read_ahead: None };
        if let Some(snapshot) = snapshot {
            replica.restore(snapshot)?;
        }
        Ok(replica)
    }

    pub(crate) fn machine(&self) -> &M {
        &self.machine
    }

    /// The state machine, for a planted bug to write past the log.
    #[cfg(blixard_mutants)]
    pub(crate) fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    pub(crate) fn into_machine(self) -> M {
        self.machine
    }

    /// The last index that was applied.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Reads a snapshot's state that is likely to be restored soon.
    ///
    /// # Errors
    /// The machine cannot read it.
    pub(crate) fn read_ahead(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        let state = self.machine.read_snapshot(&snapshot.data)?;
        self.read_ahead = Some((snapshot.clone(), state));
        Ok(())
    }

    pub(crate) fn forget_read_ahead(&mut self) {
        self.read_ahead = None;
    }

    /// Replaces the state by the snapshot's.
    ///
    /// # Errors
    /// The machine cannot read it.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        // Compared by where it is, not byte by byte: what is kept cannot have moved.
        let same = |(read, _): &mut (Snapshot, M::State)| {
            read.data.as_ptr() == snapshot.data.as_ptr() && read.data.len() == snapshot.data.len()
        };
        let state = match self.read_ahead.take_if(same) {
            Some((_, state)) => state,
            None => self.machine.read_snapshot(&snapshot.data)?,
        };
        self.machine.restore(state);
        (self.index, self.term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        Ok(())
    }

    /// Applies a command. [`ReplicatedMachine::pass`] follows.
    ///
    /// # Errors
    /// The machine cannot understand it.
    pub(crate) fn apply(&mut self, at: (u64, u64), data: &[u8]) -> Result<M::Outcome, String> {
        self.machine.apply(at, data)
    }

    pub(crate) fn check_membership(
        &self,
        change: &MembershipChange,
        voters: &[RaftId],
    ) -> Result<(), Refusal> {
        self.machine.check_membership(change, voters)
    }

    pub(crate) fn apply_membership(&mut self, change: &MembershipChange) {
        self.machine.apply_membership(change);
    }

    /// The entry is applied, whatever came of it.
    pub(crate) fn pass(&mut self, entry: &Entry) {
        (self.index, self.term) = (entry.index, entry.term);
    }

    /// The state with its place in the log and the configuration there.
    pub(crate) fn snapshot(&self, conf_state: &ConfState) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_data(self.machine.snapshot().into());
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.index, self.term);
        metadata.set_conf_state(conf_state.clone());
        snapshot
    }
}
