//! What a whole log comes to, whether it is known to be committed or not: for a node that is all that is
//! left of its cluster.

use blixard_model::{RaftId, mutant};

use crate::config::ConsensusConfig;
use crate::effects::PumpError;
use crate::error::NewError;
use crate::limits::Limits;
use crate::machine::Machine;
use crate::pump::Consensus;
use crate::stored_form::Durable;

/// A log that was applied to its end.
#[derive(Debug)]
pub struct Replayed<M> {
    /// The state machine at the last index.
    pub machine: M,
    /// The last index.
    pub index: u64,
    /// The node's term, no earlier than the last entry's.
    pub term: u64,
    /// How many entries at the end the node did not know to be committed.
    pub not_known_committed: u64,
    /// Whether the node is in Raft's configuration at the last index.
    pub is_member: bool,
}

/// Why a log cannot be applied to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Its parts cannot be understood, or contradict each other.
    #[error(transparent)]
    Log(#[from] NewError),
    /// An entry cannot be applied.
    #[error(transparent)]
    Entry(#[from] PumpError),
}

/// Applies all of the log, as a node does that is told that all of it is committed: the same code, so that
/// commands and changes of the members come out as they would have.
///
/// # Errors
/// See [`ReplayError`].
pub fn replay_all<M: Machine>(
    raft_id: RaftId,
    durable: &Durable,
    machine: M,
) -> Result<Replayed<M>, ReplayError> {
    let base = durable.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
    let last = durable.entries.last().map_or(base, |entry| entry.index);
    let mut all = durable.clone();
    // An entry may have been acknowledged by this node and a quorum with it, and its leader may have told a
    // client so, before this node heard that it is committed. Dropped, it would be an acknowledged write that
    // is lost; kept, it is at worst one whose client was told nothing, or that its end is not known.
    if !mutant::lives("recovery-drops-uncommitted") {
        all.hard_state.commit = all.hard_state.commit.max(last);
    }
    let mut consensus = Consensus::new(config(raft_id), &all, machine)?;
    let mut effects = consensus.pump()?;
    // A replay changes no disk.
    while effects.write.is_some() {
        effects = consensus.written()?;
    }
    Ok(Replayed {
        index: consensus.status().applied,
        term: all.hard_state.term,
        not_known_committed: last.saturating_sub(durable.hard_state.commit),
        is_member: consensus.is_member(),
        machine: consensus.into_machine(),
    })
}

/// Checks that a node can resume from what it is to begin with.
///
/// # Errors
/// As [`Consensus::new`].
pub fn check_resumes<M: Machine>(raft_id: RaftId, durable: &Durable, machine: M) -> Result<(), NewError> {
    Consensus::new(config(raft_id), durable, machine).map(|_| ())
}

/// There are no ticks, so that nothing comes of the seed; and nobody reads a snapshot, so that none is made.
fn config(raft_id: RaftId) -> ConsensusConfig {
    let limits = Limits { compact_entries: usize::MAX, compact_bytes: usize::MAX, keep_entries: 0 };
    ConsensusConfig { raft_id, incarnation: 0, seed: 0, limits }
}
