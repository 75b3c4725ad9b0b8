//! What the log holds and what applying it gives.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NodeName, RaftId, RequestId, TicketHash, TicketId, VmName};
use crate::member::{Capacity, is_false};
use crate::relay::RelayUrl;
use crate::vm::{Desired, InvalidSpec, VmSpec};

/// A replicated request: a write that was asked for ([`WriteAsk`](crate::WriteAsk)) with what the leader
/// adds, or the leader's own. New kinds and new optional fields may be added; none is renamed or given
/// another meaning.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Command {
    /// Makes a VM and places it.
    CreateVm {
        /// The wanted VM.
        spec: VmSpec,
        /// Whether it starts at once.
        desired: Desired,
        /// The nodes the leader could reach when it proposed: the planner chooses among these. The leader's
        /// word, and no part of what was asked for.
        #[serde(default)]
        eligible: Vec<NodeName>,
    },
    /// Starts a stopped VM.
    StartVm {
        /// The VM.
        name: VmName,
    },
    /// Stops a VM; it keeps its name, disks and reservation.
    StopVm {
        /// The VM.
        name: VmName,
    },
    /// Stops a VM and forgets it once its node reports the unit gone.
    DeleteVm {
        /// The VM.
        name: VmName,
    },
    /// A node reports that the unit of a deleted VM is gone. Ignored when the generation is not the
    /// placement's.
    ConfirmGone {
        /// The VM.
        name: VmName,
        /// The node that says so.
        node: NodeName,
        /// The placement it speaks of.
        generation: u64,
    },
    /// A node declares what it offers and where it is reached.
    SetNode {
        /// The node that declares it.
        endpoint_id: EndpointId,
        /// The resources that it offers.
        capacity: Capacity,
        /// Where it is reached.
        addresses: Vec<SocketAddr>,
        /// The relay it is reached through, if it uses one.
        #[serde(default)]
        relay_url: Option<RelayUrl>,
        /// Whether it is a witness.
        #[serde(default, skip_serializing_if = "is_false")]
        witness: bool,
    },
    /// Makes a ticket.
    CreateTicket {
        /// Its id.
        id: TicketId,
        /// The only name that its bearer may take.
        #[serde(default)]
        name: Option<NodeName>,
        /// The hash of its secret.
        hash: TicketHash,
        /// How long it lives, in milliseconds.
        ttl_ms: u64,
        /// The leader's clock when it proposed this, in milliseconds since the Unix epoch. The leader's word,
        /// and no part of what was asked for.
        #[serde(default)]
        at_ms: u64,
    },
    /// Takes a ticket back.
    RevokeTicket {
        /// The ticket.
        id: TicketId,
    },
    /// Forgets the VMs that were placed on a node that left the cluster for good.
    ForgetVms {
        /// The name it had.
        node: NodeName,
    },
    /// The leader has decided that these tickets have expired.
    ExpireTickets {
        /// The tickets.
        ids: Vec<TicketId>,
    },
}

impl Command {
    /// The VM that it is about.
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Self::CreateVm { spec, .. } => Some(&spec.name),
            Self::StartVm { name }
            | Self::StopVm { name }
            | Self::DeleteVm { name }
            | Self::ConfirmGone { name, .. } => Some(name),
            Self::SetNode { .. }
            | Self::CreateTicket { .. }
            | Self::RevokeTicket { .. }
            | Self::ForgetVms { .. }
            | Self::ExpireTickets { .. } => None,
        }
    }
}

/// A command with the id under which it is applied at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client.
    pub id: RequestId,
    /// The command.
    pub command: Command,
}

/// The deterministic result of applying a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is done, or it was so already.
    Done {
        /// Where the VM is placed, for commands about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeName>,
        /// The state was as wanted before: nothing changed.
        #[serde(default)]
        unchanged: bool,
    },
    /// It was refused; nothing changed.
    Refused {
        /// The reason, with the way out.
        refusal: Refusal,
    },
}

impl Outcome {
    /// Done, with a change.
    pub fn done(node: Option<NodeName>) -> Self {
        Self::Done { node, unchanged: false }
    }

