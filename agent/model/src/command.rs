//! What the log holds and what applying it gives.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::boot::BootId;
use crate::id::{EndpointId, NodeName, RaftId, RequestId, TicketHash, TicketId, VmName};
use crate::lease::{HoldAsk, LeaseTermsChoice};
use crate::node::Offer;
use crate::reason::{FieldRefused, Lacks, Reason, RevokeProblem};
use crate::stop::VmStop;
use crate::version::ClusterVersion;
use crate::vm::{Desired, InvalidSpec, OrderId, VmSpec};

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
    /// Gives a VM another spec; it stays where it is placed. A unit that runs by the spec before is stopped
    /// and started anew. From version 2 of the cluster on.
    ChangeVm {
        /// The wanted VM; its name says which.
        spec: VmSpec,
        /// The revision that whoever asks has seen: with another one it is refused.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<u64>,
    },
    /// Starts a stopped VM. One that stayed stopped as its node said gets a new generation, so that what is
    /// still said of the one before is of no account.
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
    /// A node reports that no unit of a VM runs by an earlier spec: what those took is free. Ignored when it
    /// speaks of another placement or revision than the log's. From version 2 of
    /// the cluster on.
    ConfirmSpec {
        /// The VM.
        name: VmName,
        /// The node that says so.
        node: NodeName,
        /// The placement and the revision of the spec that it speaks of.
        #[serde(flatten)]
        order: OrderId,
    },
    /// A node reports that a VM that is wanted to run stays stopped there, and why: from here on it is not
    /// wanted to run. Ignored when the generation is not the placement's, and when it is not wanted to run
    /// any more. From version 4 of the cluster on.
    NoteStopped {
        /// The VM.
        name: VmName,
        /// The node that says so.
        node: NodeName,
        /// The placement it speaks of.
        generation: u64,
        /// What happened.
        #[serde(flatten)]
        stop: VmStop,
    },
    /// A node declares what it offers and where it is reached.
    SetNode {
        /// The node that declares it.
        endpoint_id: EndpointId,
        /// What it declares, with its resources.
        #[serde(flatten, deserialize_with = "Offer::with_capacity")]
        offer: Offer,
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
    /// A node runs VMs that may be failed over only under a lease from now on, in this boot of its machine.
    /// Ignored when it speaks of another time of enforcement than the log's. From version 3 of the cluster
    /// on.
    EnforceLease {
        /// The node, by its raft id: a store of it.
        raft_id: RaftId,
        /// The boot.
        boot_id: BootId,
        /// Which time of enforcement it speaks of.
        epoch: u64,
    },
    /// The leader has waited until a node certainly runs no VM that may be failed over: these go to other
    /// nodes. The leader's word alone: nobody can ask for it, and in an entry of another term than the one
    /// that it was decided in it does nothing. From version 3 of the cluster on.
    NodeLost {
        /// The node, by the name that VMs are placed by.
        node: NodeName,
        /// The term of the leader that decided it.
        term: u64,
        /// The nodes that have a lease: the planner chooses among these.
        eligible: Vec<NodeName>,
        /// How far the leader had applied its log when it decided: the node may have announced a long lease
        /// since. Left out before version 4 of the cluster.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<u64>,
    },
    /// A node announces a long lease: it may hold one from before it asked, whoever leads. From version 4 of
    /// the cluster on.
    TakeHold {
        /// The node, by its raft id: a store of it.
        raft_id: RaftId,
        /// What it announces.
        #[serde(flatten)]
        hold: HoldAsk,
    },
    /// A node says that none of its supervisors counts on a long lease any more. Ignored when it speaks of
    /// another one than the log's, and while the cluster is disarmed. From version 4 of the cluster on.
    EndHold {
        /// The node, by its raft id: a store of it.
        raft_id: RaftId,
        /// The boot of its machine that says so.
        boot_id: BootId,
        /// The long lease that it speaks of, by the log index that it came with.
        since: u64,
    },
    /// For so long no VM is started elsewhere because its node is lost, and every node takes a long lease.
    /// From version 4 of the cluster on.
    Disarm {
        /// For how long, in milliseconds.
        for_ms: u64,
        /// The leader's clock when it proposed this, in milliseconds since the Unix epoch. The leader's word,
        /// and no part of what was asked for.
        #[serde(default)]
        at_ms: u64,
    },
    /// VMs of lost nodes are started elsewhere again. From version 4 of the cluster on.
    Arm {
        /// Only if it has been disarmed by the entry at this index: the leader's word, when the time is over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<u64>,
    },
    /// Gives leases other terms. From version 4 of the cluster on.
    SetLeaseTerms {
        /// Those from here on.
        #[serde(flatten)]
        terms: LeaseTermsChoice,
    },
    /// The leader has heard of every member that it supports this version of the cluster.
    RaiseVersion {
        /// The version from here on.
        to: ClusterVersion,
    },
}

