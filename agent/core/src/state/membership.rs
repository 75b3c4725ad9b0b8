//! What a membership change does to the state.

use blixard_model::{
    Desired, EndpointId, Member, MembershipChange, NodeName, Offer, RaftId, Refusal, Removal, Role,
    SharedDirs, VmName, VmsFate, mutant,
};

use super::member_check::{CheckedMember, MemberError, check_member};
use super::nodes::MemberRef;
use super::{ClusterState, VmRecord};
use crate::declared::DeclaredMember;

/// Most VMs that a refusal names.
const VMS_NAMED_MAX: usize = 5;

impl ClusterState {
    /// Checks a change against the members there are; run before it is proposed and again before it is
    /// applied.
    ///
    /// # Errors
    /// [`Refusal::Membership`] says what does not fit.
    pub fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal> {
        let member = |raft_id: &RaftId| {
            let none = || Refusal::Membership { why: format!("raft id {raft_id} is no member") };
            self.nodes.member(*raft_id).ok_or_else(none)
        };
        let wrong = |why: String| Err(Refusal::Membership { why });
        match change {
            MembershipChange::AddLearner { member, ticket } => {
                self.check_new_member(member)?;
                let Some(used) = ticket else { return self.check_listed(member) };
                self.check_ticket(used, member).map_err(|why| Refusal::Ticket { why: why.into() })
            }
            MembershipChange::Promote { raft_id } => match member(raft_id)? {
                _ if voters.contains(raft_id) => wrong(format!("raft id {raft_id} votes already")),
                _ => Ok(()),
            },
            MembershipChange::Demote { raft_id } => match member(raft_id)? {
                _ if !voters.contains(raft_id) => wrong(format!("raft id {raft_id} does not vote")),
                _ if voters == [*raft_id] => wrong(format!("raft id {raft_id} is the last voter")),
                _ => Ok(()),
            },
            MembershipChange::Remove { raft_id, why } => {
                let member = member(raft_id)?;
                if voters == [*raft_id] {
                    return wrong(format!("raft id {raft_id} is the last voter"));
                }
                match why {
                    Removal::Operator { vms: None } => self.check_no_vms(member.node.name),
                    Removal::Operator { vms: Some(VmsFate::Retire) } => self.check_retires(member.node.name),
                    Removal::Operator { vms: Some(_) } | Removal::LostStore => Ok(()),
                }
            }
        }
    }

    /// An operator removed it: the list alone does not let it in again.
    fn check_listed(&self, member: &Member) -> Result<(), Refusal> {
        if self.is_kept_out(member.node.endpoint_id) && !mutant::lives("removed-node-admitted-again") {
            let why = format!("{} was removed: it needs a ticket to come back", member.node.name);
            return Err(Refusal::Membership { why });
        }
        Ok(())
    }

    /// Checks that nothing is placed on a node.
    ///
    /// # Errors
    /// [`Refusal::NodeHasVms`].
    pub fn check_no_vms(&self, node: &NodeName) -> Result<(), Refusal> {
        let placed: Vec<VmName> = self.placed_on(node).map(|vm| vm.spec.name.clone()).collect();
        if placed.is_empty() {
            return Ok(());
        }
        let (count, some) = (placed.len(), placed.into_iter().take(VMS_NAMED_MAX).collect());
        Err(Refusal::NodeHasVms { node: node.clone(), count, some })
    }

    /// Checks that it is known when a node that does not answer runs none of its VMs any more.
    fn check_retires(&self, node: &NodeName) -> Result<(), Refusal> {
        let runs_on = |vm: &&VmRecord| self.leases.holder(node).is_none() || !vm.may_be_taken_over();
        let knows = "if you know that the machine is off, say so with --i-know-it-is-off";
        let wrong = |why: String| Err(Refusal::Membership { why });
        if self.leases.disarmed.is_some() && self.placed_on(node).next().is_some() {
            return wrong(format!(
                "the cluster is disarmed, so {node} may run its VMs for long: arm it first (blixard cluster \
                 arm), or {knows}"
            ));
        }
        match self.placed_on(node).find(runs_on) {
            None => Ok(()),
            Some(vm) => wrong(format!(
                "VM {} may still run on {node}, which needs no lease for it: {knows}",
                vm.spec.name
            )),
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
            return wrong(format!(
                "{} would be a {} at once: add it as learner",
                member.node.name, member.role
            ));
        }
        let others: Vec<_> = self.nodes.members().map(|member| CheckedMember::from(member.node)).collect();
        check_member((&member.node).into(), &others)
            .or_else(|error| wrong(format!("{}: {error}", member.node.name)))
    }

