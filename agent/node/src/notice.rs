//! What is worth telling people; the owner logs it.

use blixard_consensus::StepError;
use blixard_core::reconciler::Action;
use blixard_model::formation::Genesis;
use blixard_model::{
    ClusterId, ClusterVersion, EndpointId, MembershipChange, NodeName, RaftId, Refusal, TicketId, VmName,
};

use crate::forming::Birth;

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
    /// All members support it, so the cluster uses this version from here on.
    VersionRaised(ClusterVersion),
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
    /// A host without a cluster asks everybody who they are.
    AsksAround,
    /// The answers of a round made no cluster yet, for these reasons, in words.
    NotFormed(Vec<String>),
    /// What a host without a cluster waits for.
    Waits {
        /// In words.
        reasons: Vec<String>,
        /// It did not wait for these before.
        is_new: bool,
    },
    /// It promised to form this cluster and no other; that is durable.
    Promised(Box<Genesis>),
    /// There is a cluster; the store is being bound to it.
    Born {
        /// How it begins in it.
        birth: Box<Birth>,
        /// How long it took since the host started, in milliseconds.
        after_ms: u64,
    },
    /// Its ticket admits nobody.
    NotLetIn(Refusal),
    /// An operator removed this node from its cluster.
    Removed {
        /// Which cluster.
        cluster_id: ClusterId,
    },
    /// Another agent runs with this node's key and was there first: this one keeps no links and starts no VM.
    /// Or that is over.
    StandsAside(bool),
    /// The cluster would refuse what this node offers.
    OfferRefused(Refusal),
    /// A node on this node's list is not admitted.
    ListedNotAdmitted(Refusal),
    /// A node with a ticket asks to be admitted.
    AsksToJoin {
        /// Which node, proved by its handshake.
        endpoint_id: EndpointId,
        /// As it calls itself.
        name: NodeName,
        /// Where it comes from.
        place: String,
        /// With which ticket.
        ticket: TicketId,
    },
    /// It was admitted.
    Admitted {
        /// Which node.
        endpoint_id: EndpointId,
        /// Its name.
        name: NodeName,
        /// With which ticket.
        ticket: TicketId,
        /// Under which raft id.
        raft_id: RaftId,
    },
    /// It was not.
    NotAdmitted {
        /// Which node.
        endpoint_id: EndpointId,
        /// As it calls itself.
        name: NodeName,
        /// Where it came from.
        place: String,
        /// Why it was refused.
        refusal: Refusal,
    },
    /// A VM ended though it should run.
    VmEnded {
        /// Which VM.
        vm: VmName,
        /// How it ended, in words.
        how: String,
    },
    /// A unit runs whose VM the log does not know: it is stopped unless that changes.
    UnknownVm {
        /// The name of the VM.
        vm: VmName,
        /// How long it is left running, in milliseconds.
        left_ms: u64,
    },
    /// Something that was done to a VM's unit failed, and not as the time before. It is tried again.
    ActionFailed {
        /// The action that failed.
        action: Action,
        /// Why it failed.
        why: String,
    },
    /// As leader, this node has waited until another one certainly runs no VM that may be failed over, and by
    /// the log those have gone to others, as far as there was room.
    NodeLost(NodeName),
    /// The supervisors of this node's VMs do not know of its lease, for this reason.
    LeaseNotWritten(String),
    /// The cluster knows that a deleted VM's unit is gone.
    VmGone(VmName),
}
