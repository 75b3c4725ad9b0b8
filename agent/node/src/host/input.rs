//! Everything that can happen to a host. Closed: nothing else reaches it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::Action;
use blixard_model::fences::Fences;
use blixard_model::removal::RemovedFrom;
use blixard_model::wire::{JoinRequest, JoinResponse, KeyHeldTwice, PeerRequest, PeerResponse};
use blixard_model::{
    Ask, EndpointId, JoinTicket, NodeName, Offer, RaftId, RequestId, StopNote, VmName, VmsFate,
};
use bytes::Bytes;

use super::disk::Written;
use crate::joining::JoinFailure;

/// A question of this host to a peer; numbered by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A question of a peer to this host; numbered by the shell, never twice in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerCallId(pub u64);

/// Somebody on this machine who waits for an [`Answer`](super::Answer); numbered by the shell, never twice in
/// one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// One [`TICK_MS`](blixard_consensus::TICK_MS) has passed.
    Tick,
    /// The time that [`Host::wake_at_ms`](super::Host::wake_at_ms) named has come.
    Wake,
    /// The links changed.
    Links {
        /// The peers with a link now.
        up: BTreeSet<EndpointId>,
        /// What peers said that refuse this node because it was removed from their cluster.
        removed: Vec<RemovedFrom>,
    },
    /// What is known of agents that run with one key at the same time changed.
    HeldTwice {
        /// Peers of which another agent comes beside the one that this host has a link with.
        seen: Vec<KeyHeldTwice>,
        /// What peers say that keep their link with another agent with this host's key.
        refusals: Vec<HolderRefusal>,
    },
    /// What was seen of what ends this machine's VMs that may not run any more.
    Fences(Box<Fences>),
    /// What this machine offers or where it is reached changed.
    Offer(Box<Offer>),
    /// A Raft message of a peer.
    Raft {
        /// The peer, proved by its handshake.
        from: EndpointId,
        /// What it sent.
        frame: RaftFrame,
    },
    /// A Raft message found no way out: the link is down or its queue is full.
    RaftNotSent {
        /// To whom.
        member: RaftId,
    },
    /// The sending of a snapshot ended.
    SnapshotSent {
        /// To whom.
        member: RaftId,
        /// Whether the peer has it whole.
        delivered: bool,
    },
    /// A peer asks.
    PeerAsked {
        /// For the answer.
        call: PeerCallId,
        /// The peer, proved by its handshake.
        from: EndpointId,
        /// What the peer asks.
        request: Box<PeerRequest>,
    },
    /// A node with a ticket asks to be admitted.
    JoinAsked {
        /// For the answer.
        call: PeerCallId,
        /// The node, proved by its handshake.
        from: EndpointId,
        /// The address that it came from, if it came directly.
        source: Option<SocketAddr>,
        /// What it says.
        request: Box<JoinRequest>,
    },
    /// Nobody waits for the answer to this question any more.
    PeerGaveUp {
        /// The question whose answer is not waited for.
        call: PeerCallId,
    },
    /// A peer answered, or the question was lost.
    PeerAnswered {
        /// The question.
        call: CallId,
        /// The answer.
        answer: Result<Box<PeerResponse>, CallError>,
    },
    /// A member answered a request to be admitted, or the request was lost.
    JoinAnswered {
        /// The request.
        call: CallId,
        /// The answer, or why there is none.
        answer: Result<Box<JoinResponse>, JoinFailure>,
    },
    /// Somebody on this machine wants something.
    Wanted {
        /// Who is to be answered.
        waiter: WaiterId,
        /// What is wanted.
        want: Want,
        /// For how long, in milliseconds.
        patience_ms: u64,
    },
    /// Somebody on this machine does not wait any more.
    WaiterGaveUp {
        /// Who does not wait any more.
        waiter: WaiterId,
    },
    /// Units may have changed: look again soon.
    UnitsChanged,
    /// The list of units that [`Effect::ListUnits`](super::Effect::ListUnits) asked for.
    Units {
        /// Which look this is the answer to.
        look: u64,
        /// The units, or why systemd could not be asked.
        listed: Result<Vec<ObservedUnit>, String>,
        /// What is kept of VMs that were stopped by hand; looked up after the units were listed, so that
        /// whoever stops one without this agent and says so first is never taken for a failure.
        stopped: Vec<StopNote>,
    },
    /// [`Effect::KeepStop`](super::Effect::KeepStop) ended.
    StopKept {
        /// For whom.
        waiter: WaiterId,
        /// What was to be kept.
        notes: Vec<StopNote>,
        /// Why it is not kept, if it is not.
        failure: Option<String>,
    },
    /// An action on a unit ended.
    ActionDone {
        /// The action that ended.
        action: Action,
        /// Why it failed, if it did.
        failure: Option<String>,
    },
    /// The last lines of a VM's console, as [`Effect::FetchConsole`](super::Effect::FetchConsole) asked for.
    Console {
        /// Of which VM.
        vm: VmName,
        /// The lines; empty when there are none, or none that can be read.
        lines: Vec<String>,
    },
    /// [`Effect::WriteLease`](super::Effect::WriteLease) ended.
    LeaseWritten {
        /// Why the supervisors do not know it, if they do not.
        failure: Option<String>,
    },
    /// [`Effect::KeepTicket`](super::Effect::KeepTicket) ended.
    TicketKept {
        /// For whom.
        waiter: WaiterId,
        /// Why it is not kept, if it is not.
        kept: Result<(), String>,
    },
    /// What [`Effect::ReadTicket`](super::Effect::ReadTicket) found: a ticket, why it cannot be read, or
    /// none.
    TicketRead(Box<Option<Result<JoinTicket, String>>>),
    /// What [`Effect::Write`](super::Effect::Write) asked for is durable.
    Written(Box<Written>),
}

