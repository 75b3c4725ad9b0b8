//! Tickets: how a node that is on nobody's list becomes a member, once.
//!
//! The cluster keeps a [`TicketRecord`] with a hash; the text that an operator carries to the new node holds
//! a [`JoinTicket`] with the [`TicketSecret`]. What makes one of the other, and what judges a ticket, is in
//! `blixard-core`; the text form is in `blixard-net`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contact::Contact;
use crate::id::{ClusterId, NodeName, RaftId, TicketHash, TicketId};

/// Most tickets that the state keeps, those that have ended among them.
pub const TICKETS_MAX: usize = 128;
/// Shortest life of a ticket, in milliseconds.
pub const TICKET_TTL_MS_MIN: u64 = 10_000;
/// Life of a ticket unless somebody says otherwise, in milliseconds: an hour.
pub const TICKET_TTL_MS_DEFAULT: u64 = 3_600_000;
/// Longest life of a ticket, in milliseconds: a week.
pub const TICKET_TTL_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// The 256 random bits that admit whoever has them. Never stored by the cluster, never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TicketSecret([u8; 32]);

impl TicketSecret {
    /// Wraps random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for hashing and for the ticket's text.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

/// A ticket as its bearer has it: what a node needs to join a cluster, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTicket {
    /// The cluster that the ticket admits to. The joiner compares it with what the other side names before it
    /// shows the secret to anybody.
    pub cluster_id: ClusterId,
    /// Identifies the ticket.
    pub id: TicketId,
    /// Proves that its holder has the ticket.
    pub secret: TicketSecret,
    /// Members that may be asked. The text has room for a few.
    pub contacts: Vec<Contact>,
}

/// A ticket as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TicketRecord {
    /// The id of the ticket.
    pub id: TicketId,
    /// The only name that its bearer may take; any that is free when there is none.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// The hash of its secret.
    pub hash: TicketHash,
    /// How long it was made to live, in milliseconds.
    pub ttl_ms: u64,
    /// When it ends by the clock of the leader that proposed it, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Whether it still admits somebody.
    pub state: TicketState,
}

/// Whether a ticket still admits somebody.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TicketState {
    /// It does, until it expires.
    Open,
    /// It has admitted a node.
    Used {
        /// As which member.
        raft_id: RaftId,
        /// Its name.
        node: NodeName,
    },
    /// An operator took it back.
    Revoked,
    /// A leader found its time to be over.
    Expired,
}

impl TicketRecord {
    /// Nobody has used it, taken it back or found it expired.
    pub fn is_open(&self) -> bool {
        self.state == TicketState::Open
    }
}

/// The use of a ticket, as it stands in the configuration change that it admits a node with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TicketUse {
    /// The ticket that was used.
    pub id: TicketId,
    /// When the leader judged it, by its clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}
