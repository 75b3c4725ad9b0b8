//! Why an input was not taken, or a node could not be made.

use blixard_model::{RaftId, Refusal};

use crate::limits::COMMAND_LEN_MAX;

/// The reason why a node cannot start with the content of its store.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// The content of the store cannot be decoded.
    #[error("the log cannot be read: {0}")]
    Corrupt(String),
    /// Raft's own objection.
    #[error("raft: {0}")]
    Raft(raft::Error),
}

/// Why a proposal was not taken. Nothing happened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another node leads, or none.
    #[error("this node does not lead")]
    NotLeader(Option<RaftId>),
    /// Too much is under way.
    #[error("too many requests are under way: try again")]
    Busy,
    /// A membership change is proposed and not applied yet, or one of an earlier leader may be.
    #[error("another membership change is under way: try again")]
    ChangeUnderWay,
    /// The command is too large.
    #[error("the request is larger than {COMMAND_LEN_MAX} bytes")]
    TooLarge,
    /// A membership change that does not fit.
    #[error("{0}")]
    Refused(Refusal),
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// No Raft message.
    #[error("not a raft message: {0}")]
    Malformed(String),
    /// Not from whom it says, not for this node, or of a kind that no node sends.
    #[error("not acceptable: {0}")]
    Unacceptable(&'static str),
    /// It came too late to mean anything; harmless.
    #[error("too late: {0}")]
    Late(&'static str),
    /// The leader's words rest on something that this node acknowledged to it and does not have. Final.
    #[error(
        "the leader heard this node acknowledge the log up to index {acknowledged}, and it ends at {last}: \
         the store lost what was on disk, or an older copy of it was put back"
    )]
    RolledBack {
        /// What this node acknowledged, by the leader's word.
        acknowledged: u64,
        /// Where its log ends.
        last: u64,
    },
    /// A snapshot whose state this version cannot understand; this node stays behind until it is upgraded.
    #[error("the leader's snapshot cannot be understood: {0}; upgrade this node")]
    Snapshot(String),
    /// Raft's own objection; harmless.
    #[error("raft: {0}")]
    Raft(String),
}
