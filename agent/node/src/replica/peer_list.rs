//! Whom this node keeps a link with: the members by its own log and, while that is behind, those that others
//! told of.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use blixard_core::ClusterState;
use blixard_core::formation::contacts;
use blixard_core::state::{Availability, MemberRef, NodeRecord, NodeTable};
use blixard_model::member::MEMBERS_MAX;
use blixard_model::{Contact, EndpointId, RaftId, RelayUrl, mutant};

/// The members as another node told of them.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// How much of the log that one had applied.
    pub applied: u64,
    /// Who and where they are.
    pub members: Vec<Contact>,
}

/// The list of peers, and how often it changed.
#[derive(Debug)]
pub(super) struct PeerList {
    /// Names nobody any more once the log here holds as much.
    told: Told,
    /// Grows when members come, go or move, or are told of otherwise.
    version: u64,
    /// The members by the log here, where they are and through which relay, as `version` counts them.
    members: Vec<(RaftId, Vec<SocketAddr>, Option<RelayUrl>)>,
}

impl PeerList {
    /// Of a node that was told this and has seen nothing of the log.
    pub(super) fn new(told: Told) -> Self {
        Self { told, version: 0, members: Vec::new() }
    }

    /// Grows with each change: whoever keeps links looks at the list again.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Another node told who the members are. That counts if it had applied more of the log than this node,
    /// and than whoever told of them before: whoever leads may be somebody of whom only the others know.
    pub(super) fn note_told(&mut self, applied: u64, members: &[Contact], applied_here: u64) {
        let newer = applied > self.told.applied.max(applied_here);
        if newer && !members.is_empty() && members.len() <= MEMBERS_MAX {
            self.told = Told { applied, members: members.to_vec() };
            self.version += 1;
        }
    }

    /// The members by the log here, as far as it is applied. True: they came, went or moved, or what others
    /// told of them is not needed any more.
    pub(super) fn note_members(&mut self, nodes: &NodeTable, applied: u64) -> bool {
        let caught_up = !self.told.members.is_empty() && applied >= self.told.applied;
        if caught_up {
            self.told.members.clear();
        }
        let is = |member: MemberRef<'_>, (known, addresses, relay): &(_, _, _)| {
            let offer = member.node.offer;
            member.raft_id == *known && offer.addresses == *addresses && offer.relay_url == *relay
        };
        let same = nodes.member_count() == self.members.len()
            && nodes.members().zip(&self.members).all(|(now, was)| is(now, was));
        if same && !caught_up {
            return false;
        }
        let peer = |member: MemberRef<'_>| {
            let offer = member.node.offer;
            (member.raft_id, offer.addresses.clone(), offer.relay_url.clone())
        };
        self.members = nodes.members().map(peer).collect();
        self.version += 1;
        true
    }

    /// Whom to keep a link with, and where.
    pub(super) fn contacts(&self, state: &ClusterState) -> Vec<Contact> {
        let mut peers = contacts(state);
        peers.extend(self.told.members.iter().cloned());
        peers
    }

    /// Whether it is one of [`PeerList::contacts`].
    pub(super) fn holds(&self, state: &ClusterState, endpoint_id: EndpointId) -> bool {
        state.member_by_endpoint(endpoint_id).is_some() || self.is_told(endpoint_id)
    }

    /// The nodes that an operator removed, each with the raft id that it had. A node that has joined again,
    /// as peers say whose log is ahead of this one, is not among them: it may be the leader.
    pub(super) fn kept_out(&self, state: &ClusterState) -> BTreeMap<EndpointId, RaftId> {
        let is_back = |id: &EndpointId| self.is_told(*id) && !mutant::lives("removed-for-ever");
        let removed = |node: &NodeRecord| node.availability == Availability::Removed;
        let removed = state.nodes.departed().filter(|(id, node)| removed(node) && !is_back(id));
        removed.map(|(id, node)| (id, node.raft_id)).collect()
    }

    fn is_told(&self, endpoint_id: EndpointId) -> bool {
        self.told.members.iter().any(|contact| contact.endpoint_id == endpoint_id)
    }
}

#[cfg(test)]
mod tests {
    use blixard_model::{Member, NodeFacts, Offer, Role, StoreId};

    use super::*;

    fn contact(n: u8) -> Contact {
        Contact { endpoint_id: EndpointId::from_bytes([n; 32]), addresses: Vec::new(), relay_url: None }
    }

    fn members(of: &[(u8, &str)]) -> NodeTable {
        let mut nodes = NodeTable::default();
        let member = |(n, address): &(u8, &str)| {
            let addresses = vec![address.parse().expect("an address")];
            let node = NodeFacts {
                name: format!("n{n}").parse().expect("a name"),
                endpoint_id: EndpointId::from_bytes([*n; 32]),
                store_id: StoreId::from_bytes([*n; 16]),
                offer: Offer { addresses, ..Offer::default() },
            };
            Member { raft_id: RaftId(u64::from(*n)), node, role: Role::Voter }
        };
        of.iter().map(member).for_each(|member| nodes.admit(member));
        nodes
    }

    #[test]
    fn it_changes_when_members_come_go_or_move_and_not_else() {
        let mut peers = PeerList::new(Told::default());
        let one = members(&[(1, "10.0.0.1:1")]);
        assert!(peers.note_members(&one, 1) && !peers.note_members(&one, 2));
        assert!(peers.note_members(&members(&[(1, "10.0.0.2:1")]), 3));
        assert!(peers.note_members(&members(&[(1, "10.0.0.2:1"), (2, "10.0.0.3:1")]), 4));
        assert!(peers.note_members(&one, 5));
        assert_eq!(peers.version(), 4);
    }

    #[test]
    fn who_knows_more_of_the_log_says_who_is_a_peer_until_it_is_here() {
        let mut peers = PeerList::new(Told { applied: 1, members: vec![contact(1)] });
        peers.note_told(1, &[contact(2)], 0);
        peers.note_told(9, &[], 0);
        peers.note_told(9, &[contact(2)], 9);
        assert_eq!((peers.version(), peers.is_told(contact(1).endpoint_id)), (0, true));
        peers.note_told(9, &[contact(2)], 8);
        assert_eq!((peers.version(), peers.is_told(contact(1).endpoint_id)), (1, false));
        assert!(!peers.note_members(&NodeTable::default(), 8) && peers.is_told(contact(2).endpoint_id));
        assert!(peers.note_members(&NodeTable::default(), 9), "the list is another one without them");
        assert_eq!((peers.version(), peers.is_told(contact(2).endpoint_id)), (2, false));
    }
}
