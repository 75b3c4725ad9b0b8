//! How many inbound connections may be half open, which means that they have not said hello yet: in all, and
//! from one source.
//!
//! Only a validated address counts for its source. Anybody can write another address into a packet, and could
//! otherwise use up the places of a member. All strangers that come through relays count as one source,
//! because whoever may use a relay can make as many endpoint ids as it likes.
//!
//! Members have places of their own, so that strangers keep none of them out: a connection from an address
//! that the list of peers gives, or through a relay with a key of the list, needs no place of the strangers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blixard_model::EndpointId;

use crate::limits::{
    HALF_OPEN_MAX, HALF_OPEN_MEMBERS_MAX, HALF_OPEN_PER_MEMBER_MAX, HALF_OPEN_PER_SOURCE_MAX,
    HALF_OPEN_TRUSTING,
};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConnectionSource {
    /// Directly from an IP address.
    Address(IpAddr),
    /// Through a relay, to which the other side proved this key.
    Relay(EndpointId),
    /// In a way that this version does not know.
    Unknown,
}

/// What to do with a new connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Go on with the connection, and hold the place until it said hello or ended.
    Admitted(HalfOpenPlace),
    /// Make the source prove that it receives what is sent to its address (QUIC's Retry), then decide again.
    Validate,
    /// Refuse the connection: too many are half open in all.
    Crowded,
    /// Refuse the connection: too many from this source are half open.
    CrowdedSource,
}

/// The half-open connections of this node.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    members: HalfOpenPool<ConnectionSource>,
    /// By address or network; `None` stands for all connections without an address of their own.
    strangers: HalfOpenPool<Option<IpAddr>>,
}

/// The places of a pool that are taken. A source has an entry while it holds at least one place.
#[derive(Debug)]
struct HalfOpenPool<S> {
    total: usize,
    by_source: BTreeMap<S, usize>,
}

impl<S> Default for HalfOpenPool<S> {
    fn default() -> Self {
        Self { total: 0, by_source: BTreeMap::new() }
    }
}

impl<S: Ord> HalfOpenPool<S> {
    /// Takes a place, unless the source already holds `most` of them. Returns whether a place was taken.
    fn take(&mut self, source: S, most: usize) -> bool {
        let held = self.by_source.entry(source).or_default();
        let free = *held < most;
        if free {
            *held += 1;
            self.total += 1;
        }
        free
    }

    fn give_back(&mut self, source: &S) {
        self.total = self.total.saturating_sub(1);
        if let Some(held) = self.by_source.get_mut(source) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_source.remove(source);
            }
        }
    }
}

/// Whom a place is counted for.
#[derive(Debug)]
enum CountedFor {
    Member(ConnectionSource),
    Stranger(Option<IpAddr>),
    /// The address is not validated: the place counts in the total only.
    Nobody,
}

/// The place of one half-open connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct HalfOpenPlace {
    places: Arc<HalfOpen>,
    counted_for: CountedFor,
}

impl HalfOpen {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of half-open connections at this moment.
    pub(crate) fn count(&self) -> usize {
        let places = self.lock();
        places.members.total + places.strangers.total
    }

    /// Decides about a connection from `source`. `validated` says that the source proved that it receives at
    /// its address, `is_member` that the list of peers holds this address or key.
    pub(crate) fn admit(
        self: &Arc<Self>,
        source: ConnectionSource,
        validated: bool,
        is_member: bool,
    ) -> Admission {
        let mut places = self.lock();
        let counted_for = match places.choose(source, validated, is_member) {
            Ok(counted_for) => counted_for,
            Err(refusal) => return refusal,
        };
        drop(places);
        Admission::Admitted(HalfOpenPlace { places: Arc::clone(self), counted_for })
    }
}

