//! What is worth telling people; the owner logs it.

use blixard_consensus::StepError;
use blixard_model::{EndpointId, MembershipChange, NodeName};

/// Something that happened and belongs into the log of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Who leads, or the term, changed.
    Leader {
        /// Raft's term.
        term: u64,
        /// Who leads it, if known.
        leader: Option<NodeName>,
        /// It is this node.
        here: bool,
    },
    /// As leader, this node proposed a change.
    MembershipProposed(MembershipChange),
    /// A change was applied.
    MembershipChanged(MembershipChange),
    /// The state was replaced by a leader's snapshot up to this index.
    Restored(u64),
    /// A Raft message that no node of ours sends was dropped.
    BadMessage {
        /// Its sender, proved by the network.
        from: EndpointId,
        /// What is wrong with it.
        why: StepError,
    },
    /// A member speaks under a raft id that the log gives to another endpoint.
    FalseSender {
        /// The sender, proved by the network.
        from: EndpointId,
    },
}
