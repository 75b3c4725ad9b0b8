//! What a membership change does to the state.

use blixard_model::{
    Capacity, EndpointId, Member, MembershipChange, RaftId, Refusal, RelayUrl, Role, mutant,
};

use super::ClusterState;
use super::member_check::{MemberError, MemberFacts, check_member};
use crate::formation::DeclaredMember;

/// What a node says of itself once it is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOffer {
    /// What it offers to VMs.
    pub capacity: Capacity,
    /// Where it is reached.
    pub addresses: Vec<std::net::SocketAddr>,
    /// The relay it is reached through, if it uses one.
    pub relay_url: Option<RelayUrl>,
}

impl ClusterState {
    /// Checks a change against the members there are; run before it is proposed and again before it is
    /// applied.
    ///
    /// # Errors
    /// [`Refusal::Membership`] says what does not fit.
    pub fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal> {
        let wrong = |why: String| Err(Refusal::Membership { why });
        match change {
            MembershipChange::AddLearner { member } => self.check_new_member(member),
            MembershipChange::Promote { raft_id } => {
                if !self.members.contains_key(raft_id) {
                    return wrong(format!("raft id {raft_id} is no member"));
                }
                if voters.contains(raft_id) {
                    return wrong(format!("raft id {raft_id} votes already"));
                }
                Ok(())
            }
            MembershipChange::Remove { raft_id } => {
                if !self.members.contains_key(raft_id) {
                    return wrong(format!("raft id {raft_id} is no member"));
                }
                if voters == [*raft_id] {
                    return wrong(format!("raft id {raft_id} is the last voter"));
                }
                Ok(())
            }
        }
    }

    fn check_new_member(&self, member: &Member) -> Result<(), Refusal> {
        let wrong = |why: String| Err(Refusal::Membership { why });
        if member.raft_id < self.next_raft_id {
            return wrong(format!("raft id {} was given before", member.raft_id));
        }
        // There has to be a next one.
        if member.raft_id == RaftId(u64::MAX) {
            return wrong(format!("raft id {} is none", member.raft_id));
        }
        if member.role != Role::Learner {
            return wrong(format!("{} would be a {} at once: add it as learner", member.name, member.role));
        }
        let others: Vec<_> = self.members.values().map(MemberFacts::from).collect();
        check_member(member.into(), &others).or_else(|error| wrong(format!("{}: {error}", member.name)))
    }

    /// What would be said to a declared node that is no member yet, its store apart; none when it fits.
    pub fn check_declared(&self, declared: &DeclaredMember) -> Option<MemberError> {
        let others: Vec<_> = self.members.values().map(MemberFacts::from).collect();
        check_member(declared.into(), &others).err()
    }

    /// Checks what a node says of itself against the members there are; run before it is proposed and again
    /// when it is applied.
    ///
    /// # Errors
    /// [`Refusal::NotAMember`], or [`Refusal::Invalid`] says what is wrong.
    pub fn check_offer(&self, endpoint_id: EndpointId, offer: &NodeOffer) -> Result<RaftId, Refusal> {
        let member = self.member_by_endpoint(endpoint_id).ok_or(Refusal::NotAMember { endpoint_id })?;
        let mut facts = MemberFacts::from(member);
        facts.addresses = &offer.addresses;
        facts.relay_url = offer.relay_url.as_ref();
        facts.capacity = Some(offer.capacity);
        let others: Vec<_> = self
            .members
            .values()
            .filter(|other| other.raft_id != member.raft_id)
            .map(MemberFacts::from)
            .collect();
        match check_member(facts, &others) {
            Ok(()) => Ok(member.raft_id),
            Err(error) => Err(Refusal::Invalid { why: format!("{}: {error}", member.name) }),
        }
    }

    /// Applies a change that [`ClusterState::check_membership`] accepted. Roles follow Raft's configuration.
    pub fn apply_membership(&mut self, change: &MembershipChange) {
        match change {
            MembershipChange::AddLearner { member } => {
                self.next_raft_id = RaftId(member.raft_id.0.saturating_add(1));
                self.members.insert(member.raft_id, member.clone());
            }
            MembershipChange::Promote { raft_id } => {
                if let Some(member) = self.members.get_mut(raft_id) {
                    member.role = Role::Voter;
                }
            }
            MembershipChange::Remove { raft_id } => {
                self.members.remove(raft_id);
                if mutant::lives("raft-id-used-again") {
                    self.next_raft_id = *raft_id;
                }
            }
        }
    }
}
