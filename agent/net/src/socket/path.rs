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

/// The path that a link uses at a given time. It changes while the link is up: a link that begins over a
/// relay uses a direct path as soon as one is found, and the relay again when that path is lost.
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

    /// The state to publish for a link that uses this path.
    pub(crate) fn state(&self, since: Instant, dialled: bool, rival: Option<Rival>) -> LinkState {
        let relay_url = match self {
            Self::Relayed(url) => Some(url.clone()),
            Self::Direct(_) | Self::Unknown => None,
        };
        LinkState::Up { since, remote_addr: self.remote_addr(), relay_url, dialled, rival }
    }

    /// The address that the packets come from, if the path is direct.
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
