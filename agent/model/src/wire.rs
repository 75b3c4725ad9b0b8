//! What nodes say to each other beside Raft's own messages. JSON in length-limited frames.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::api::ChangeView;
use crate::ask::{Ask, AskOutcome, MembersAsk, WriteRequest};
use crate::fences::Fences;
use crate::formation::Identity;
use crate::id::{EndpointId, NodeName, RaftId, VmName};
use crate::lease::{LeaseRenewal, LeaseStanding, RenewalAnswer};
use crate::member::MEMBERS_MAX;
use crate::report::NodeReport;

pub use crate::join::{JoinRequest, JoinResponse};

/// Largest request or response between nodes, in bytes.
pub const FRAME_LEN_MAX: usize = 1 << 20;

/// A question from one node to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum PeerRequest {
    /// Asks for the identity of the peer, and tells it the asker's own.
    Identify {
        /// The identity of the asker.
        me: Identity,
    },
    /// "You lead: propose this and tell me when it is committed."
    Propose {
        /// The write.
        request: WriteRequest,
        /// How long the asker waits, in milliseconds.
        timeout_ms: u64,
    },
    /// "You lead: change the members so, and tell me when it is done."
    ChangeMembers {
        /// The change.
        change: MembersAsk,
        /// How long the asker waits, in milliseconds.
        timeout_ms: u64,
    },
    /// "This is what runs here." To the leader.
    Report {
        /// The report, and how long ago the units were listed.
        aged: AgedReport,
        /// Which page of it this is, if one frame is too short for all of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        page: Option<ReportPage>,
    },
    /// "What does everybody report?" To the leader.
    Reports {
        /// From where on. None is said by a release that takes no pages: it is answered with all at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<ReportsFrom>,
    },
    /// "How far is everybody, and what is being changed?" To the leader.
    Progress,
    /// "You lead: renew my lease." To the leader of a cluster of version 3 or later.
    RenewLease(LeaseRenewal),
    /// "Show me the console of a VM you run." Answered by a stream of raw text.
    Logs {
        /// The VM.
        name: VmName,
        /// The last lines to begin with.
        lines: u32,
        /// Go on with new ones.
        follow: bool,
    },
}

impl PeerRequest {
    /// An ask on its way to the leader, who has this time for it, in milliseconds.
    pub fn to_leader(ask: Ask, timeout_ms: u64) -> Self {
        match ask {
            Ask::Write(request) => Self::Propose { request, timeout_ms },
            Ask::Members(change) => Self::ChangeMembers { change, timeout_ms },
        }
    }
}

/// An answer to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum PeerResponse {
    /// The answer to `Identify`.
    Identity {
        /// The identity of the peer that answers.
        me: Box<Identity>,
        /// The keys of which it sees two agents; at most [`KEYS_HELD_TWICE_MAX`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        held_twice: Vec<KeyHeldTwice>,
    },
    /// To `Propose` and `ChangeMembers`.
    Proposed {
        /// How it ended.
        result: ProposeResult,
    },
    /// The answer to `Report`.
    Noted,
    /// The answer to `Reports`.
    Reports(ReportsPage),
    /// The answer to `Progress`.
    Progress {
        /// What the leader knows about the members.
        progress: ProgressReport,
    },
    /// The answer to `RenewLease`.
    Lease(RenewalAnswer),
    /// The peer cannot answer this: for instance, it does not lead.
    Declined {
        /// The reason, in words.
        why: String,
    },
}

impl PeerResponse {
    /// A question that is not answered, for this reason.
    pub fn declined(why: impl Into<String>) -> Self {
        Self::Declined { why: why.into() }
    }
}

/// A report and how old it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgedReport {
    /// The report.
    pub report: NodeReport,
    /// How long ago it arrived, in milliseconds.
    pub age_ms: u64,
}

/// Most pages of one node's report.
pub const REPORT_PAGES_MAX: u32 = 64;

/// A page of a report that is too long for one frame. A report counts once all of its pages arrived, in their
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportPage {
    /// The report's number: its node gives it to no other report that it sends.
    pub report: u64,
    /// The page, from 0.
    pub number: u32,
    /// How many there are: from 2 to [`REPORT_PAGES_MAX`].
    pub of: u32,
}

