//! The local API and the command line's `--json`: one shape for both. Fields are added, never renamed or
//! removed.
//!
//! HTTP/1.1 over the agent's Unix socket, bodies in JSON:
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`StatusView`] (the node's own view; waits for no quorum, 1 s for the leader) |
//! | `GET /v1/nodes[?stale=true]` | [`Listing`] of [`NodeView`] |
//! | `GET /v1/vms[?stale=true]` | [`Listing`] of [`VmView`] |
//! | `GET /v1/vms/NAME[?stale=true]` | [`VmView`] |
//! | `POST /v1/vms` ([`CreateVm`]) | [`Accepted`] |
//! | `POST /v1/vms/NAME/start`, `POST /v1/vms/NAME/stop`, `DELETE /v1/vms/NAME` | [`Accepted`] |
//! | `GET /v1/vms/NAME/logs[?follow=true&lines=N]` | plain text, streamed |
//! | `GET /v1/backup[?stale=true]` | a backup file, as [`crate::backup`] describes it |
//! | `GET /v1/local/vms` | [`LocalListing`](crate::local::LocalListing) (this machine's own view) |
//! | `POST /v1/local/vms/NAME/stop` | [`LocalStop`](crate::local::LocalStop), once that is kept on disk |
//! | `DELETE /v1/nodes/NAME[?force=true][&vms=retire\|delete\|keep]` | [`Accepted`] |
//! | `GET /v1/tickets[?stale=true]` | [`Listing`] of [`TicketView`] |
//! | `POST /v1/tickets` ([`NewTicket`]) | [`TicketMade`] |
//! | `DELETE /v1/tickets/ID` | [`Accepted`] |
//! | `POST /v1/cluster/join` ([`JoinCluster`]) | [`JoinTaken`] |
//! | `POST /v1/cluster/leave` | [`Accepted`] |
//! | `POST /v1/cluster/disarm` ([`DisarmFor`]) | [`Accepted`] |
//! | `POST /v1/cluster/arm` | [`Accepted`] |
//! | `PATCH /v1/cluster/lease` ([`LeaseTermsPatch`]) | [`LeaseTermsChoice`], as they are from here on |
//! | `GET /metrics` | Prometheus' text format; the names are in `agent/docs/metrics.md` |
//!
//! A write takes its request id from the header `blixard-request-id` and its patience from
//! `blixard-timeout-ms`. Errors are an [`ErrorBody`]; status 409 and 404 are refusals, 400 is usage, 503
//! means nothing happened, 504 outcome unknown.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::command::Refusal;
use crate::fences::Fences;
use crate::id::{ClusterId, ClusterName, EndpointId, NodeName, RaftId, RequestId, StoreId, TicketId, VmName};
use crate::lease::{LeaseStanding, LeaseTermsChoice};
use crate::member::Role;
use crate::node::Capacity;
use crate::relay::RelayUrl;
use crate::report::{LastEnd, ObservedState};
use crate::stop::NotedStop;
use crate::ticket::TicketState;
use crate::version::ClusterVersion;
use crate::vm::{Desired, VmSpec};

/// Where the agent listens unless its configuration says otherwise, and where the command line looks for it.
pub const DEFAULT_SOCKET: &str = "/run/blixard/blixard.sock";
/// Header that names a write, so that it can be sent again safely.
pub const REQUEST_ID_HEADER: &str = "blixard-request-id";
/// Header that bounds a write, in milliseconds.
pub const TIMEOUT_HEADER: &str = "blixard-timeout-ms";

/// One node's view of itself and its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// This node.
    pub node: NodeName,
    /// Its identity.
    pub endpoint_id: EndpointId,
    /// Its store.
    pub store_id: StoreId,
    /// Version of the agent.
    pub version: String,
    /// The configured cluster name.
    pub cluster_name: ClusterName,
    /// `forming` (no cluster yet), `joining` (known to a cluster, waiting for its state), `member` or
    /// `removed`.
    pub phase: NodePhase,
    /// Why it is not a member yet, one line for each node waited for.
    pub waiting_for: Vec<String>,
    /// The cluster, once there is one.
    pub cluster_id: Option<ClusterId>,
    /// The version of the cluster, as this node's log knows it; none before there is one.
    #[serde(default)]
    pub cluster_version: Option<ClusterVersion>,
    /// The leader, as far as this node knows.
    pub leader: Option<NodeName>,
    /// Whether a quorum was heard of within the last election timeout.
    pub quorum: bool,
    /// Raft's term.
    pub term: u64,
    /// Highest log index known committed.
    pub commit: u64,
    /// Highest log index applied here.
    pub applied: u64,
    /// Term of the last log entry here, known to be committed or not.
    #[serde(default)]
    pub last_term: u64,
    /// Its index. Of two nodes, the one with the later term has more of the log, and of two with the same
    /// term the one with the higher index.
    #[serde(default)]
    pub last_index: u64,
    /// The members, as this node's log knows them.
    pub members: Vec<NodeView>,
    /// VMs the log knows.
    pub vms: usize,
    /// Differences between the configuration and the log, and other things an operator should look at.
    pub warnings: Vec<String>,
    /// What failed and is tried again.
    #[serde(default)]
    pub retrying: Vec<RetryView>,
    /// Why the ticket that this node has or had is of no use; null when none was tried, or it may be.
    #[serde(default)]
    pub ticket_problem: Option<String>,
    /// The voters, and whether enough of them are reachable; null without a cluster.
    #[serde(default)]
    pub voters: Option<VotersView>,
    /// What is being changed about the members, and what it waits for.
    #[serde(default)]
    pub changes: Vec<ChangeView>,
    /// This node's own lease; null without a cluster, and while leases are not needed.
    #[serde(default)]
    pub lease: Option<LeaseView>,
    /// The terms of the cluster's leases; null without a cluster.
    #[serde(default)]
    pub lease_terms: Option<LeaseTermsChoice>,
    /// Since the cluster was disarmed, no VM is started elsewhere because its node is lost; null while it is
    /// armed.
    #[serde(default)]
    pub disarmed: Option<DisarmedView>,
}

