//! The nodes that are in the cluster or were, and the places that members have in Raft's configuration.
//!
//! A node is known by its key for as long as anything is to be said of it: it stays in the table when it is
//! removed or given up. A place is one store of a node in Raft's configuration, and its raft id is never
//! given again. Every place belongs to a node that is a [`Availability::Member`], and every such node has
//! exactly one.

use std::collections::BTreeMap;

use blixard_model::removal::{REMOVED_MAX, RemovedNode};
use blixard_model::{EndpointId, Member, NodeFacts, NodeName, Offer, RaftId, Role, StoreId};

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct NodeTable {
    nodes: BTreeMap<EndpointId, NodeRecord>,
    places: BTreeMap<RaftId, RaftPlace>,
}

/// A node as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Its raft id, or the one that it had last.
    pub raft_id: RaftId,
    /// Where it is reached and what it gives to VMs; empty once it is no member.
    pub offer: Offer,
    /// Whether it takes part.
    pub availability: Availability,
}

/// Whether a node takes part in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Availability {
    /// It is a member.
    Member,
    /// An operator removed it: nobody lets it in, listed or not, unless it has a ticket.
    Removed,
    /// It was given up with its whole cluster, by a recovery or a restore: when it is listed it is admitted
    /// again, with an empty store.
    GivenUp,
}

/// A store of a node in Raft's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RaftPlace {
    endpoint_id: EndpointId,
    store_id: StoreId,
    role: Role,
}

/// A member: its place in Raft's configuration, and its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberRef<'a> {
    /// Raft's name for this node and store.
    pub raft_id: RaftId,
    /// Who it is, and what it offers.
    pub node: NodeRef<'a>,
    /// Its part in the quorum: always what Raft's configuration says.
    pub role: Role,
}

/// The node of a member; see [`NodeFacts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRef<'a> {
    /// Its name.
    pub name: &'a NodeName,
    /// The identity that its handshakes prove.
    pub endpoint_id: EndpointId,
    /// The store that holds its vote and log.
    pub store_id: StoreId,
    /// Where it is reached and what it gives to VMs.
    pub offer: &'a Offer,
}

impl MemberRef<'_> {
    /// The same with facts of its own.
    pub fn to_member(self) -> Member {
        Member { raft_id: self.raft_id, node: self.node.to_facts(), role: self.role }
    }
}

impl NodeRef<'_> {
    /// The same as facts of their own.
    pub fn to_facts(self) -> NodeFacts {
        let Self { name, endpoint_id, store_id, offer } = self;
        NodeFacts { name: name.clone(), endpoint_id, store_id, offer: offer.clone() }
    }
}