/// Where a page of all reports begins. The default is the beginning of them all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportsFrom {
    /// With this node, in the order of names; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The leader's number of that node's report. If there is a newer one, that begins anew.
    #[serde(default)]
    pub report: u64,
    /// How many VMs of it were told before.
    #[serde(default)]
    pub vm: u32,
}

/// All that nodes report, or a page of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReportsPage {
    /// Per node, the last report and its age in milliseconds.
    pub reports: Vec<AgedReport>,
    /// The first of them is the rest of the last one of the page before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goes_on: bool,
    /// Where the next page begins, if there is one. The last report here is incomplete if that is within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ReportsFrom>,
}

/// Most changes in a [`ProgressReport`].
pub const CHANGES_MAX: usize = 64;

/// Most keys that are told to be held twice.
pub const KEYS_HELD_TWICE_MAX: usize = 16;
/// Most addresses told of the agents with one key.
pub const HOLDERS_MAX: usize = 4;

/// A key with which several agents run at the same time, as when a machine's data directory was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHeldTwice {
    /// The key's public half.
    pub endpoint_id: EndpointId,
    /// Where the agents are, as far as that is known; at most [`HOLDERS_MAX`]. The one that has the link
    /// comes first.
    pub addresses: Vec<SocketAddr>,
}

impl KeyHeldTwice {
    /// The same within its bounds, whoever sent it.
    pub fn bounded(mut all: Vec<Self>) -> Vec<Self> {
        all.truncate(KEYS_HELD_TWICE_MAX);
        all.iter_mut().for_each(|held| held.addresses.truncate(HOLDERS_MAX));
        all
    }
}

/// What a leader knows of the members, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Each member; at most [`MEMBERS_MAX`].
    pub members: Vec<MemberProgress>,
    /// What is being changed about them; at most [`CHANGES_MAX`].
    pub changes: Vec<ChangeView>,
    /// The keys of which any member sees two agents; at most [`KEYS_HELD_TWICE_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_twice: Vec<KeyHeldTwice>,
    /// What ends the VMs of each node that may not run there any more, as far as it lately reported that; at
    /// most [`MEMBERS_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fences: BTreeMap<NodeName, Fences>,
}

impl ProgressReport {
    /// The same within its bounds, whoever sent it.
    pub fn bounded(mut self) -> Self {
        self.members.truncate(MEMBERS_MAX);
        self.changes.truncate(CHANGES_MAX);
        self.held_twice = KeyHeldTwice::bounded(self.held_twice);
        while self.fences.len() > MEMBERS_MAX {
            self.fences.pop_last();
        }
        self.fences.values_mut().for_each(Fences::cut);
        self
    }
}

/// How far the leader knows a member to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberProgress {
    /// The member.
    pub raft_id: RaftId,
    /// How many committed entries it is not known to have; null when it was not heard of since the leader
    /// leads.
    pub behind: Option<u64>,
    /// It is being sent the state whole.
    pub snapshot: bool,
    /// It was heard of lately.
    pub heard: bool,
    /// It was not heard of for longer than a voter may be missed.
    pub lost: bool,
    /// Milliseconds since it was last heard of; null for the leader itself, and for one that was never heard
    /// of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
    /// How it stands with its lease; null while it has not said that it obeys leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStanding>,
}

impl MemberProgress {
    /// Of a member of which nothing was told.
    pub fn unknown(raft_id: RaftId) -> Self {
        Self {
            raft_id,
            behind: None,
            snapshot: false,
            heard: false,
            lost: false,
            silent_ms: None,
            lease: None,
        }
    }
}

/// How a proposal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ProposeResult {
    /// It is decided: committed and applied, or the leader knew the end without that.
    Applied {
        /// How it ended.
        outcome: AskOutcome,
    },
    /// It was not proposed: nothing happened, another node may take it.
    NotLeader {
        /// The leader, if it is known.
        leader: Option<NodeName>,
    },
    /// It was not proposed: nothing happened.
    Rejected {
        /// The reason, in words.
        why: String,
    },
    /// It was proposed and its end is not known; the same request id may be sent again.
    Unknown {
        /// The reason, in words.
        why: String,
    },
}
