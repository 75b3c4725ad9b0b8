//! How an attempt to have something done by whoever leads ended; [`ProposeResult`] is its form on the wire.

use blixard_core::planner::NotNow;
use blixard_model::wire::ProposeResult;
use blixard_model::{AskOutcome, NodeName};

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It is decided: applied, or refused, or it was so already.
    Decided(AskOutcome),
    /// Nothing happened: another node leads, or none.
    NotLeader {
        /// The leader, if it is known.
        leader: Option<NodeName>,
    },
    /// Nothing happened: the leader does it later, when it is asked again.
    NotNow(NotNow),
    /// Nothing happened: it did not reach a leader that had room for it, or that one said so in words.
    NotTaken {
        /// The reason, in words.
        why: String,
    },
    /// Its end is not known; it may be attempted again, under the same request id.
    Unknown {
        /// The reason, in words.
        why: String,
    },
}

impl From<AttemptEnd> for ProposeResult {
    fn from(end: AttemptEnd) -> Self {
        match end {
            AttemptEnd::Decided(outcome) => Self::Applied { outcome },
            AttemptEnd::NotLeader { leader } => Self::NotLeader { leader },
            AttemptEnd::NotNow(why) => Self::Rejected { why: why.to_string() },
            AttemptEnd::NotTaken { why } => Self::Rejected { why },
            AttemptEnd::Unknown { why } => Self::Unknown { why },
        }
    }
}

impl From<ProposeResult> for AttemptEnd {
    fn from(result: ProposeResult) -> Self {
        match result {
            ProposeResult::Applied { outcome } => Self::Decided(outcome),
            ProposeResult::NotLeader { leader } => Self::NotLeader { leader },
            ProposeResult::Rejected { why } => Self::NotTaken { why },
            ProposeResult::Unknown { why } => Self::Unknown { why },
        }
    }
}