impl Places {
    /// Takes a place for a connection.
    fn choose(
        &mut self,
        source: ConnectionSource,
        validated: bool,
        is_member: bool,
    ) -> Result<CountedFor, Admission> {
        let proved = validated || matches!(source, ConnectionSource::Relay(_));
        if is_member
            && proved
            && self.members.total < HALF_OPEN_MEMBERS_MAX
            && self.members.take(source, HALF_OPEN_PER_MEMBER_MAX)
        {
            return Ok(CountedFor::Member(source));
        }
        let strangers = &mut self.strangers;
        // Anybody can write a member's address into a packet, so it has to be proved first; but it gets the
        // chance to be proved even when all places of strangers are taken.
        let crowded = strangers.total >= HALF_OPEN_MAX;
        if !validated && strangers.total >= HALF_OPEN_TRUSTING && (is_member || !crowded) {
            return Err(Admission::Validate);
        }
        if crowded {
            return Err(Admission::Crowded);
        }
        let source = match source {
            ConnectionSource::Address(address) => validated.then(|| Some(network(address))),
            ConnectionSource::Relay(_) | ConnectionSource::Unknown => Some(None),
        };
        match source {
            Some(source) if strangers.take(source, HALF_OPEN_PER_SOURCE_MAX) => {
                Ok(CountedFor::Stranger(source))
            }
            Some(_) => Err(Admission::CrowdedSource),
            None => {
                strangers.total += 1;
                Ok(CountedFor::Nobody)
            }
        }
    }
}

impl Drop for HalfOpenPlace {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        match &self.counted_for {
            CountedFor::Member(source) => places.members.give_back(source),
            CountedFor::Stranger(source) => places.strangers.give_back(source),
            CountedFor::Nobody => places.strangers.total = places.strangers.total.saturating_sub(1),
        }
    }
}

