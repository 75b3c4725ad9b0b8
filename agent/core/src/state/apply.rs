//! What a command does to the state. Total, synchronous, deterministic: every input gives an outcome, none a
//! panic.

use blixard_model::member::ADDRESSES_MAX;
use blixard_model::vm::CPUS_MAX;
use blixard_model::{
    Capacity, Command, Desired, EndpointId, NodeName, Outcome, Placement, Refusal, Request, VmName, VmSpec,
};

use super::requests::Seen;
use super::{ClusterState, VMS_MAX, VmRecord};
use crate::planner::placement;

impl ClusterState {
    /// Applies the entry at `index`. A request seen before gives its first outcome again and changes nothing.
    pub fn apply(&mut self, index: u64, request: &Request) -> Outcome {
        // What nodes say of themselves is idempotent and frequent: it would only push clients' requests out.
        if matches!(request.command, Command::ConfirmGone { .. } | Command::SetNode { .. }) {
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
            Command::StartVm { name } => self.set_desired(name, Desired::Running),
            Command::StopVm { name } => self.set_desired(name, Desired::Stopped),
            Command::DeleteVm { name } => self.delete_vm(name),
            Command::ConfirmGone { name, node, generation } => self.confirm_gone(name, node, *generation),
            Command::SetNode { endpoint_id, capacity, addresses } => {
                self.set_node(*endpoint_id, *capacity, addresses)
            }
        };
        result.unwrap_or_else(Outcome::from)
    }

    fn create_vm(
        &mut self,
        index: u64,
        spec: &VmSpec,
        desired: Desired,
        eligible: &[NodeName],
    ) -> Result<Outcome, Refusal> {
        spec.validate().map_err(Refusal::InvalidSpec)?;
        if desired == Desired::Absent {
            return Err(Refusal::Invalid { why: "a VM can not be created as absent".to_owned() });
        }
        if let Some(other) = self.vms.get(&spec.name) {
            return Err(taken(spec.name.clone(), other));
        }
        if self.vms.len() >= VMS_MAX {
            return Err(Refusal::TooMany { limit: VMS_MAX });
        }
        let node = placement::choose(self, spec, eligible)?;
        let placement = Placement { node: node.clone(), generation: index };
        self.vms.insert(spec.name.clone(), VmRecord { spec: spec.clone(), desired, placement });
        Ok(Outcome::done(Some(node)))
    }

    fn vm_mut(&mut self, name: &VmName) -> Result<&mut VmRecord, Refusal> {
        self.vms.get_mut(name).ok_or_else(|| Refusal::VmNotFound { name: name.clone() })
    }

    fn set_desired(&mut self, name: &VmName, desired: Desired) -> Result<Outcome, Refusal> {
        let vm = self.vm_mut(name)?;
        let node = vm.placement.node.clone();
        if vm.desired == Desired::Absent {
            return Err(Refusal::VmDeleting { name: name.clone(), node });
        }
        if vm.desired == desired {
            return Ok(Outcome::unchanged(Some(node)));
        }
        vm.desired = desired;
        Ok(Outcome::done(Some(node)))
    }

    fn delete_vm(&mut self, name: &VmName) -> Result<Outcome, Refusal> {
        let vm = self.vm_mut(name)?;
        let node = Some(vm.placement.node.clone());
        if vm.desired == Desired::Absent {
            return Ok(Outcome::unchanged(node));
        }
        vm.desired = Desired::Absent;
        Ok(Outcome::done(node))
    }

    fn confirm_gone(&mut self, name: &VmName, node: &NodeName, generation: u64) -> Result<Outcome, Refusal> {
        let vm = self.vm_mut(name)?;
        let theirs = vm.placement.node == *node && vm.placement.generation == generation;
        if !theirs || vm.desired != Desired::Absent {
            return Ok(Outcome::unchanged(Some(vm.placement.node.clone())));
        }
        self.vms.remove(name);
        Ok(Outcome::done(Some(node.clone())))
    }

    fn set_node(
        &mut self,
        endpoint_id: EndpointId,
        capacity: Capacity,
        addresses: &[std::net::SocketAddr],
    ) -> Result<Outcome, Refusal> {
        if addresses.len() > ADDRESSES_MAX {
            return Err(Refusal::Invalid { why: format!("more than {ADDRESSES_MAX} addresses") });
        }
        // A node may offer more cpus than one VM may have, within reason.
        if capacity.cpus > CPUS_MAX * 64 {
            return Err(Refusal::Invalid { why: format!("{} cpus are not believable", capacity.cpus) });
        }
        let member = self
            .members
            .values_mut()
            .find(|member| member.endpoint_id == endpoint_id)
            .ok_or(Refusal::NotAMember { endpoint_id })?;
        let name = member.name.clone();
        let same = member.addresses == addresses && self.capacity.get(&name) == Some(&capacity);
        if same {
            return Ok(Outcome::unchanged(Some(name)));
        }
        member.addresses = addresses.to_vec();
        self.capacity.insert(name.clone(), capacity);
        Ok(Outcome::done(Some(name)))
    }
}

fn taken(name: VmName, other: &VmRecord) -> Refusal {
    let node = other.placement.node.clone();
    match other.desired {
        Desired::Absent => Refusal::VmDeleting { name, node },
        Desired::Running | Desired::Stopped => Refusal::VmExists { name, node },
    }
}
