//! One node's part in its cluster, without a clock, a network, a disk or a task: [`host::Input`]s in,
//! [`host::Effect`]s out.
//!
//! [`host`] is the whole life of a host, unborn, member and removed: it joins what the pure crates decide to
//! what arrives. Beneath it are how a node is born ([`forming`], [`joining`]) and goes on from its store
//! ([`resume`]), the consensus it takes part in with the requests and reads that wait for it ([`Node`]), how
//! a write is brought to whoever leads ([`Submission`]), and how the log comes to know what a node offers
//! ([`Registration`]). The agent carries the effects out with tokio, iroh, systemd and a real clock; the
//! simulator does with virtual ones. A write of the log is an effect as well.
//!
//! Absent on purpose: time other than what an input says, random numbers, logging (what is worth telling
//! comes out as [`Notice`]s).

mod attempt;
mod backup;
mod encoded_vms;
pub mod forming;
pub mod host;
pub mod joining;
mod listed;
mod machine;
mod notice;
pub mod rebirth;
mod registration;
mod replica;
pub mod resume;
mod submission;
mod summary;

pub use attempt::AttemptEnd;
pub use backup::{Backup, BackupError, BackupFacts, decode_backup, encode_backup};
pub use host::Replica;
pub use listed::{Missing, missing};
pub use machine::{StateMachine, decode_request, encode_request, encode_state};
pub use notice::Notice;
pub use registration::{Registration, RegistrationStep, Standing};
pub use replica::{Envelope, Kinship, Node, NodeConfig, NodeError, NodeStats, Stranger, Told, Turn, Waits};
pub use submission::{NO_LEADER_PATIENCE_MS, Step, Submission, SubmitError};
pub use summary::Summary;
