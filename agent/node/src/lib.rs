//! One node's part in its cluster, without a clock, a network or a task: inputs in, a [`Turn`] out.
//!
//! Joins what the pure crates decide to what the store keeps: how a node is born ([`forming`], [`joining`],
//! [`birth`]), the consensus it takes part in with the requests and reads that wait for it ([`Node`]), how a
//! write is brought to whoever leads ([`Submission`]), and how the log comes to know what a node offers
//! ([`Registration`]). The agent drives it with tokio, iroh and a real clock; the simulator drives the very
//! same code with virtual ones. The store blocks, as disks do.
//!
//! Absent on purpose: time other than ticks and milliseconds that are handed in, random numbers, logging
//! (what is worth telling comes out as [`Notice`]s), everything about VM units.

mod admission_and_removal;
mod backup;
pub mod birth;
mod encoded_vms;
mod explain;
pub mod forming;
pub mod host;
pub mod joining;
mod machine;
mod membership;
mod messages;
mod node;
mod notice;
pub mod rebirth;
mod registration;
mod stats;
mod strangers;
mod submission;
mod summary;
mod turn;
mod waiting;

pub use backup::{Backup, BackupError, BackupFacts, decode_backup, encode_backup};
pub use host::Replica;
pub use machine::{StateMachine, decode_request, encode_request, encode_state};
pub use node::{Node, NodeConfig, Told};
pub use notice::Notice;
pub use registration::{Registration, RegistrationStep, Standing};
pub use stats::NodeStats;
pub use strangers::{Kinship, Stranger};
pub use submission::{Ask, NO_LEADER_PATIENCE_MS, Step, Submission, SubmitError};
pub use summary::Summary;
pub use turn::{Envelope, NodeError, Turn};
pub use waiting::Waits;
