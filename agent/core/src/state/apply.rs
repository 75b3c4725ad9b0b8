//! What a command does to the state. Total, synchronous, deterministic: every input gives an outcome, none a
//! panic.

use blixard_model::{
    ClusterVersion, Command, Desired, EndpointId, FieldRefused, NodeName, NotedStop, Offer, OnNodeLoss,
    OrderId, Outcome, Placement, Reason, Refusal, Request, SharedDirs, TicketRecord, TicketState, VmName,
    VmSpec, VmStop, mutant,
};

use super::nodes::{Availability, NodeRecord};
use super::requests::Seen;
use super::{ClusterState, HELD_DISKS_MAX, VMS_MAX, VmRecord};
use crate::planner::placement;

impl ClusterState {
    /// Applies the entry at `index`, which was written in `term`. What a leader decides stands in its own
    /// term alone: it has not waited for anybody in another one.
    pub fn apply_entry(&mut self, (index, term): (u64, u64), request: &Request) -> Outcome {
        match &request.command {
            Command::NodeLost { term: decided, .. }
                if *decided != term && !mutant::lives("grants-outlive-the-term") =>
            {
                Outcome::unchanged(None)
            }
            _ => self.apply(index, request),
        }
    }

    /// Applies the entry at `index`. A request seen before gives its first outcome again and changes nothing.
    pub fn apply(&mut self, index: u64, request: &Request) -> Outcome {
        // What nodes say of themselves is idempotent and frequent: it would only push clients' requests out.
        let of_nodes = matches!(
            request.command,
            Command::ConfirmGone { .. }
                | Command::ConfirmSpec { .. }
                | Command::NoteStopped { .. }
                | Command::SetNode { .. }
                | Command::ExpireTickets { .. }
                | Command::EnforceLease { .. }
                | Command::NodeLost { .. }
                | Command::TakeHold { .. }
                | Command::EndHold { .. }
                | Command::Arm { since: Some(_) }
                | Command::RaiseVersion { .. }
        );
        if of_nodes {
            return self.apply_command(index, &request.command);
        }
        match self.requests.look_up(&request.id, &request.command) {
            Seen::Before(outcome) => outcome,
            Seen::Other => Refusal::RequestIdReused { id: request.id.clone() }.into(),
            Seen::New => {
                let outcome = self.apply_command(index, &request.command);
                self.requests.remember(index, request.id.clone(), &request.command, outcome.clone());
                outcome
            }
        }
    }

    fn apply_command(&mut self, index: u64, command: &Command) -> Outcome {
        let result = match command {
            Command::CreateVm { spec, desired, eligible } => self.create_vm(index, spec, *desired, eligible),
            Command::ChangeVm { spec, seen } => self.change_vm(index, spec, *seen),
            Command::StartVm { name } => self.set_desired(index, name, Desired::Running),
            Command::StopVm { name } => self.set_desired(index, name, Desired::Stopped),
            Command::DeleteVm { name } => self.delete_vm(name),
            Command::ConfirmGone { name, node, generation } => self.confirm_gone(name, node, *generation),
            Command::ConfirmSpec { name, node, order } => self.confirm_spec(name, node, *order),
            Command::NoteStopped { name, node, generation, stop } => {
                self.note_stopped(name, node, *generation, *stop)
            }
            Command::SetNode { endpoint_id, offer } => self.set_node(*endpoint_id, offer),
            Command::CreateTicket { id, name, hash, ttl_ms, at_ms } => self.create_ticket(TicketRecord {
                id: *id,
                name: name.clone(),
                hash: *hash,
                ttl_ms: *ttl_ms,
                expires_ms: at_ms.saturating_add(*ttl_ms),
                state: TicketState::Open,
            }),
            Command::RevokeTicket { id } => self.revoke_ticket(*id),
            Command::ForgetVms { node } => self.forget_vms(node),
            Command::ExpireTickets { ids } => Ok(self.expire_tickets(ids)),
            Command::EnforceLease { raft_id, boot_id, epoch } => {
                self.enforce_lease(index, *raft_id, (*boot_id, *epoch))
            }
            Command::NodeLost { node, eligible, seen, .. } => {
                Ok(self.node_lost(index, node, (eligible, *seen)))
            }
            Command::TakeHold { raft_id, hold } => self.take_hold(index, *raft_id, *hold),
            Command::EndHold { raft_id, boot_id, since } => Ok(self.end_hold(*raft_id, *boot_id, *since)),
            Command::Disarm { for_ms, at_ms } => self.disarm(index, *for_ms, *at_ms),
            Command::Arm { since } => Ok(self.arm(*since)),
            Command::SetLeaseTerms { terms } => self.set_lease_terms(index, *terms),
            Command::RaiseVersion { to } => Ok(self.raise_version(*to)),
        };
        match command {
            Command::SetNode { offer, .. } => self.refresh_leases(offer.witness || offer.capacity.is_none()),
            Command::RaiseVersion { .. } => self.refresh_leases(false),
            _ => self.refresh_leases_that_end(),
        }
        result.unwrap_or_else(|refusal| {
            // Replicas of releases that know no codes remember the words.
            let coded = self.version >= ClusterVersion::CODED_REASONS;
            Outcome::from(if coded { refusal } else { refusal.in_words() })
        })
    }

