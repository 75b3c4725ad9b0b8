//! What a membership change does to the state.

use blixard_model::member::ADDRESSES_MAX;
use blixard_model::{Member, MembershipChange, RaftId, Refusal};

use super::ClusterState;

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
        // Counting goes on above it, and an id is never given twice.
        if member.raft_id == RaftId(u64::MAX) {
            return wrong("no raft id would be left for the next member".to_owned());
        }
        if member.addresses.len() > ADDRESSES_MAX {
            return wrong(format!("more than {ADDRESSES_MAX} addresses"));
        }
        for other in self.members.values() {
            if other.name == member.name {
                return wrong(format!("node {} is a member already", member.name));
            }
            if other.endpoint_id == member.endpoint_id {
                return wrong(format!("endpoint {} is a member already", member.endpoint_id));
            }
            if other.store_id == member.store_id {
                return wrong(format!("store {} belongs to {}", member.store_id, other.name));
            }
        }
        Ok(())
    }

    /// Applies a change that [`ClusterState::check_membership`] accepted.
    pub fn apply_membership(&mut self, change: &MembershipChange) {
        match change {
            MembershipChange::AddLearner { member } => {
                self.next_raft_id = RaftId(member.raft_id.0.saturating_add(1));
                self.members.insert(member.raft_id, member.clone());
            }
            // Whether a member votes is in Raft's configuration, not here.
            MembershipChange::Promote { .. } => {}
            MembershipChange::Remove { raft_id } => {
                self.members.remove(raft_id);
            }
        }
    }
}