/// A cluster that is disarmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisarmedView {
    /// When it is armed again by itself, in milliseconds since the Unix epoch.
    pub until_unix_ms: u64,
    /// The same, in milliseconds from now on.
    pub left_ms: u64,
    /// The nodes whose VMs may not outlast a cut yet, because the log does not know of their long lease.
    pub waits_for: Vec<NodeName>,
}

/// The lease under which a node runs VMs that may be failed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// For how many milliseconds it holds unless it is renewed; null when there is none.
    pub holds_for_ms: Option<u64>,
    /// Why it was not renewed the last time; null when it was, or nobody answered.
    pub denied: Option<String>,
}

/// The voters as the answering node sees them: by what it lately heard of them when it leads, else by its own
/// links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VotersView {
    /// How many there are.
    pub total: usize,
    /// How many of them can be reached; the answering node can reach itself.
    pub reachable: usize,
    /// How many are a quorum.
    pub needed: usize,
}

/// A change of the members that is under way, or that could be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// The change: which node becomes what.
    pub what: String,
    /// Without what it does not go on; null when it does.
    pub waits_for: Option<String>,
}

/// An operation that failed and is tried again, with exponential backoff and jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryView {
    /// What is tried.
    pub what: RetryKind,
    /// With whom; null when it is nobody in particular.
    pub peer: Option<NodeName>,
    /// Failures in a row; of several at once, the most.
    pub failures: u32,
    /// Milliseconds until the next try; null while one is due or under way, or when it waits for something
    /// else.
    pub next_try_in_ms: Option<u64>,
    /// Why the last try failed.
    pub last_error: String,
    /// Milliseconds since it began to fail, of several at once since the first of them did; null when the
    /// agent does not say.
    #[serde(default)]
    pub failing_for_ms: Option<u64>,
}

/// A kind of work that is tried again after it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryKind {
    /// Asking the listed nodes, while there is no cluster.
    Form,
    /// The link to a peer.
    Connect,
    /// Opening this node's UDP socket.
    Transport,
    /// Writing to the log what this node offers.
    Register,
    /// Sending the report about this node's VMs to the leader.
    Report,
    /// Forwarding writes to the leader.
    Forward,
    /// Asking a peer for its identity.
    Identify,
    /// Asking a member for admission with a ticket.
    Join,
}

