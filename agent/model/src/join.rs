//! The words of the join protocol: what a node with a ticket says, and what the member answers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::command::Refusal;
use crate::contact::Contact;
use crate::formation::{Genesis, Identity};
use crate::id::{ClusterId, RaftId, TicketId};
use crate::ticket::TicketSecret;

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
