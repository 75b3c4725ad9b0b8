//! Keys with which two agents run at the same time, as when the data directory of a node that still runs was
//! copied to another machine.
//!
//! The network keeps the link with the one that was there first, and says what it sees. Here it is put
//! together with what other members see, and it is decided whether this host is the later one of two. That
//! one stands aside: it keeps no links until no member refuses it any more, and starts no VM as long as it
//! runs. A first one that is only cut off for a moment still runs its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use blixard_model::EndpointId;
use blixard_model::wire::KeyHeldTwice;

use crate::host::input::HolderRefusal;

/// What is known of such keys.
#[derive(Debug)]
pub(super) struct HeldTwice {
    me: EndpointId,
    /// By this host's own links.
    seen: Vec<KeyHeldTwice>,
    /// Of this host's own key.
    refusals: Vec<HolderRefusal>,
    /// By the links of others, as they told when they were asked who they are.
    told: BTreeMap<EndpointId, Vec<KeyHeldTwice>>,
    linked_since_ms: BTreeMap<EndpointId, u64>,
    is_later: bool,
}

impl HeldTwice {
    pub(super) fn new(me: EndpointId, linked: &BTreeSet<EndpointId>, now_ms: u64) -> Self {
        Self {
            me,
            seen: Vec::new(),
            refusals: Vec::new(),
            told: BTreeMap::new(),
            linked_since_ms: linked.iter().map(|peer| (*peer, now_ms)).collect(),
            is_later: false,
        }
    }

    /// Which peers have a link now.
    pub(super) fn note_links(&mut self, now_ms: u64, up: &BTreeSet<EndpointId>) {
        self.linked_since_ms.retain(|peer, _| up.contains(peer));
        self.told.retain(|peer, _| up.contains(peer));
        for peer in up {
            self.linked_since_ms.entry(*peer).or_insert(now_ms);
        }
    }

    /// What the network sees now.
    pub(super) fn note(&mut self, now_ms: u64, seen: Vec<KeyHeldTwice>, refusals: Vec<HolderRefusal>) {
        self.seen = KeyHeldTwice::bounded(seen);
        self.refusals = refusals;
        // Of two agents that some members know each, the one that any member has known longest is the first.
        let oldest = self.linked_since_ms.values().min();
        let own_ms = oldest.map_or(0, |since| now_ms.saturating_sub(*since));
        let is_later = self.refusals.iter().any(|refusal| refusal.for_ms > own_ms);
        // Whoever stands aside has no links to compare any more.
        self.is_later = is_later || self.is_later && !self.refusals.is_empty();
    }

    /// What another member sees.
    pub(super) fn note_told(&mut self, by: EndpointId, held: Vec<KeyHeldTwice>) {
        if held.is_empty() {
            self.told.remove(&by);
        } else if self.linked_since_ms.contains_key(&by) {
            self.told.insert(by, KeyHeldTwice::bounded(held));
        }
    }

    /// Whether this host runs with a key that another agent had first.
    pub(super) fn is_later(&self) -> bool {
        self.is_later
    }

    /// What this host sees by its own links.
    pub(super) fn seen(&self) -> &[KeyHeldTwice] {
        &self.seen
    }

    /// All of them, with those that a leader told.
    pub(super) fn all(&self, by_leader: &[KeyHeldTwice]) -> Vec<KeyHeldTwice> {
        let own = self.refusals.iter().map(|refusal| (self.me, &refusal.addresses));
        let told = self.seen.iter().chain(self.told.values().flatten()).chain(by_leader);
        let mut all: BTreeMap<EndpointId, Vec<SocketAddr>> = BTreeMap::new();
        for (endpoint_id, addresses) in own.chain(told.map(|held| (held.endpoint_id, &held.addresses))) {
            let known = all.entry(endpoint_id).or_default();
            for address in addresses {
                if !known.contains(address) {
                    known.push(*address);
                }
            }
        }
        let held = |(endpoint_id, addresses)| KeyHeldTwice { endpoint_id, addresses };
        KeyHeldTwice::bounded(all.into_iter().map(held).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 32])
    }

    fn at(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 77, 0, n], 7431))
    }

    fn refused(by: u8, for_ms: u64) -> HolderRefusal {
        HolderRefusal { peer: id(by), addresses: vec![at(1), at(9)], for_ms }
    }

    #[test]
    fn the_agent_that_no_member_has_known_for_longer_is_the_later_one() {
        let mut first = HeldTwice::new(id(1), &[id(2), id(3)].into(), 0);
        let mut copy = HeldTwice::new(id(1), &BTreeSet::new(), 60_000);
        copy.note(61_000, Vec::new(), vec![refused(2, 61_000), refused(3, 61_000)]);
        assert!(copy.is_later());
        // A member that was started anew has met the copy first.
        first.note_links(61_500, &[id(3)].into());
        copy.note_links(61_000, &[id(2)].into());
        first.note(62_000, Vec::new(), vec![refused(2, 1_000)]);
        copy.note(62_000, Vec::new(), vec![refused(3, 62_000)]);
        assert!(!first.is_later() && copy.is_later());
        copy.note_links(63_000, &BTreeSet::new());
        copy.note(63_000, Vec::new(), vec![refused(3, 10)]);
        assert!(copy.is_later(), "whatever links there are meanwhile");
        copy.note(64_000, Vec::new(), Vec::new());
        assert!(!copy.is_later(), "the other one is gone");
    }

    #[test]
    fn what_every_member_sees_is_put_together_and_forgotten_with_its_link() {
        let held = |n: u8, addresses: &[u8]| KeyHeldTwice {
            endpoint_id: id(n),
            addresses: addresses.iter().map(|n| at(*n)).collect(),
        };
        let mut known = HeldTwice::new(id(1), &[id(2), id(3)].into(), 0);
        known.note(5, vec![held(2, &[2, 9])], Vec::new());
        known.note_told(id(3), vec![held(2, &[2, 8]), held(1, &[1, 7])]);
        known.note_told(id(4), vec![held(3, &[3, 6])]);
        let all = known.all(&[held(3, &[3, 5])]);
        assert_eq!(all, [held(1, &[1, 7]), held(2, &[2, 9, 8]), held(3, &[3, 5])]);
        known.note_links(6, &[id(2)].into());
        assert_eq!(known.all(&[]), [held(2, &[2, 9])]);
        known.note(7, Vec::new(), vec![refused(2, 1)]);
        assert_eq!(known.all(&[]), [held(1, &[1, 9])], "its own key");
    }
}