impl Command {
    /// The VM that it is about.
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Self::CreateVm { spec, .. } | Self::ChangeVm { spec, .. } => Some(&spec.name),
            Self::StartVm { name }
            | Self::StopVm { name }
            | Self::DeleteVm { name }
            | Self::ConfirmGone { name, .. }
            | Self::ConfirmSpec { name, .. }
            | Self::NoteStopped { name, .. } => Some(name),
            Self::SetNode { .. }
            | Self::CreateTicket { .. }
            | Self::RevokeTicket { .. }
            | Self::ForgetVms { .. }
            | Self::ExpireTickets { .. }
            | Self::EnforceLease { .. }
            | Self::NodeLost { .. }
            | Self::TakeHold { .. }
            | Self::EndHold { .. }
            | Self::Disarm { .. }
            | Self::Arm { .. }
            | Self::SetLeaseTerms { .. }
            | Self::RaiseVersion { .. } => None,
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
    /// The spec is another one than the one that was to be changed.
    #[error(
        "the spec of VM {name} was changed meanwhile (revision {revision}): look at it with `blixard vm show \
         {name}` and change it again"
    )]
    SpecChanged {
        /// The VM.
        name: VmName,
        /// The revision that it has.
        revision: u64,
    },
    /// A change would pin the VM to another node than the one it is placed on.
    #[error(
        "VM {name} is placed on {node}, and a change of its spec does not move it: pin it to {node} or to no \
         node"
    )]
    PlacedElsewhere {
        /// The VM.
        name: VmName,
        /// Where it is placed.
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
        nodes: BTreeMap<NodeName, Reason<Lacks>>,
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
        why: Reason<RevokeProblem>,
    },
    /// A field of a command, outside a spec, has a value that is not allowed.
    #[error("invalid request: {why}")]
    Invalid {
        /// The reason.
        why: Reason<FieldRefused>,
    },
    /// An entry of a newer version; this node must be upgraded before it can apply it.
    #[error("this version does not know the command")]
    UnknownCommand,
}

impl Refusal {
    /// With its reason in words, as the first version of a cluster keeps it.
    #[must_use]
    pub fn in_words(self) -> Self {
        match self {
            Self::InvalidSpec(InvalidSpec { field, problem }) => {
                Self::InvalidSpec(InvalidSpec { field, problem: problem.in_words() })
            }
            Self::DoesNotFit { name, nodes } => {
                let nodes = nodes.into_iter().map(|(node, why)| (node, why.in_words())).collect();
                Self::DoesNotFit { name, nodes }
            }
            Self::Ticket { why } => Self::Ticket { why: why.in_words() },
            Self::Invalid { why } => Self::Invalid { why: why.in_words() },
            other => other,
        }
    }
}

fn list(nodes: &BTreeMap<NodeName, Reason<Lacks>>) -> String {
    if nodes.is_empty() {
        return "the cluster has no nodes".to_owned();
    }
    let parts: Vec<String> = nodes.iter().map(|(node, why)| format!("{node}: {why}")).collect();
    parts.join("; ")
}
