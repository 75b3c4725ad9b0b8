//! What nodes say to each other beside Raft's own messages. JSON in length-limited frames.

use serde::{Deserialize, Serialize};

use crate::command::{Outcome, Request};
use crate::formation::Identity;
use crate::id::{NodeName, VmName};
use crate::report::NodeReport;

/// Largest request or response between nodes, in bytes.
pub const FRAME_LEN_MAX: usize = 1 << 20;

/// A question from one node to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum PeerRequest {
    /// "This is me; who are you?"
    Identify {
        /// The asker.
        me: Identity,
    },
    /// "You lead: propose this and tell me when it is committed."
    Propose {
        /// What.
        request: Request,
        /// How long the asker waits, in milliseconds.
        timeout_ms: u64,
    },
    /// "This is what runs here." To the leader.
    Report {
        /// What, and how long ago it was seen.
        aged: AgedReport,
    },
    /// "What does everybody report?" To the leader.
    Reports,
    /// "Show me the console of a VM you run." Answered by a stream of raw text.
    Logs {
        /// Which.
        name: VmName,
        /// The last lines to begin with.
        lines: u32,
        /// Go on with new ones.
        follow: bool,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum PeerResponse {
    /// To `Identify`.
    Identity {
        /// The answerer.
        me: Identity,
    },
    /// To `Propose`.
    Proposed {
        /// How it ended.
        result: ProposeResult,
    },
    /// To `Report`.
    Noted,
    /// To `Reports`.
    Reports {
        /// Per node, the last report and its age in milliseconds.
        reports: Vec<AgedReport>,
    },
    /// The answerer can not: for instance it does not lead.
    Declined {
        /// Why.
        why: String,
    },
}

/// A report and how old it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgedReport {
    /// What was reported.
    pub report: NodeReport,
    /// How long ago it arrived, in milliseconds.
    pub age_ms: u64,
}

/// How a proposal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ProposeResult {
    /// It is committed and applied.
    Applied {
        /// What applying it gave.
        outcome: Outcome,
    },
    /// It was not proposed: nothing happened, another node may take it.
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeName>,
    },
    /// It was not proposed: nothing happened.
    Rejected {
        /// Why.
        why: String,
    },
    /// It was proposed and its end is not known; the same request id may be sent again.
    Unknown {
        /// Why.
        why: String,
    },
}
