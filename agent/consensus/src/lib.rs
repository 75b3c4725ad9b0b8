//! Raft, without a clock, a network or a disk of its own: inputs in, effects out.
//!
//! The only crate that names `raft`. [`Consensus`] takes ticks, messages, proposals and reads;
//! [`Consensus::pump`] is the one place that handles `Ready`: it sends, writes, applies and advances in the
//! one order that is safe, and returns [`Effects`] for the owner to carry out. A write is an effect too: the
//! pump stops at it, the owner makes it durable wherever it keeps the log, and [`Consensus::written`] goes on
//! with what rests on it. What is applied is the owner's [`Machine`].
//!
//! Absent on purpose: tokio, time, disks, random numbers (election timeouts come from a seeded hash),
//! retries, decisions about the cluster (those are `blixard-core`'s).

mod accept;
mod change;
mod config;
mod effects;
mod error;
mod inbound;
mod keys;
mod limits;
mod log;
mod machine;
mod parts;
#[cfg(blixard_mutants)]
mod planted;
mod pump;
mod replay;
mod replicated;
mod resume;
mod shape;
mod status;
mod stored_form;

pub use config::{ConsensusConfig, TICK_MS};
pub use effects::{Applied, Effects, Outgoing, PumpError};
pub use error::{NewError, ProposeError, StepError};
pub use inbound::Inbound;
pub use limits::Limits;
pub use log::LogStats;
pub use machine::Machine;
pub use pump::Consensus;
pub use replay::{ReplayError, Replayed, check_resumes, replay_all};
pub use status::{RaftRole, RaftStatus, UnderWay};
pub use stored_form::{
    Durable, EntryContent, HardState, LogWrite, StoredEntry, StoredSnapshot, first_snapshot, genesis_snapshot,
};