    /// What would be said to a declared node that is no member yet, its store apart; none when it fits.
    pub fn check_declared(&self, declared: &DeclaredMember) -> Option<MemberError> {
        let others: Vec<_> = self.nodes.members().map(|member| CheckedMember::from(member.node)).collect();
        check_member(declared.into(), &others).err()
    }

    /// Checks what a node says of itself against the members there are; run before it is proposed and again
    /// when it is applied.
    ///
    /// # Errors
    /// [`Refusal::NotAMember`], or [`Refusal::Invalid`] says what is wrong.
    pub fn check_offer(&self, endpoint_id: EndpointId, offer: &Offer) -> Result<MemberRef<'_>, Refusal> {
        let member = self.member_by_endpoint(endpoint_id).ok_or(Refusal::NotAMember { endpoint_id })?;
        self.check_shared_dirs(offer)?;
        let store_id = Some(member.node.store_id);
        let offered = CheckedMember::offered(member.node.name, endpoint_id, offer);
        let facts = CheckedMember { store_id, ..offered };
        let others: Vec<_> = self
            .nodes
            .members()
            .filter(|other| other.raft_id != member.raft_id)
            .map(|member| CheckedMember::from(member.node))
            .collect();
        match check_member(facts, &others) {
            Ok(()) => Ok(member),
            Err(error) => Err(Refusal::Invalid { why: format!("{}: {error}", member.node.name).into() }),
        }
    }

    /// Applies a change that [`ClusterState::check_membership`] accepted. Roles follow Raft's configuration.
    pub fn apply_membership(&mut self, change: &MembershipChange) {
        match change {
            MembershipChange::AddLearner { member, ticket } => {
                self.next_raft_id = RaftId(member.raft_id.0.saturating_add(1));
                // One that an operator removed got here by a ticket alone.
                let mut member = member.clone();
                // It says so itself once it is a member: older replicas do not see it here.
                member.node.offer.shared_dirs = SharedDirs::default();
                self.nodes.admit(member.clone());
                if let Some(used) = ticket {
                    self.use_ticket(used, &member);
                }
            }
            MembershipChange::Promote { raft_id } => self.nodes.set_role(*raft_id, Role::Voter),
            MembershipChange::Demote { raft_id } => self.nodes.set_role(*raft_id, Role::Learner),
            MembershipChange::Remove { raft_id, why } => {
                match why {
                    Removal::LostStore => self.nodes.let_go(*raft_id),
                    Removal::Operator { vms } => self.remove_node(*raft_id, *vms),
                }
                if mutant::lives("raft-id-used-again") {
                    self.next_raft_id = *raft_id;
                }
            }
        }
        let is_wanted = matches!(change, MembershipChange::Remove { why: Removal::Operator { .. }, .. });
        self.refresh_leases(is_wanted);
    }

    fn remove_node(&mut self, raft_id: RaftId, vms: Option<VmsFate>) {
        let name = self.nodes.remove(raft_id);
        match (name, vms) {
            (Some(name), Some(VmsFate::Delete)) => self.forget_vms_of(&name),
            (Some(name), Some(VmsFate::Retire)) => self.retire_vms_of(&name),
            (Some(_) | None, _) => {}
        }
    }

    /// Its VMs are forgotten once its leases are over: then the leader says that it is lost.
    fn retire_vms_of(&mut self, node: &NodeName) {
        let is_lost = self.leases.holder(node).is_some_and(|holder| holder.is_lost);
        if is_lost || mutant::lives("retired-at-once") {
            return self.forget_vms_of(node);
        }
        for vm in self.vms.values_mut().filter(|vm| vm.placement.node == *node) {
            vm.desired = Desired::Absent;
        }
    }

    pub(super) fn forget_vms_of(&mut self, node: &NodeName) {
        self.vms.retain(|_, vm| vm.placement.node != *node);
    }
}
