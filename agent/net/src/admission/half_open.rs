//! How many inbound connections may be on their way to a hello: in all, and from one source.
//!
//! Only an address that was validated counts for its source: others can be written into a packet by anybody,
//! who could otherwise use up what belongs to a member. All that come through relays are one source: whoever
//! may use the relay makes as many endpoint ids as it likes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{HALF_OPEN_MAX, HALF_OPEN_PER_SOURCE_MAX, HALF_OPEN_TRUSTING};

/// What to do with a new connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Go on with it, and hold the place until it said hello or ended.
    Admitted(HalfOpenPlace),
    /// Let the source prove that it receives what is sent to its address, then ask again.
    Validate,
    /// Too many in all.
    Crowded,
    /// Too many from this source.
    CrowdedSource,
}

/// The connections that have not said hello yet.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen(Mutex<Places>);

/// The places that are taken. A source is in the map while it holds any.
#[derive(Debug, Default)]
struct Places {
    total: usize,
    /// `None` are those without an address of their own, which come through relays.
    by_source: BTreeMap<Option<IpAddr>, usize>,
}

/// The place of one of them; given back when dropped.
#[derive(Debug)]
pub(crate) struct HalfOpenPlace {
    places: Arc<HalfOpen>,
    /// For whom it counts, if for anybody.
    source: Option<Option<IpAddr>>,
}

impl HalfOpen {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are at this moment.
    pub(crate) fn count(&self) -> usize {
        self.lock().total
    }

    /// Decides about a connection from `source`, an address that it proved to be its own when `validated`.
    /// What has none comes through a relay, which let it prove its key.
    pub(crate) fn admit(self: &Arc<Self>, source: Option<IpAddr>, validated: bool) -> Admission {
        let mut places = self.lock();
        if places.total >= HALF_OPEN_MAX {
            return Admission::Crowded;
        }
        if !validated && places.total >= HALF_OPEN_TRUSTING {
            return Admission::Validate;
        }
        let source = match source {
            Some(address) => validated.then(|| Some(network(address))),
            None => Some(None),
        };
        if let Some(source) = source {
            let held = places.by_source.entry(source).or_default();
            if *held >= HALF_OPEN_PER_SOURCE_MAX {
                return Admission::CrowdedSource;
            }
            *held += 1;
        }
        places.total += 1;
        drop(places);
        Admission::Admitted(HalfOpenPlace { places: Arc::clone(self), source })
    }
}

impl Drop for HalfOpenPlace {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        places.total = places.total.saturating_sub(1);
        let Some(source) = self.source else { return };
        if let Some(held) = places.by_source.get_mut(&source) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                places.by_source.remove(&source);
            }
        }
    }
}

/// What one source can choose its addresses from: a single IPv4 address, or the 64 bits of an IPv6 network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("address"))
    }

    /// Takes as many places as there are, up to `most`.
    fn take(places: &Arc<HalfOpen>, source: &str, validated: bool, most: usize) -> Vec<HalfOpenPlace> {
        let admit = |_| match places.admit(ip(source), validated) {
            Admission::Admitted(place) => Some(place),
            _ => None,
        };
        (0..most).map_while(admit).collect()
    }

    #[test]
    fn one_source_leaves_room_for_others_and_gets_its_own_back() {
        let places = Arc::new(HalfOpen::default());
        let held = take(&places, "192.0.2.1", true, 1000);
        assert_eq!(held.len(), HALF_OPEN_PER_SOURCE_MAX);
        assert!(matches!(places.admit(ip("192.0.2.1"), true), Admission::CrowdedSource));
        assert_eq!(take(&places, "192.0.2.2", true, 1).len(), 1);
        drop(held);
        assert_eq!(take(&places, "192.0.2.1", true, 1).len(), 1);
        assert_eq!(places.count(), 0);
        assert!(places.lock().by_source.is_empty());
    }

    #[test]
    fn addresses_that_anybody_can_write_are_few_and_count_for_nobody() {
        let places = Arc::new(HalfOpen::default());
        let held = take(&places, "192.0.2.1", false, 1000);
        assert_eq!(held.len(), HALF_OPEN_TRUSTING);
        assert!(matches!(places.admit(ip("192.0.2.1"), false), Admission::Validate));
        assert_eq!(take(&places, "192.0.2.1", true, 1000).len(), HALF_OPEN_PER_SOURCE_MAX);
    }

    #[test]
    fn all_sources_together_are_bounded() {
        let places = Arc::new(HalfOpen::default());
        let held: Vec<HalfOpenPlace> =
            (0..200u8).flat_map(|n| take(&places, &format!("192.0.2.{n}"), true, 1)).collect();
        assert_eq!(held.len(), HALF_OPEN_MAX);
        assert!(matches!(places.admit(ip("198.51.100.1"), true), Admission::Crowded));
    }

    #[test]
    fn whoever_comes_through_relays_is_one_source() {
        let places = Arc::new(HalfOpen::default());
        let relayed = |_| match places.admit(None, true) {
            Admission::Admitted(place) => Some(place),
            _ => None,
        };
        let held: Vec<HalfOpenPlace> = (0..1000).map_while(relayed).collect();
        assert_eq!(held.len(), HALF_OPEN_PER_SOURCE_MAX);
        assert!(matches!(places.admit(None, true), Admission::CrowdedSource));
        assert_eq!(take(&places, "192.0.2.1", true, 1).len(), 1, "there is room for the others");
        drop(held);
        assert!(places.lock().by_source.is_empty());
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
