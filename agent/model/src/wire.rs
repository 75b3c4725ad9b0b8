//! What nodes say to each other beside Raft's own messages. JSON in length-limited frames.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::api::ChangeView;
use crate::command::{Outcome, Refusal, Request};
use crate::formation::{Genesis, Identity};
use crate::id::{ClusterId, EndpointId, NodeName, RaftId, TicketId, VmName};
use crate::member::MEMBERS_MAX;
use crate::relay::RelayUrl;
use crate::removal::VmsFate;
use crate::report::NodeReport;
use crate::ticket::TicketSecret;

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
        request: Request,
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

/// A change of the members that somebody asks for; the leader decides what it takes. Asked again it changes
/// nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "members", rename_all = "snake_case")]
pub enum MembersAsk {
    /// A node is to leave for good.
    Remove {
        /// The member to remove.
        raft_id: RaftId,
        /// It does not answer and will not come back.
        force: bool,
        /// What becomes of its VMs; they need `force`.
        vms: Option<VmsFate>,
    },
    /// A member names a node of its list that has an empty store, so that the leader admits it.
    Vouch {
        /// The node, with its addresses from the list.
        node: Box<Identity>,
    },
    /// A node with an empty store has a ticket and said this; its endpoint id is the one that its handshake
    /// proved.
    Admit(Box<JoinRequest>),
}

/// What a node with a ticket says to a member, on the join protocol, once the member has named its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The node that asks.
    pub node: Identity,
    /// The id of its ticket.
    pub ticket: TicketId,
    /// The secret, which proves that the node has the ticket.
    pub secret: TicketSecret,
    /// Those of its addresses that nobody wrote down; they are left out where they are another member's: a
    /// machine's inner networks may look like another's.
    #[serde(default)]
    pub guessed: Vec<SocketAddr>,
    /// As which member it was told that its endpoint is known ([`JoinResponse::Later`]). If it comes with
    /// another store than that member's, that one is lost: this word is younger than that member. Without it
    /// the request ends no place, since a late word of an earlier store looks the same.
    #[serde(default)]
    pub known_as: Option<RaftId>,
}

/// The answer of the member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "join", rename_all = "snake_case")]
pub enum JoinResponse {
    /// The node is a member.
    Admitted {
        /// Of which cluster.
        cluster_id: ClusterId,
        /// How that one was born.
        genesis: Genesis,
        /// Under which raft id.
        raft_id: RaftId,
        /// The members there are, and where.
        contacts: Vec<Contact>,
    },
    /// It is not, and will not be with this ticket.
    Refused {
        /// The reason, with the way out.
        refusal: Refusal,
    },
    /// Not now: try again.
    Later {
        /// The reason, in words.
        why: String,
        /// As which member the asker's endpoint is known; it says so when it asks again.
        #[serde(default)]
        known_as: Option<RaftId>,
    },
}

/// A member and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its identity.
    pub endpoint_id: EndpointId,
    /// Where it may be reached.
    pub addresses: Vec<SocketAddr>,
    /// The relay it may be reached through.
    #[serde(default)]
    pub relay_url: Option<RelayUrl>,
}

/// An answer to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum PeerResponse {
    /// The answer to `Identify`.
    Identity {
        /// The identity of the peer that answers.
        me: Box<Identity>,
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

/// What a leader knows of the members, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProgressReport {
    /// Each member; at most [`MEMBERS_MAX`].
    pub members: Vec<MemberProgress>,
    /// What is being changed about them; at most [`CHANGES_MAX`].
    pub changes: Vec<ChangeView>,
}

impl ProgressReport {
    /// The same within its bounds, whoever sent it.
    pub fn bounded(mut self) -> Self {
        self.members.truncate(MEMBERS_MAX);
        self.changes.truncate(CHANGES_MAX);
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
}

/// How a proposal ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ProposeResult {
    /// It is committed and applied.
    Applied {
        /// The result of applying it.
        outcome: Outcome,
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
