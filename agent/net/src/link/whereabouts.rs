//! Where a peer or a contact may be dialled.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use iroh::{EndpointAddr, PublicKey, TransportAddr};

use crate::socket::families::{IpFamilies, check_address};

/// The error that addresses were given, but none of them can be dialled from here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "none of its addresses can be dialled from here ({addresses}): this node hears {families}, and \
     link-local addresses are not used; give both nodes an address of one IP family, or see listen_address"
)]
pub(crate) struct OutOfReach {
    addresses: String,
    families: IpFamilies,
}

/// Where a node may be dialled: addresses, and relays of this node's own list. All of them are tried at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Whereabouts(BTreeSet<TransportAddr>);

impl Whereabouts {
    /// Adds addresses and relays.
    pub(crate) fn add(
        &mut self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        relays: impl IntoIterator<Item = iroh::RelayUrl>,
    ) {
        // An IPv4 address and its form in IPv6 count as one address.
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        self.0.extend(addresses.into_iter().map(canonical).map(TransportAddr::Ip));
        self.0.extend(relays.into_iter().map(TransportAddr::Relay));
    }

    /// Whether `ip` is among the addresses, with any port.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|place| matches!(place, TransportAddr::Ip(address) if address.ip() == ip))
    }

    /// Whether there is nowhere to dial.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the relays, and the addresses that a node with these IP families can dial. An empty set stays
    /// empty, and is no error.
    ///
    /// # Errors
    /// [`OutOfReach`] when addresses were given and nothing is left.
    pub(crate) fn within(mut self, families: IpFamilies) -> Result<Self, OutOfReach> {
        let (mut left_out, is_link_local) = (Vec::new(), |ip| check_address(ip).is_err());
        self.0.retain(|place| match place {
            TransportAddr::Ip(address) if !families.hear(address.ip()) || is_link_local(address.ip()) => {
                left_out.push(address.to_string());
                false
            }
            _ => true,
        });
        if self.0.is_empty() && !left_out.is_empty() {
            return Err(OutOfReach { addresses: left_out.join(", "), families });
        }
        Ok(self)
    }

    /// These addresses and relays in iroh's type, for the node with this key.
    pub(crate) fn of(self, key: PublicKey) -> EndpointAddr {
        EndpointAddr::from_parts(key, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(texts: &[&str]) -> Whereabouts {
        let mut places = Whereabouts::default();
        places.add(texts.iter().map(|text| text.parse().expect("an address")), []);
        places
    }

    #[test]
    fn only_addresses_of_the_nodes_families_are_dialled_and_none_left_is_an_error() {
        let heard = |text: &str| IpFamilies::heard_at(text.parse().expect("an address"));
        let mixed = places(&["192.0.2.1:1", "[2001:db8::1]:1", "[fe80::1%2]:1", "[fe80::1]:1"]);
        assert_eq!(mixed.clone().within(heard("::")), Ok(places(&["192.0.2.1:1", "[2001:db8::1]:1"])));
        assert_eq!(mixed.clone().within(heard("192.0.2.9")), Ok(places(&["192.0.2.1:1"])));
        assert_eq!(mixed.within(heard("2001:db8::9")), Ok(places(&["[2001:db8::1]:1"])));
        let why = places(&["[2001:db8::1]:1"]).within(heard("192.0.2.9")).expect_err("none").to_string();
        assert!(why.contains("[2001:db8::1]:1") && why.contains("hears IPv4 only"), "{why}");
        assert!(places(&["[fe80::1]:1"]).within(heard("::")).is_err());
        assert_eq!(Whereabouts::default().within(heard("::")), Ok(Whereabouts::default()));
    }

    #[test]
    fn two_forms_of_one_address_count_as_one() {
        assert_eq!(places(&["[::ffff:192.0.2.1]:1", "192.0.2.1:1"]), places(&["192.0.2.1:1"]));
    }
}
