//! Raft, without a clock, a network or a disk of its own: inputs in, effects out.
//!
//! The only crate that names `raft`. [`Consensus`] takes ticks, messages, proposals and reads;
//! [`Consensus::pump`] is the one place that handles `Ready`: it sends, writes, applies and advances in the
//! one order that is safe, and returns [`Effects`] for the owner to carry out. What is applied is the owner's
//! [`Machine`]; where it is kept is the owner's [`LogStore`].
//!
//! Absent on purpose: tokio, time, random numbers (election timeouts come from a seeded hash), retries,
//! decisions about the cluster (those are `blixard-core`'s).

mod accept;
mod durable;
mod log;
mod machine;
mod node;
mod ready;
mod replay;
mod shape;
mod status;

pub use durable::{
    Durable, EntryContent, HardState, LogStore, LogWrite, StoredEntry, StoredSnapshot, first_snapshot,
    genesis_snapshot,
};
pub use machine::Machine;
pub use node::{Consensus, ConsensusConfig, Inbound, Limits, NewError, ProposeError, StepError, TICK_MS};
pub use ready::{Applied, Effects, Outgoing, PumpError};
pub use replay::{ReplayError, Replayed, check_resumes, replay_all};
pub use status::{LogStats, RaftRole, RaftStatus, UnderWay};
