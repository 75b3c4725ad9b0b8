//! What peers said of themselves, for as long as it counts.

use std::collections::BTreeMap;

use blixard_core::planner::membership::Claim;
use blixard_model::EndpointId;
use blixard_model::formation::Identity;

/// What a peer said of itself counts for this long.
const IDENTITY_TICKS: u64 = 60;
/// Most endpoints whose words are kept.
const CLAIMS_MAX: usize = 512;

/// The last word of each peer.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<EndpointId, Heard>);

/// What an endpoint said of itself, and when.
#[derive(Debug)]
struct Heard {
    identity: Identity,
    at_tick: u64,
    /// The version of the membership that this node knew when it last asked and was told this store.
    asked: Option<u64>,
}

impl Claims {
    /// A word that came at this tick; as the answer to a question, which version of the membership this node
    /// knew when it asked. A later word about the same store takes nothing of that back.
    pub(super) fn note(&mut self, identity: Identity, asked: Option<u64>, tick: u64) {
        let endpoint_id = identity.node.endpoint_id;
        if self.0.len() >= CLAIMS_MAX && !self.0.contains_key(&endpoint_id) {
            return;
        }
        let known = self.0.get(&endpoint_id);
        let same = known.filter(|known| known.identity.node.store_id == identity.node.store_id);
        let asked = asked.max(same.and_then(|known| known.asked));
        self.0.insert(endpoint_id, Heard { identity, at_tick: tick, asked });
    }

    pub(super) fn forget_old(&mut self, tick: u64) {
        self.0.retain(|_, heard| tick.saturating_sub(heard.at_tick) < IDENTITY_TICKS);
    }

    /// What this peer said last.
    pub(super) fn of(&self, endpoint_id: EndpointId) -> Option<&Identity> {
        self.0.get(&endpoint_id).map(|heard| &heard.identity)
    }

    /// What each peer said last.
    pub(super) fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.0.values().map(|heard| &heard.identity)
    }

    /// The claims as the plans look at them, while the membership has this version.
    pub(super) fn view(&self, membership_version: u64) -> BTreeMap<EndpointId, Claim<'_>> {
        let claims = self.0.iter().map(|(id, heard)| {
            let settled = heard.asked == Some(membership_version);
            (*id, Claim { identity: &heard.identity, settled })
        });
        claims.collect()
    }
}

#[cfg(test)]
mod tests {
    use blixard_model::formation::Phase;
    use blixard_model::{ClusterVersion, NodeFacts, Offer, StoreId};

    use super::*;

    fn identity(n: u16, store: u8) -> Identity {
        let mut endpoint = [0; 32];
        endpoint[..2].copy_from_slice(&n.to_be_bytes());
        let node = NodeFacts {
            name: "n1".parse().expect("a name"),
            endpoint_id: EndpointId::from_bytes(endpoint),
            store_id: StoreId::from_bytes([store; 16]),
            offer: Offer::default(),
        };
        Identity { node, supports: ClusterVersion::FIRST, phase: Phase::Empty { promise: None } }
    }

    fn is_settled(claims: &Claims, membership_version: u64) -> bool {
        claims.view(membership_version).values().all(|claim| claim.settled)
    }

    #[test]
    fn an_answer_stands_until_another_store_speaks_or_the_members_change() {
        let mut claims = Claims::default();
        claims.note(identity(1, 1), None, 1);
        assert!(!is_settled(&claims, 4), "it may be a late word");
        claims.note(identity(1, 1), Some(4), 2);
        claims.note(identity(1, 1), None, 3);
        assert!(is_settled(&claims, 4) && !is_settled(&claims, 5));
        claims.note(identity(1, 2), None, 4);
        assert!(!is_settled(&claims, 4));
    }

    #[test]
    fn a_word_counts_for_a_while_and_so_many_are_kept() {
        let mut claims = Claims::default();
        (0..600).for_each(|n| claims.note(identity(n, 1), None, 1));
        assert_eq!(claims.identities().count(), CLAIMS_MAX);
        claims.note(identity(0, 2), None, 2);
        let first = claims.of(identity(0, 1).node.endpoint_id).expect("kept");
        assert_eq!(first.node.store_id, StoreId::from_bytes([2; 16]), "who is known is heard on");
        claims.forget_old(IDENTITY_TICKS);
        assert_eq!(claims.identities().count(), CLAIMS_MAX);
        claims.forget_old(1 + IDENTITY_TICKS);
        assert_eq!(claims.identities().count(), 1);
    }
}