impl NodeTable {
    /// The members, by raft id.
    pub fn members(&self) -> impl Iterator<Item = MemberRef<'_>> {
        self.places.iter().filter_map(|(raft_id, place)| self.member_at(*raft_id, place))
    }

    /// The member with this raft id.
    pub fn member(&self, raft_id: RaftId) -> Option<MemberRef<'_>> {
        self.member_at(raft_id, self.places.get(&raft_id)?)
    }

    fn member_at(&self, raft_id: RaftId, place: &RaftPlace) -> Option<MemberRef<'_>> {
        let RaftPlace { endpoint_id, store_id, role } = *place;
        let NodeRecord { name, offer, .. } = self.nodes.get(&endpoint_id)?;
        Some(MemberRef { raft_id, node: NodeRef { name, endpoint_id, store_id, offer }, role })
    }

    /// The member with this key.
    pub fn member_by_endpoint(&self, endpoint_id: EndpointId) -> Option<MemberRef<'_>> {
        let record = self.nodes.get(&endpoint_id)?;
        if record.availability == Availability::Member { self.member(record.raft_id) } else { None }
    }

    /// The member of this name.
    pub fn member_by_name(&self, name: &NodeName) -> Option<MemberRef<'_>> {
        self.members().find(|member| member.node.name == name)
    }

    /// Whether a member has this raft id.
    pub fn has_member(&self, raft_id: RaftId) -> bool {
        self.places.contains_key(&raft_id)
    }

    /// How many members there are.
    pub fn member_count(&self) -> usize {
        self.places.len()
    }

    /// The raft ids of the members, in their order.
    pub fn raft_ids(&self) -> impl Iterator<Item = RaftId> {
        self.places.keys().copied()
    }

    /// The node with this key, member or not.
    pub fn get(&self, endpoint_id: EndpointId) -> Option<&NodeRecord> {
        self.nodes.get(&endpoint_id)
    }

    /// The nodes that an operator removed or gave up, and that have not come back, by their keys.
    pub fn departed(&self) -> impl Iterator<Item = (EndpointId, &NodeRecord)> {
        let departed = |record: &NodeRecord| record.availability != Availability::Member;
        self.nodes.iter().filter(move |(_, record)| departed(record)).map(|(id, record)| (*id, record))
    }

    /// A node becomes a member, whatever it was before.
    pub fn admit(&mut self, member: Member) {
        let Member { raft_id, node: NodeFacts { name, endpoint_id, store_id, offer }, role } = member;
        self.places.insert(raft_id, RaftPlace { endpoint_id, store_id, role });
        let availability = Availability::Member;
        self.nodes.insert(endpoint_id, NodeRecord { name, raft_id, offer, availability });
    }

    /// A member votes, or votes no more. Nothing happens to a raft id that is no member's.
    pub fn set_role(&mut self, raft_id: RaftId, role: Role) {
        if let Some(place) = self.places.get_mut(&raft_id) {
            place.role = role;
        }
    }

    /// What a member offers from now on. False: it is none, or offered that before.
    pub fn set_offer(&mut self, endpoint_id: EndpointId, offer: &Offer) -> bool {
        let is_member = |record: &&mut NodeRecord| record.availability == Availability::Member;
        match self.nodes.get_mut(&endpoint_id).filter(is_member) {
            Some(record) if record.offer != *offer => {
                record.offer.clone_from(offer);
                true
            }
            Some(_) | None => false,
        }
    }

    /// A store is lost: its place is let go, and nothing is known of its node until it is admitted anew.
    pub fn let_go(&mut self, raft_id: RaftId) {
        if let Some(place) = self.places.remove(&raft_id) {
            self.nodes.remove(&place.endpoint_id);
        }
    }

    /// An operator removes a member. Its name, if it was one.
    pub fn remove(&mut self, raft_id: RaftId) -> Option<NodeName> {
        let name = self.depart(raft_id, Availability::Removed)?;
        self.forget_departed();
        Some(name)
    }

    /// All members but one, which goes without a trace, are given up with their cluster: they leave as if an
    /// operator had removed them, or nobody could ever say of a VM placed there that it is gone. Those that
    /// left.
    pub fn give_up_all_but(&mut self, founder: EndpointId) -> Vec<Member> {
        let members: Vec<Member> = self.members().map(MemberRef::to_member).collect();
        for member in &members {
            self.depart(member.raft_id, Availability::GivenUp);
        }
        self.nodes.remove(&founder);
        self.forget_departed();
        members.into_iter().filter(|member| member.node.endpoint_id != founder).collect()
    }

    fn depart(&mut self, raft_id: RaftId, availability: Availability) -> Option<NodeName> {
        let place = self.places.remove(&raft_id)?;
        let record = self.nodes.get_mut(&place.endpoint_id)?;
        record.availability = availability;
        record.raft_id = raft_id;
        record.offer = Offer::default();
        Some(record.name.clone())
    }

    /// Keeps the table bounded. Nodes that were given up stay longest: they are expected back.
    fn forget_departed(&mut self) {
        while self.departed().count() > REMOVED_MAX {
            let key = |record: &NodeRecord| (record.availability == Availability::GivenUp, record.raft_id);
            let first = self.departed().min_by_key(|(_, record)| key(record)).map(|(id, _)| id);
            let Some(first) = first else { break };
            self.nodes.remove(&first);
        }
    }

    /// The members as a snapshot has them.
    pub fn members_form(&self) -> BTreeMap<RaftId, Member> {
        self.members().map(|member| (member.raft_id, member.to_member())).collect()
    }

    /// The nodes that are no members as a snapshot has them.
    pub fn removed_form(&self) -> BTreeMap<EndpointId, RemovedNode> {
        let removed = |record: &NodeRecord| RemovedNode {
            name: record.name.clone(),
            raft_id: record.raft_id,
            given_up: record.availability == Availability::GivenUp,
        };
        self.departed().map(|(id, record)| (id, removed(record))).collect()
    }

    /// The table that a snapshot tells of.
    ///
    /// # Errors
    /// No table of ours comes to this.
    pub fn from_forms(
        members: BTreeMap<RaftId, Member>,
        removed: BTreeMap<EndpointId, RemovedNode>,
    ) -> Result<Self, DamagedNodes> {
        let mut table = Self::default();
        for (endpoint_id, RemovedNode { name, raft_id, given_up }) in removed {
            let availability = if given_up { Availability::GivenUp } else { Availability::Removed };
            let offer = Offer::default();
            table.nodes.insert(endpoint_id, NodeRecord { name, raft_id, offer, availability });
        }
        for (raft_id, member) in members {
            let endpoint_id = member.node.endpoint_id;
            if raft_id != member.raft_id {
                return Err(DamagedNodes::OtherRaftId { raft_id, says: member.raft_id });
            }
            if table.nodes.contains_key(&endpoint_id) {
                return Err(DamagedNodes::Twice { endpoint_id });
            }
            table.admit(member);
        }
        Ok(table)
    }
}

