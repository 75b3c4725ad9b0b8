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
        /// Another agent that runs with the peer's key at the same time, and is not let in.
        rival: Option<Rival>,
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

/// An agent that runs with the key of a peer with which there is a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// Where its last attempt came from; `None` when it came through a relay, or that is not known.
    pub remote_addr: Option<SocketAddr>,
}

/// What a peer says that keeps its link with another agent with this node's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldElsewhere {
    /// Where that one is; `None` when it is reached through a relay, or that is not known.
    pub other_addr: Option<SocketAddr>,
    /// Where this node is, as the peer sees it.
    pub own_addr: Option<SocketAddr>,
    /// For how long that link has been up, in milliseconds.
    pub for_ms: u64,
}

impl fmt::Display for HeldElsewhere {
    /// Without the time, which grows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |address: Option<SocketAddr>| {
            address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string())
        };
        let (other, own) = (place(self.other_addr), place(self.own_addr));
        write!(
            f,
            "it keeps its link with another agent that runs with this node's key, at {other}; this one is at \
             {own}"
        )
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
    /// The peer has a link with another agent that runs with this node's key, and that one answers.
    HeldElsewhere(HeldElsewhere),
    /// This node stands aside for that one: see [`crate::Net::stand_aside`].
    StandsAside,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("not tried yet"),
            Self::NoTransport => f.write_str("this node has no network"),
            Self::Unreachable(why) => write!(f, "unreachable: {why}"),
            Self::Refused(why) => write!(f, "refused by the peer: {why}"),
            Self::Lost(why) => write!(f, "lost: {why}"),
            Self::StandsAside => {
                f.write_str("not tried: this node stands aside for another agent that runs with its key")
            }
            Self::HeldElsewhere(held) => write!(f, "refused by the peer: {held}"),
            Self::Removed(word) => write!(f, "the peer says that this node was removed ({word})"),
        }
    }
}
