//! Where a peer or a contact may be dialled.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use iroh::{EndpointAddr, PublicKey, TransportAddr};

/// Addresses, and relays of this node's own list. All are tried at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Whereabouts(BTreeSet<TransportAddr>);

impl Whereabouts {
    /// Takes more of them in.
    pub(crate) fn add(
        &mut self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        relays: impl IntoIterator<Item = iroh::RelayUrl>,
    ) {
        self.0.extend(addresses.into_iter().map(TransportAddr::Ip));
        self.0.extend(relays.into_iter().map(TransportAddr::Relay));
    }

    /// Whether there is nowhere to dial.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same for iroh.
    pub(crate) fn of(self, key: PublicKey) -> EndpointAddr {
        EndpointAddr::from_parts(key, self.0)
    }
}