impl RetryKind {
    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Connect => "connect",
            Self::Transport => "transport",
            Self::Register => "register",
            Self::Report => "report",
            Self::Forward => "forward",
            Self::Identify => "identify",
            Self::Join => "join",
        }
    }
}

/// How far a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodePhase {
    /// No cluster yet.
    Forming,
    /// Known to a cluster, waiting for its state.
    Joining,
    /// Part of a cluster.
    Member,
    /// Removed from its cluster by an operator.
    Removed,
}

/// A list and how fresh it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// The items, by name.
    pub items: Vec<T>,
    /// True when a quorum confirmed that nothing newer was acknowledged before the read began.
    pub linearizable: bool,
    /// Log index the list shows.
    pub applied: u64,
    /// As in [`StatusView`], in lists of VMs and of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disarmed: Option<DisarmedView>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its identity.
    pub endpoint_id: EndpointId,
    /// Raft's name for it.
    pub raft_id: RaftId,
    /// Its store.
    pub store_id: StoreId,
    /// Its part in the quorum.
    pub role: Role,
    /// It leads, as far as the answering node knows.
    pub leader: bool,
    /// The answering node has a link to it (or is it).
    pub reachable: bool,
    /// Where it is reached.
    pub addresses: Vec<SocketAddr>,
    /// The relay it is reached through; null when it uses none.
    #[serde(default)]
    pub relay_url: Option<RelayUrl>,
    /// The resources that it offers; null until it has registered them.
    pub capacity: Option<Capacity>,
    /// The part of it that placements reserve.
    pub reserved: Capacity,
    /// How many VMs are placed on it.
    pub vms: usize,
    /// It votes, or is there to vote, and is never given a VM.
    #[serde(default)]
    pub witness: bool,
    /// Milliseconds since the answering node has no link to it; null while it has one, or never looked.
    #[serde(default)]
    pub unreachable_for_ms: Option<u64>,
    /// Milliseconds since it was last heard of: by the leader, and the leader itself by the answering node;
    /// null where the leader could not be asked, or has not heard of it yet. A link is given up only after
    /// some seconds of silence.
    #[serde(default)]
    pub silent_for_ms: Option<u64>,
    /// How many committed log entries it is not known to have. The leader knows; null where it could not be
    /// asked, or has not heard of the member since it leads.
    #[serde(default)]
    pub behind: Option<u64>,
    /// The leader sends it the state whole, because the log does not reach back far enough for it.
    #[serde(default)]
    pub snapshot: bool,
    /// The leader has missed it for longer than `voter_lost_after_s`.
    #[serde(default)]
    pub lost: bool,
    /// Where the agents are that run with its key, when there are two of them at the same time; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_twice_at: Vec<SocketAddr>,
    /// How it stands with its lease, as the leader knows it: `holds`, `suspect` or `lost`; null where the
    /// leader could not be asked, and while leases are not needed.
    #[serde(default)]
    pub lease: Option<LeaseStanding>,
    /// The directories of disks that it shares with other nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_dirs: Vec<String>,
    /// What ends its VMs that may not run there any more, and what does not; null where the leader could not
    /// be asked or has no report of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fences: Option<Fences>,
}

/// A VM: desired by the log, observed by its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmView {
    /// Its name.
    pub name: VmName,
    /// The wanted state.
    pub desired: Desired,
    /// The observed state.
    pub state: ObservedState,
    /// Where it is placed.
    pub node: NodeName,
    /// The placement's generation.
    pub generation: u64,
    /// The revision of its spec: 0 while it is as the VM was made with, then another number for each change.
    #[serde(default)]
    pub revision: u64,
    /// The unit's main process on that node.
    pub main_pid: Option<u32>,
    /// Why the state is what it is, when there is something to say.
    pub reason: Option<String>,
    /// Age of the observation in milliseconds; null when there is none.
    pub observed_age_ms: Option<u64>,
    /// Why it is not wanted to run, when that is its node's word: it was stopped by hand there, or it ended
    /// and is not to be restarted. Null once somebody has started it.
    #[serde(default)]
    pub stopped: Option<NotedStop>,
    /// How it ended by itself or failed to start the last time, as far as its node's agent has seen it.
    #[serde(default)]
    pub last_end: Option<LastEnd>,
    /// The wanted VM.
    pub spec: VmSpec,
}