/// The word of a peer that has a link with another agent with this host's key, which answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderRefusal {
    /// The peer.
    pub peer: EndpointId,
    /// Where the other agent is, and where this one, as far as the peer knows.
    pub addresses: Vec<SocketAddr>,
    /// For how long that link has been up, in milliseconds.
    pub for_ms: u64,
}

/// A Raft message as it came.
#[derive(Debug, Clone)]
pub enum RaftFrame {
    /// An ordinary message.
    Message(Bytes),
    /// A snapshot: large, and it comes on a stream of its own.
    Snapshot(Bytes),
}

/// Why there is no answer of a peer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer never saw the question.
    #[error("{0}")]
    NotSent(String),
    /// The peer may have acted on it.
    #[error("{0}")]
    Unknown(String),
}

/// What somebody on this machine may want. Each ends in one [`Answer`](super::Answer).
#[derive(Debug, Clone)]
pub enum Want {
    /// A change, brought to whoever leads.
    Change(Box<Ask>),
    /// A node is to leave the cluster, by its name.
    RemoveNode(Box<NodeRemoval>),
    /// To read what is applied here, once everything acknowledged before is.
    Read,
    /// What every node last reported of its VMs.
    Reports,
    /// How far the members are, as the leader knows it.
    Progress,
    /// This node is not to lead any more, if another one can.
    HandOver,
    /// The agent is about to end in order: the VMs of this node that may be failed over are to run on for so
    /// long.
    Hold {
        /// In milliseconds, from now on.
        for_ms: u64,
    },
    /// A VM is to stop on this node and to stay so until somebody tells the cluster to start it, whatever the
    /// cluster wants, and with or without a leader.
    StopHere(VmName),
    /// To join a cluster with this ticket, which is kept on disk first.
    Join {
        /// The ticket.
        ticket: Box<JoinTicket>,
        /// Its text, to be kept.
        text: String,
    },
}

/// A node that is to leave the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRemoval {
    /// The node.
    pub name: NodeName,
    /// It does not answer and will not come back.
    pub force: bool,
    /// What becomes of its VMs; needs `force`.
    pub vms: Option<VmsFate>,
    /// Names the write that forgets its VMs, so that sending it twice applies it once.
    pub id: RequestId,
}
