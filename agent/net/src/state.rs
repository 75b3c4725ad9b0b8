//! What is known of each link, for status and for decisions about who can be reached.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use blixard_model::{EndpointId, RelayUrl};

/// All links, by peer.
pub type Links = BTreeMap<EndpointId, LinkState>;

/// Whether a peer can be talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// It can.
    Up {
        /// Since when.
        since: Instant,
        /// Where its packets come from; `None` when they come through a relay, or that is not known (yet).
        remote_addr: Option<SocketAddr>,
        /// The relay that they come through, one of this node's own list.
        relay_url: Option<RelayUrl>,
        /// This node dialled; the peer otherwise.
        dialled: bool,
    },
    /// Nothing can be sent to the peer at this moment.
    Down {
        /// Since when.
        since: Instant,
        /// Why the last attempt failed, or why the link was lost.
        reason: DownReason,
        /// Failed attempts to connect since then.
        attempts: u32,
    },
}

impl LinkState {
    /// True while the link is up.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// Why a link is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownReason {
    /// No attempt has ended yet.
    Starting,
    /// This node has no endpoint: [`crate::Net::transport`] says why.
    NoTransport,
    /// Nobody answers where the peer should be.
    Unreachable(String),
    /// The peer answers and does not want this node: an operator has to mend something.
    Refused(String),
    /// The link was up and ended.
    Lost(String),
    /// The peer says that the cluster removed this node, with a word about the removal, of 1 to
    /// [`crate::limits::REMOVED_WORD_LEN_MAX`] bytes and without control characters; what it means is the
    /// application's. While no attempt failed since, the link was up and was closed for it; otherwise an
    /// attempt to connect was refused for it.
    Removed(String),
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("not tried yet"),
            Self::NoTransport => f.write_str("this node has no network"),
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::Refused(why) => write!(f, "refused by the peer: {why}"),
            Self::Lost(why) => write!(f, "lost: {why}"),
            Self::Removed(word) => write!(f, "the peer says that this node was removed ({word})"),
        }
    }
}
