//! What a node is made of: Raft, the log that it reads, and the state machine.
//!
//! A build for planted bugs puts a wrapper around each (`planted.rs`), and the bugs live in there: the code
//! that uses these names is the same in every build.

#[cfg(not(blixard_mutants))]
pub(crate) use crate::{log::Log, replicated::ReplicatedMachine};

/// Raft, on that log.
#[cfg(not(blixard_mutants))]
pub(crate) type Raw = raft::RawNode<Log>;

#[cfg(blixard_mutants)]
pub(crate) use crate::planted::{PlantedLog as Log, PlantedRaft as Raw, PlantedReplica as ReplicatedMachine};