/// The addresses that one source can choose from: a single IPv4 address, or an IPv6 network of 64 bits.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> ConnectionSource {
        ConnectionSource::Address(text.parse().expect("address"))
    }

    fn through_relay(id: u8) -> ConnectionSource {
        ConnectionSource::Relay(EndpointId::from_bytes([id; 32]))
    }

    /// Takes as many places as there are, up to `most`.
    fn take(places: &Arc<HalfOpen>, source: &str, validated: bool, most: usize) -> Vec<HalfOpenPlace> {
        let admit = |_| match places.admit(at(source), validated, false) {
            Admission::Admitted(place) => Some(place),
            _ => None,
        };
        (0..most).map_while(admit).collect()
    }

    #[test]
    fn one_source_leaves_room_for_others_and_gives_its_places_back() {
        let places = Arc::new(HalfOpen::default());
        let held = take(&places, "192.0.2.1", true, 1000);
        assert_eq!(held.len(), HALF_OPEN_PER_SOURCE_MAX);
        assert!(matches!(places.admit(at("192.0.2.1"), true, false), Admission::CrowdedSource));
        assert_eq!(take(&places, "192.0.2.2", true, 1).len(), 1);
        drop(held);
        assert_eq!(take(&places, "192.0.2.1", true, 1).len(), 1);
        assert_eq!(places.count(), 0);
        assert!(places.lock().strangers.by_source.is_empty());
    }

    #[test]
    fn connections_from_unvalidated_addresses_are_capped_and_count_for_no_source() {
        let places = Arc::new(HalfOpen::default());
        let held = take(&places, "192.0.2.1", false, 1000);
        assert_eq!(held.len(), HALF_OPEN_TRUSTING);
        assert!(matches!(places.admit(at("192.0.2.1"), false, false), Admission::Validate));
        assert_eq!(take(&places, "192.0.2.1", true, 1000).len(), HALF_OPEN_PER_SOURCE_MAX);
    }

    #[test]
    fn all_sources_together_are_bounded() {
        let places = Arc::new(HalfOpen::default());
        let held: Vec<HalfOpenPlace> =
            (0..200u8).flat_map(|n| take(&places, &format!("192.0.2.{n}"), true, 1)).collect();
        assert_eq!(held.len(), HALF_OPEN_MAX);
        assert!(matches!(places.admit(at("198.51.100.1"), true, false), Admission::Crowded));
    }

    #[test]
    fn all_strangers_that_come_through_relays_count_as_one_source() {
        let places = Arc::new(HalfOpen::default());
        let relayed = |n| match places.admit(through_relay(n), true, false) {
            Admission::Admitted(place) => Some(place),
            _ => None,
        };
        let held: Vec<HalfOpenPlace> = (0..=255).map_while(relayed).collect();
        assert_eq!(held.len(), HALF_OPEN_PER_SOURCE_MAX);
        assert!(matches!(places.admit(through_relay(0), true, false), Admission::CrowdedSource));
        assert_eq!(take(&places, "192.0.2.1", true, 1).len(), 1, "there is room for the others");
        drop(held);
        assert!(places.lock().strangers.by_source.is_empty());
    }

    #[test]
    fn strangers_cannot_keep_a_member_out() {
        let places = Arc::new(HalfOpen::default());
        // A few addresses take all places of strangers.
        let sources = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
        let held: Vec<HalfOpenPlace> =
            sources.iter().flat_map(|source| take(&places, source, true, 1000)).collect();
        assert_eq!(held.len(), HALF_OPEN_MAX);
        assert!(matches!(places.admit(at("198.51.100.1"), false, false), Admission::Crowded));
        // A member's address has to be proved first, and then has a place.
        let member = at("198.51.100.1");
        assert!(matches!(places.admit(member, false, true), Admission::Validate));
        let admitted = |source| match places.admit(source, true, true) {
            Admission::Admitted(place) => Some(place),
            _ => None,
        };
        // Whoever shares that address gets no more than the member's share.
        let own: Vec<HalfOpenPlace> = (0..100).map_while(|_| admitted(member)).collect();
        assert_eq!(own.len(), HALF_OPEN_PER_MEMBER_MAX);
        assert!(admitted(at("198.51.100.2")).is_some());
        assert!(admitted(through_relay(1)).is_some(), "by its key, where it has no address");
        assert_eq!(places.count(), HALF_OPEN_MAX + HALF_OPEN_PER_MEMBER_MAX);
        drop((held, own));
        assert_eq!(places.count(), 0);
        let places = places.lock();
        assert!(places.members.by_source.is_empty() && places.strangers.by_source.is_empty());
    }

    #[test]
    fn a_member_over_its_share_gets_places_of_strangers() {
        let places = Arc::new(HalfOpen::default());
        let admitted = |_| match places.admit(at("198.51.100.1"), true, true) {
            Admission::Admitted(place) => Some(place),
            _ => None,
        };
        let held: Vec<HalfOpenPlace> = (0..1000).map_while(admitted).collect();
        assert_eq!(held.len(), HALF_OPEN_PER_MEMBER_MAX + HALF_OPEN_PER_SOURCE_MAX);
        let members: Vec<HalfOpenPlace> = (0..=255)
            .map_while(|n| match places.admit(through_relay(n), true, true) {
                Admission::Admitted(place) => Some(place),
                _ => None,
            })
            .collect();
        assert!(members.len() >= HALF_OPEN_MEMBERS_MAX - HALF_OPEN_PER_MEMBER_MAX, "{}", members.len());
        assert!(members.len() < 255, "they are bounded as well");
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let places = Arc::new(HalfOpen::default());
        let held: Vec<HalfOpenPlace> =
            (0..200).flat_map(|n| take(&places, &format!("2001:db8::{n:x}"), true, 1)).collect();
        assert_eq!(held.len(), HALF_OPEN_PER_SOURCE_MAX);
        assert_eq!(take(&places, "2001:db8:0:1::1", true, 1).len(), 1);
        assert_eq!(take(&places, "::ffff:192.0.2.1", true, 1).len(), 1);
    }
}
