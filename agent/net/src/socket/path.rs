//! How the packets of a link travel: straight to the peer, or through a relay.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use blixard_model::RelayUrl;
use futures_util::stream::{Stream, StreamExt};
use iroh::TransportAddr;
use iroh::endpoint::{Connection, PathList};

use crate::socket::relays::Relays;
use crate::state::{LinkState, Rival};

/// The path that a link uses at a moment. It changes while the link is up: what begins over a relay goes
/// straight as soon as a way is found, and back when that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkPath {
    Direct(SocketAddr),
    Relayed(RelayUrl),
    Unknown,
}

impl LinkPath {
    pub(crate) fn of(connection: &Connection, relays: &Relays) -> Self {
        Self::selected(&connection.paths(), relays)
    }

    fn selected(paths: &PathList<'_>, relays: &Relays) -> Self {
        let selected = paths.iter().find(|path| path.is_selected()).or_else(|| paths.iter().next());
        match selected.as_ref().map(|path| path.remote_addr()) {
            Some(TransportAddr::Ip(address)) => Self::Direct(*address),
            Some(TransportAddr::Relay(url)) => relays.listed(url).map_or(Self::Unknown, Self::Relayed),
            _ => Self::Unknown,
        }
    }

    /// What is published of a link that goes this way.
    pub(crate) fn state(&self, since: Instant, dialled: bool, rival: Option<Rival>) -> LinkState {
        let relay_url = match self {
            Self::Relayed(url) => Some(url.clone()),
            Self::Direct(_) | Self::Unknown => None,
        };
        LinkState::Up { since, remote_addr: self.remote_addr(), relay_url, dialled, rival }
    }

    /// Where the packets come from, if that is an address.
    pub(crate) fn remote_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(address) => Some(*address),
            Self::Relayed(_) | Self::Unknown => None,
        }
    }

    pub(crate) fn is_relayed(&self) -> bool {
        matches!(self, Self::Relayed(_))
    }
}

impl fmt::Display for LinkPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => address.fmt(f),
            Self::Relayed(url) => write!(f, "through the relay {url}"),
            Self::Unknown => f.write_str("an unknown address"),
        }
    }
}

/// The path, now and at every change, until the connection ends.
pub(crate) fn changes<'a>(
    connection: &'a Connection,
    relays: &'a Relays,
) -> impl Stream<Item = LinkPath> + Send + 'a {
    connection.paths_stream().map(|paths| LinkPath::selected(&paths, relays))
}