/// Why a snapshot's members and removed nodes make no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DamagedNodes {
    /// A member stands under another raft id than its own.
    #[error("raft id {raft_id} is that of a member that says it is {says}")]
    OtherRaftId {
        /// Where it stands.
        raft_id: RaftId,
        /// What it says.
        says: RaftId,
    },
    /// Two of them have one key.
    #[error("endpoint {endpoint_id} is there twice")]
    Twice {
        /// The key.
        endpoint_id: EndpointId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 32])
    }

    fn member(raft_id: u64, n: u8) -> Member {
        let offer = Offer { addresses: vec![([10, 0, 0, n], 7431).into()], ..Offer::default() };
        let name = format!("n{n}").parse().expect("a name");
        let node = NodeFacts { name, endpoint_id: key(n), store_id: StoreId::from_bytes([n; 16]), offer };
        Member { raft_id: RaftId(raft_id), node, role: Role::Learner }
    }

    fn table(members: &[Member]) -> NodeTable {
        let mut table = NodeTable::default();
        for member in members {
            table.admit(member.clone());
        }
        table
    }

    fn availability(table: &NodeTable, n: u8) -> Option<Availability> {
        table.get(key(n)).map(|node| node.availability)
    }

    #[test]
    fn a_member_is_found_by_its_raft_id_its_key_and_its_name() {
        let table = table(&[member(1, 1), member(2, 2)]);
        let second = table.member(RaftId(2)).expect("by raft id");
        assert_eq!(second.to_member(), member(2, 2));
        assert_eq!(table.member_by_endpoint(key(2)), Some(second));
        assert_eq!(table.member_by_name(&member(2, 2).node.name), Some(second));
        assert_eq!((table.member_count(), table.raft_ids().count()), (2, 2));
        assert_eq!((table.member(RaftId(3)), table.member_by_endpoint(key(3))), (None, None));
    }

    #[test]
    fn a_node_stays_in_the_table_when_it_is_removed_and_not_when_its_store_is_lost() {
        let mut table = table(&[member(1, 1), member(2, 2), member(3, 3)]);
        assert_eq!(table.remove(RaftId(2)), Some(member(2, 2).node.name));
        assert_eq!(table.remove(RaftId(2)), None);
        table.let_go(RaftId(3));
        assert_eq!(availability(&table, 2), Some(Availability::Removed));
        assert_eq!(availability(&table, 3), None);
        assert_eq!((table.member_by_endpoint(key(2)), table.has_member(RaftId(2))), (None, false));
        assert!(!table.set_offer(key(2), &member(2, 2).node.offer), "it offers nothing any more");
        // With a ticket it comes back, under another raft id.
        table.admit(member(4, 2));
        assert_eq!(table.member_by_endpoint(key(2)).map(|member| member.raft_id), Some(RaftId(4)));
        assert_eq!(table.departed().count(), 0);
    }

    #[test]
    fn all_but_the_founder_are_given_up() {
        let mut table = table(&[member(1, 1), member(2, 2), member(3, 3)]);
        table.remove(RaftId(3));
        let given_up = table.give_up_all_but(key(1));
        assert_eq!(given_up, [member(2, 2)]);
        let now = [1, 2, 3].map(|n| availability(&table, n));
        assert_eq!(now, [None, Some(Availability::GivenUp), Some(Availability::Removed)]);
        assert_eq!(table.member_count(), 0);
    }

    #[test]
    fn what_a_snapshot_tells_of_is_the_same_table_or_none() {
        let mut whole = table(&[member(1, 1), member(2, 2), member(3, 3)]);
        whole.set_role(RaftId(1), Role::Voter);
        whole.remove(RaftId(3));
        let (members, removed) = (whole.members_form(), whole.removed_form());
        assert_eq!(NodeTable::from_forms(members.clone(), removed.clone()), Ok(whole));
        let mut twice = removed.clone();
        let again = RemovedNode { name: member(1, 1).node.name, raft_id: RaftId(1), given_up: true };
        twice.insert(key(1), again);
        let refused = NodeTable::from_forms(members.clone(), twice);
        assert_eq!(refused, Err(DamagedNodes::Twice { endpoint_id: key(1) }));
        let mut elsewhere = members;
        elsewhere.insert(RaftId(9), member(7, 7));
        let refused = NodeTable::from_forms(elsewhere, removed);
        assert_eq!(refused, Err(DamagedNodes::OtherRaftId { raft_id: RaftId(9), says: RaftId(7) }));
    }
}