    fn create_vm(
        &mut self,
        index: u64,
        spec: &VmSpec,
        desired: Desired,
        eligible: &[NodeName],
    ) -> Result<Outcome, Refusal> {
        let spec = &self.chosen(spec);
        spec.validate().and_then(|()| self.check_failover(spec)).map_err(Refusal::InvalidSpec)?;
        if desired == Desired::Absent {
            return Err(Refusal::Invalid { why: Reason::Code(FieldRefused::CreatedAbsent) });
        }
        if let Some(other) = self.vms.get(&spec.name) {
            return Err(taken(spec.name.clone(), other));
        }
        if self.vms.len() >= VMS_MAX {
            return Err(Refusal::TooMany { limit: VMS_MAX });
        }
        let node = placement::choose(self, spec, eligible)?;
        let generation = if mutant::lives("generation-used-again") { 1 } else { index };
        let placement = Placement { node: node.clone(), generation };
        let lineage = self.lineage();
        let record = VmRecord {
            spec: spec.clone(),
            desired,
            placement,
            revision: 0,
            lineage,
            held: None,
            stopped: None,
        };
        self.vms.insert(spec.name.clone(), record);
        Ok(Outcome::done(Some(node)))
    }

    /// The spec with what nobody chose.
    fn chosen(&self, spec: &VmSpec) -> VmSpec {
        let mut spec = spec.clone();
        if spec.on_node_loss.is_none() && self.version >= ClusterVersion::LEASES {
            spec.on_node_loss = Some(self.usual_on_node_loss(&spec));
        }
        spec
    }

    /// The spec with what nobody chose: it stays as it was, as far as that still can be.
    fn chosen_after(&self, spec: &VmSpec, before: &VmSpec) -> VmSpec {
        let mut spec = spec.clone();
        if spec.on_node_loss.is_none() {
            let fails_over = before.fails_over() && self.usual_on_node_loss(&spec) == OnNodeLoss::Keep;
            spec.on_node_loss = if fails_over { Some(OnNodeLoss::Keep) } else { before.on_node_loss };
        }
        spec
    }