    /// Done: it was so already.
    pub fn unchanged(node: Option<NodeName>) -> Self {
        Self::Done { node, unchanged: true }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal }
    }
}

/// Why a command was refused, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Refusal {
    /// A field of the spec has a value that is not allowed.
    #[error("invalid spec: {0}")]
    InvalidSpec(InvalidSpec),
    /// The name is taken.
    #[error("a VM named {name} exists (on {node}): choose another name, or delete it first")]
    VmExists {
        /// The name.
        name: VmName,
        /// Where the other one is.
        node: NodeName,
    },
    /// No VM of this name.
    #[error("there is no VM named {name}: `blixard vm list` shows those there are")]
    VmNotFound {
        /// The name.
        name: VmName,
    },
    /// The VM is being deleted.
    #[error(
        "VM {name} is being deleted; name, disks and reservation are free once {node} reports its unit gone \
         (if {node} is gone for good: blixard node remove {node} --force --vms delete)"
    )]
    VmDeleting {
        /// The name.
        name: VmName,
        /// The node that has to report.
        node: NodeName,
    },
    /// The pin names no member.
    #[error("there is no node named {node}: `blixard node list` shows the members")]
    NodeNotFound {
        /// The name.
        node: NodeName,
    },
    /// No node can take it.
    #[error("VM {name} does not fit: {}", list(.nodes))]
    DoesNotFit {
        /// The VM.
        name: VmName,
        /// What is missing, per node.
        nodes: BTreeMap<NodeName, String>,
    },
    /// The cluster holds as many as it may.
    #[error("the cluster already holds {limit} VMs, its limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The same request id was used for something else.
    #[error("request id {id} was used for another request: choose a new one")]
    RequestIdReused {
        /// The id.
        id: RequestId,
    },
    /// The endpoint is no member.
    #[error("endpoint {endpoint_id} is not a member of this cluster")]
    NotAMember {
        /// The endpoint.
        endpoint_id: EndpointId,
    },
    /// A membership change that does not fit the members there are.
    #[error("the membership change does not apply: {why}")]
    Membership {
        /// The reason.
        why: String,
    },
    /// The node is no member.
    #[error("there is no node with raft id {raft_id} any more")]
    NodeLeft {
        /// The raft id.
        raft_id: RaftId,
    },
    /// VMs are placed on a node that is to be removed, and nobody said what becomes of them.
    #[error(
        "{count} VMs are placed on {node} ({}): delete them first or, if it will not come back, say what \
         becomes of them with --force and --vms",
        .some.join(", ")
    )]
    NodeHasVms {
        /// The node.
        node: NodeName,
        /// How many.
        count: usize,
        /// The first of them.
        some: Vec<VmName>,
    },
    /// A node that is to be removed does not answer, and nobody said that it will not come back.
    #[error(
        "{node} cannot be reached, so it would not learn that it was removed: if it will not come back, \
         remove it with --force"
    )]
    NodeUnreachable {
        /// The node.
        node: NodeName,
    },
    /// The change would leave too few reachable voters.
    #[error("without {node} the voters that can be reached are no quorum: {why}")]
    QuorumAtRisk {
        /// The node.
        node: NodeName,
        /// Which voters are missing, in words.
        why: String,
    },
    /// A ticket that admits nobody.
    #[error("the ticket is not valid: {why}")]
    Ticket {
        /// The reason.
        why: String,
    },
    /// A field of a command, outside a spec, has a value that is not allowed.
    #[error("invalid request: {why}")]
    Invalid {
        /// The reason.
        why: String,
    },
    /// An entry of a newer version; this node must be upgraded before it can apply it.
    #[error("this version does not know the command")]
    UnknownCommand,
}

fn list(nodes: &BTreeMap<NodeName, String>) -> String {
    if nodes.is_empty() {
        return "the cluster has no nodes".to_owned();
    }
    let parts: Vec<String> = nodes.iter().map(|(node, why)| format!("{node}: {why}")).collect();
    parts.join("; ")
}
