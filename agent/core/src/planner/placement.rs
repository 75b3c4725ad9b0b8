//! Where a VM goes: the least loaded node that has room.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use blixard_model::{Capacity, Disk, Lack, Lacks, NodeName, Reason, Refusal, VmSpec, mutant};

use crate::state::{ClusterState, MemberRef, VmRecord};

/// Chooses a node for a new VM among the `eligible` ones: the one whose memory is least reserved (as a share
/// of what it offers) once the VM is there; then cpus; then the name decides. Deterministic, without floats.
///
/// # Errors
/// [`Refusal::DoesNotFit`] with what is missing on each node; [`Refusal::NodeNotFound`] for a pin to no
/// member.
pub fn choose(state: &ClusterState, spec: &VmSpec, eligible: &[NodeName]) -> Result<NodeName, Refusal> {
    if let Some(pin) = &spec.node
        && state.member_by_name(pin).is_none()
    {
        return Err(Refusal::NodeNotFound { node: pin.clone() });
    }
    let mut nodes = BTreeMap::new();
    let mut best: Option<Candidate> = None;
    for member in state.nodes.members() {
        match fits(state, spec, member, eligible) {
            Ok(candidate) => {
                if best.as_ref().is_none_or(|best| candidate.cmp_load(best) == Ordering::Less) {
                    best = Some(candidate);
                }
            }
            Err(why) => {
                nodes.insert(member.node.name.clone(), Reason::Code(why));
            }
        }
    }
    match best {
        Some(candidate) => Ok(candidate.node),
        None => Err(Refusal::DoesNotFit { name: spec.name.clone(), nodes }),
    }
}

/// Those of the eligible nodes of which `is_good` holds, if one of these has room for it; else all.
pub(crate) fn prefer(
    state: &ClusterState,
    spec: &VmSpec,
    eligible: Vec<NodeName>,
    is_good: impl Fn(&NodeName) -> bool,
) -> Vec<NodeName> {
    let good: Vec<NodeName> = eligible.iter().filter(|node| is_good(node)).cloned().collect();
    if choose(state, spec, &good).is_ok() { good } else { eligible }
}

/// A node with room, and its load once the VM is there.
struct Candidate {
    node: NodeName,
    offered: Capacity,
    after: Capacity,
}

impl Candidate {
    fn cmp_load(&self, other: &Self) -> Ordering {
        // a/b < c/d as a*d < c*b: no division, no floats, the same on every replica.
        let share = |mine: u64, of_theirs: u64| u128::from(mine) * u128::from(of_theirs);
        let memory = share(self.after.memory_mib, other.offered.memory_mib)
            .cmp(&share(other.after.memory_mib, self.offered.memory_mib));
        let cpus = share(self.after.cpus.into(), other.offered.cpus.into())
            .cmp(&share(other.after.cpus.into(), self.offered.cpus.into()));
        memory.then(cpus).then_with(|| self.node.cmp(&other.node))
    }
}

fn fits(
    state: &ClusterState,
    spec: &VmSpec,
    member: MemberRef<'_>,
    eligible: &[NodeName],
) -> Result<Candidate, Lacks> {
    let node = member.node.name;
    if member.node.offer.witness && !mutant::lives("witness-given-a-vm") {
        return Err(Lack::Witness.into());
    }
    if let Some(pin) = &spec.node
        && pin != node
    {
        return Err(Lack::Pinned { node: pin.clone() }.into());
    }
    if !eligible.contains(node) {
        return Err(Lack::Unreachable.into());
    }
    let offered = member.node.offer.capacity.ok_or(Lack::NothingOffered)?;
    let (reserved, _) = state.reserved(node);
    let after = room(state, spec, node, (offered, reserved))?;
    Ok(Candidate { node: node.clone(), offered, after })
}

/// Checks that a VM may get another spec where it is placed, beside all the others there.
///
/// # Errors
/// [`Refusal::PlacedElsewhere`] for a pin to another node; [`Refusal::DoesNotFit`] with what is missing.
pub fn check_change(state: &ClusterState, vm: &VmRecord, spec: &VmSpec) -> Result<(), Refusal> {
    let (name, node) = (&spec.name, &vm.placement.node);
    if spec.node.as_ref().is_some_and(|pin| pin != node) {
        return Err(Refusal::PlacedElsewhere { name: name.clone(), node: node.clone() });
    }
    let (mut reserved, _) = state.reserved(node);
    reserved.cpus = reserved.cpus.saturating_sub(vm.reserved_cpus());
    reserved.memory_mib = reserved.memory_mib.saturating_sub(vm.reserved_memory_mib());
    // One that takes no more than before fits also where less is offered than was once.
    let shrinks = spec.cpus <= vm.spec.cpus && spec.memory_mib <= vm.spec.memory_mib;
    let offered = match state.capacity_of(node) {
        _ if shrinks => Capacity { cpus: u32::MAX, memory_mib: u64::MAX },
        offered => offered.unwrap_or_default(),
    };
    let does_not_fit = |lacks| Refusal::DoesNotFit {
        name: name.clone(),
        nodes: BTreeMap::from([(node.clone(), Reason::Code(lacks))]),
    };
    room(state, spec, node, (offered, reserved)).map(|_| ()).map_err(does_not_fit)
}

/// What a node's reservations come to with a VM that has this spec, or what is missing for it.
fn room(
    state: &ClusterState,
    spec: &VmSpec,
    node: &NodeName,
    (offered, reserved): (Capacity, Capacity),
) -> Result<Capacity, Lacks> {
    let need = Capacity { cpus: spec.cpus, memory_mib: spec.reserved_memory_mib() };
    let free = Capacity {
        cpus: offered.cpus.saturating_sub(reserved.cpus),
        memory_mib: offered.memory_mib.saturating_sub(reserved.memory_mib),
    };
    let mut missing = Vec::new();
    if need.memory_mib > free.memory_mib {
        missing.push(Lack::Memory { free_mib: free.memory_mib, needed_mib: need.memory_mib });
    }
    if need.cpus > free.cpus {
        missing.push(Lack::Cpus { free: free.cpus, needed: need.cpus });
    }
    if let Some(disk) = state.unshared_disk(spec, node).filter(|_| spec.fails_over()) {
        missing.push(Lack::NotShared { path: disk.path.clone() });
    }
    if let Some(clash) = disk_clash(state, spec, node) {
        missing.push(clash);
    }
    if mutant::lives("capacity-checked-before-propose-only") {
        missing.clear();
    }
    if missing.is_empty() {
        Ok(Capacity {
            cpus: reserved.cpus.saturating_add(need.cpus),
            memory_mib: reserved.memory_mib.saturating_add(need.memory_mib),
        })
    } else {
        Err(Lacks(missing))
    }
}

/// A file that one VM writes belongs to that VM alone: on its node, and one that is shared in the cluster.
fn disk_clash(state: &ClusterState, spec: &VmSpec, node: &NodeName) -> Option<Lack> {
    let is_shared = |disk: &Disk| state.is_shared(&disk.path) && !mutant::lives("shared-disk-of-a-node");
    let disks: Vec<(&Disk, bool)> = spec.disks.iter().map(|disk| (disk, is_shared(disk))).collect();
    for other in state.vms.values().filter(|other| other.spec.name != spec.name) {
        let is_here = other.placement.node == *node;
        for (disk, _) in disks.iter().filter(|(_, is_shared)| is_here || *is_shared) {
            if other.reserved_disks().any(|o| o.path == disk.path && !(o.read_only && disk.read_only)) {
                return Some(Lack::Disk { path: disk.path.clone(), vm: other.spec.name.clone() });
            }
        }
    }
    None
}