    fn change_vm(&mut self, index: u64, spec: &VmSpec, seen: Option<u64>) -> Result<Outcome, Refusal> {
        let vm = self.vm(&spec.name)?;
        let spec = &self.chosen_after(spec, &vm.spec);
        spec.validate().and_then(|()| self.check_failover(spec)).map_err(Refusal::InvalidSpec)?;
        let (name, node) = (spec.name.clone(), vm.placement.node.clone());
        if vm.desired == Desired::Absent {
            return Err(Refusal::VmDeleting { name, node });
        }
        if let Some(revision) = seen.filter(|seen| *seen != vm.revision).map(|_| vm.revision) {
            return Err(Refusal::SpecChanged { name, revision });
        }
        if vm.spec == *spec {
            return Ok(Outcome::unchanged(Some(node)));
        }
        placement::check_change(self, vm, spec)?;
        let held = vm.held_after_change();
        if held.disks.len() > HELD_DISKS_MAX {
            let why = FieldRefused::ChangesUnconfirmed { node };
            return Err(Refusal::Invalid { why: Reason::Code(why) });
        }
        let lineage = self.lineage();
        let vm = self.vm_mut(&name)?;
        vm.lineage = lineage;
        vm.spec = spec.clone();
        vm.held = (!mutant::lives("earlier-spec-let-go")).then_some(held);
        if !mutant::lives("revision-stays") {
            vm.revision = index;
        }
        Ok(Outcome::done(Some(node)))
    }

    fn vm(&self, name: &VmName) -> Result<&VmRecord, Refusal> {
        self.vms.get(name).ok_or_else(|| Refusal::VmNotFound { name: name.clone() })
    }

    fn vm_mut(&mut self, name: &VmName) -> Result<&mut VmRecord, Refusal> {
        self.vms.get_mut(name).ok_or_else(|| Refusal::VmNotFound { name: name.clone() })
    }

    fn set_desired(&mut self, index: u64, name: &VmName, desired: Desired) -> Result<Outcome, Refusal> {
        let lineage = self.lineage();
        let vm = self.vm_mut(name)?;
        let node = vm.placement.node.clone();
        if vm.desired == Desired::Absent {
            return Err(Refusal::VmDeleting { name: name.clone(), node });
        }
        if vm.desired == desired {
            return Ok(Outcome::unchanged(Some(node)));
        }
        vm.desired = desired;
        // What its node may say once more of the stop before is of another placement from here on.
        if vm.stopped.take().is_some() && !mutant::lives("started-as-the-stopped-placement") {
            vm.placement.generation = index;
            vm.lineage = lineage;
        }
        Ok(Outcome::done(Some(node)))
    }

    /// A node that was told by hand, or a VM that ended for good: of another placement it says nothing, and
    /// whoever has told it to stop or to go meanwhile has the last word.
    fn note_stopped(
        &mut self,
        name: &VmName,
        node: &NodeName,
        generation: u64,
        stop: VmStop,
    ) -> Result<Outcome, Refusal> {
        let vm = self.vm_mut(name)?;
        let theirs = vm.placement.node == *node && vm.placement.generation == generation;
        if !theirs || vm.desired != Desired::Running {
            return Ok(Outcome::unchanged(Some(vm.placement.node.clone())));
        }
        vm.desired = Desired::Stopped;
        vm.stopped = Some(NotedStop { node: node.clone(), stop });
        Ok(Outcome::done(Some(node.clone())))
    }

    fn delete_vm(&mut self, name: &VmName) -> Result<Outcome, Refusal> {
        let vm = self.vm(name)?;
        let node = Some(vm.placement.node.clone());
        if vm.desired == Desired::Absent {
            return Ok(Outcome::unchanged(node));
        }
        // Nobody is left who could say that it is gone; whoever removed its node knew, unless its leases say.
        let is_left = node.as_ref().is_some_and(|node| self.is_removed(node)) && !self.is_leased_there(vm);
        if is_left || mutant::lives("name-free-before-unit-gone") {
            self.vms.remove(name);
        } else {
            let vm = self.vm_mut(name)?;
            (vm.desired, vm.stopped) = (Desired::Absent, None);
        }
        Ok(Outcome::done(node))
    }