/// Body of `PUT /v1/vms/NAME/spec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeVm {
    /// The wanted VM; of that name.
    pub spec: VmSpec,
    /// The revision that was changed; when the spec has another one by now, the change is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Body of `POST /v1/vms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateVm {
    /// The wanted VM.
    pub spec: VmSpec,
    /// Whether it shall run at once.
    #[serde(default)]
    pub start: bool,
}

/// Body of `POST /v1/tickets`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTicket {
    /// How long it lives, in milliseconds; an hour when it is left out.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// The only name that its bearer may take.
    #[serde(default)]
    pub name: Option<NodeName>,
}

/// Body of `POST /v1/cluster/disarm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisarmFor {
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

/// Body of `PATCH /v1/cluster/lease`: what is left out stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTermsPatch {
    /// See [`LeaseTermsChoice::lease_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// See [`LeaseTermsChoice::stop_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_ms: Option<u64>,
    /// See [`LeaseTermsChoice::margin_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin_ms: Option<u64>,
}

impl LeaseTermsPatch {
    /// The terms after this.
    pub fn applied_to(self, before: LeaseTermsChoice) -> LeaseTermsChoice {
        LeaseTermsChoice {
            lease_ms: self.lease_ms.unwrap_or(before.lease_ms),
            stop_ms: self.stop_ms.unwrap_or(before.stop_ms),
            margin_ms: self.margin_ms.unwrap_or(before.margin_ms),
        }
    }
}

/// A ticket that was made. The only place where its text is ever shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketMade {
    /// Its id, which is no secret.
    pub id: TicketId,
    /// The text of the ticket, to be carried to the new node.
    pub ticket: String,
    /// The only name that its bearer may take.
    pub name: Option<NodeName>,
    /// When it ends, in milliseconds since the Unix epoch by the leader's clock.
    pub expires_ms: u64,
}

impl std::fmt::Debug for TicketMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketMade").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A ticket as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketView {
    /// Its id.
    pub id: TicketId,
    /// The only name that its bearer may take.
    pub name: Option<NodeName>,
    /// Whether it still admits somebody.
    #[serde(flatten)]
    pub state: TicketState,
    /// When it ends, in milliseconds since the Unix epoch by the clock of the leader that made it.
    pub expires_ms: u64,
    /// How long until then by the answering node's clock, in milliseconds; 0 when it is over.
    pub expires_in_ms: u64,
}

/// Body of `POST /v1/cluster/join`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinCluster {
    /// The ticket's text.
    pub ticket: String,
}

impl std::fmt::Debug for JoinCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinCluster(..)")
    }
}

/// A ticket that a node has taken, to join with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTaken {
    /// The ticket's cluster.
    pub cluster_id: ClusterId,
    /// Its id.
    pub id: TicketId,
}

/// A write that is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The id it was applied under.
    pub request_id: RequestId,
    /// Where the VM is placed.
    pub node: Option<NodeName>,
    /// The state was as wanted before.
    pub unchanged: bool,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind of end it is; decides the command line's exit code.
    pub error: ErrorKind,
    /// The cause and the way out, for people.
    pub message: String,
    /// The refusal, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Box<Refusal>>,
    /// The id of the write, for a safe retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

/// The ends a request can have beside success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Refused; exit code 1.
    Refused,
    /// Not understood; exit code 2.
    Usage,
    /// Nothing happened (no quorum, not reachable); exit code 3.
    Unavailable,
    /// The outcome is not known; exit code 4. The same request id may be sent again.
    Unknown,
}

impl ErrorKind {
    /// The command line's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
            Self::Unknown => 4,
        }
    }
}
