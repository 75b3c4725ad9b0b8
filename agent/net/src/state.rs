//! The state of each link, for `status` and for decisions about which peers can be reached.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use blixard_model::{EndpointId, RelayUrl};

/// The state of all links, by peer.
pub type Links = BTreeMap<EndpointId, LinkState>;

/// The state of the link to one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// The link is up: the peer can be talked to.
    Up {
        /// When the link came up.
        since: Instant,
        /// The address that the peer's packets come from; `None` when they come through a relay, or the
        /// address is not known (yet).
        remote_addr: Option<SocketAddr>,
        /// The relay that the peer's packets come through, which is in this node's own list; `None` when they
        /// do not come through a relay, or that is not known (yet).
        relay_url: Option<RelayUrl>,
        /// True when this node dialled, false when the peer did.
        dialled: bool,
        /// Another agent that runs with the peer's key at the same time and is refused, if there is one.
        rival: Option<Rival>,
    },
    /// Nothing can be sent to the peer at this moment.
    Down {
        /// When the link went down.
        since: Instant,
        /// Why the last attempt failed, or why the link was lost.
        reason: DownReason,
        /// Attempts to connect that failed since the last stable link; 0 right after a link was lost. A link
        /// that was lost within a second counts as a failed attempt.
        attempts: u32,
    },
}

impl LinkState {
    /// True while the link is up.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// A second agent that runs with the key of a peer to which there is a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rival {
    /// The address that its last attempt came from; `None` when it came through a relay, or that is not
    /// known.
    pub remote_addr: Option<SocketAddr>,
}

/// What a peer tells this node when the peer keeps its link with another agent that runs with this node's
/// key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldElsewhere {
    /// The address of the other agent; `None` when it is reached through a relay, or that is not known.
    pub other_addr: Option<SocketAddr>,
    /// The address of this node as the peer sees it; `None` when it is reached through a relay, or that is
    /// not known.
    pub own_addr: Option<SocketAddr>,
    /// For how long the link with the other agent has been up, in milliseconds.
    pub for_ms: u64,
}

impl fmt::Display for HeldElsewhere {
    /// Leaves `for_ms` out, because it grows from one attempt to the next.
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
    /// No attempt to connect has ended yet.
    Starting,
    /// This node has no endpoint: [`crate::Net::transport`] says why.
    NoTransport,
    /// The peer cannot be reached, for this reason.
    Unreachable(String),
    /// The peer answers but refuses this node: an operator has to correct something.
    Refused(String),
    /// The link was up and ended.
    Lost(String),
    /// The peer says that the cluster removed this node, and gives a text about the removal, of 1 to
    /// [`crate::limits::REMOVED_WORD_LEN_MAX`] bytes and without control characters. What the text means is
    /// up to the application. As long as no attempt to connect has failed since, the link was up and was
    /// closed for this reason; otherwise an attempt to connect was refused for it.
    Removed(String),
    /// The peer has a live link with another agent that runs with this node's key.
    HeldElsewhere(HeldElsewhere),
    /// This node stands aside for another agent that runs with its key: see [`crate::Net::stand_aside`].
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