    /// The node that an operator removed and that may go on running this VM, whose deletion would free its
    /// name and its disks at once: nobody says when it has ended, and no lease ends it.
    pub fn runs_unheard_on(&self, name: &VmName) -> Option<&NodeName> {
        let vm = self.vms.get(name).filter(|vm| vm.desired != Desired::Absent)?;
        let node = &vm.placement.node;
        let is_that =
            |record: &NodeRecord| record.name == *node && record.availability == Availability::Removed;
        let is_removed = self.is_removed(node) && self.nodes.departed().any(|(_, record)| is_that(record));
        let ends = vm.may_be_taken_over() && self.leases.holder(node).is_some();
        (is_removed && !ends).then_some(node)
    }

    /// Whether it is known when its node, which may not answer, runs it no more: when its leases are over.
    fn is_leased_there(&self, vm: &VmRecord) -> bool {
        let holder = self.leases.holder(&vm.placement.node).filter(|holder| !holder.is_lost);
        self.version >= ClusterVersion::HOLDS && holder.is_some() && vm.may_be_taken_over()
    }

    fn confirm_gone(&mut self, name: &VmName, node: &NodeName, generation: u64) -> Result<Outcome, Refusal> {
        let vm = self.vm_mut(name)?;
        let same = vm.placement.generation == generation || mutant::lives("late-confirmation-believed");
        let theirs = vm.placement.node == *node && same;
        if !theirs || vm.desired != Desired::Absent {
            return Ok(Outcome::unchanged(Some(vm.placement.node.clone())));
        }
        self.vms.remove(name);
        Ok(Outcome::done(Some(node.clone())))
    }

    /// No unit runs by an earlier spec any more. Of an earlier revision it says nothing: a later one may have
    /// been given to a unit meanwhile.
    fn confirm_spec(&mut self, name: &VmName, node: &NodeName, order: OrderId) -> Result<Outcome, Refusal> {
        let vm = self.vm_mut(name)?;
        if vm.placement.node != *node || vm.order_id() != order || vm.held.is_none() {
            return Ok(Outcome::unchanged(Some(vm.placement.node.clone())));
        }
        vm.held = None;
        Ok(Outcome::done(Some(node.clone())))
    }

    /// A node that lost its store and was let go may still run them while it is to come back: an operator's
    /// word that it is not, and only while no node of that name is a member.
    fn forget_vms(&mut self, node: &NodeName) -> Result<Outcome, Refusal> {
        if self.member_by_name(node).is_some() {
            let why = FieldRefused::NodeIsMember { node: node.clone() };
            return Err(Refusal::Invalid { why: Reason::Code(why) });
        }
        let before = self.vms.len();
        self.forget_vms_of(node);
        let node = Some(node.clone());
        Ok(if self.vms.len() == before { Outcome::unchanged(node) } else { Outcome::done(node) })
    }

    /// Never lowers it: two leaders in a row may propose the same.
    fn raise_version(&mut self, to: ClusterVersion) -> Outcome {
        if to <= self.version {
            return Outcome::unchanged(None);
        }
        self.version = to;
        Outcome::done(None)
    }

    fn set_node(&mut self, endpoint_id: EndpointId, offer: &Offer) -> Result<Outcome, Refusal> {
        let mut offer = offer.clone();
        if self.version < ClusterVersion::SHARED_DISKS {
            // Replicas of older releases do not see it.
            offer.shared_dirs = SharedDirs::default();
        }
        let name = Some(self.check_offer(endpoint_id, &offer)?.node.name.clone());
        let changed = self.nodes.set_offer(endpoint_id, &offer);
        Ok(if changed { Outcome::done(name) } else { Outcome::unchanged(name) })
    }
}

fn taken(name: VmName, other: &VmRecord) -> Refusal {
    let node = other.placement.node.clone();
    match other.desired {
        Desired::Absent => Refusal::VmDeleting { name, node },
        Desired::Running | Desired::Stopped => Refusal::VmExists { name, node },
    }
}
