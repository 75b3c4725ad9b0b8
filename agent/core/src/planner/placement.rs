//! Where a VM goes: the least loaded node that has room.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use blixard_model::{Capacity, Member, NodeName, Refusal, VmSpec, mutant};

use crate::state::ClusterState;

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
    for member in state.members.values() {
        match fits(state, spec, member, eligible) {
            Ok(candidate) => {
                if best.as_ref().is_none_or(|best| candidate.cmp_load(best) == Ordering::Less) {
                    best = Some(candidate);
                }
            }
            Err(why) => {
                nodes.insert(member.name.clone(), why);
            }
        }
    }
    match best {
        Some(candidate) => Ok(candidate.node),
        None => Err(Refusal::DoesNotFit { name: spec.name.clone(), nodes }),
    }
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
    member: &Member,
    eligible: &[NodeName],
) -> Result<Candidate, String> {
    let node = &member.name;
    if member.witness && !mutant::lives("witness-given-a-vm") {
        return Err("a witness runs no VMs".to_owned());
    }
    if let Some(pin) = &spec.node
        && pin != node
    {
        return Err(format!("the VM is pinned to {pin}"));
    }
    if !eligible.contains(node) {
        return Err("not reachable".to_owned());
    }
    let offered = member.capacity.ok_or("has not said yet what it offers")?;
    let (reserved, _) = state.reserved(node);
    let need = Capacity { cpus: spec.cpus, memory_mib: spec.reserved_memory_mib() };
    let free = Capacity {
        cpus: offered.cpus.saturating_sub(reserved.cpus),
        memory_mib: offered.memory_mib.saturating_sub(reserved.memory_mib),
    };
    let mut missing = Vec::new();
    if need.memory_mib > free.memory_mib {
        missing.push(format!("{} MiB of memory free, {} needed", free.memory_mib, need.memory_mib));
    }
    if need.cpus > free.cpus {
        missing.push(format!("{} cpus free, {} needed", free.cpus, need.cpus));
    }
    if let Some(clash) = disk_clash(state, spec, node) {
        missing.push(clash);
    }
    if mutant::lives("capacity-checked-before-propose-only") {
        missing.clear();
    }
    if missing.is_empty() {
        let after = Capacity {
            cpus: reserved.cpus.saturating_add(need.cpus),
            memory_mib: reserved.memory_mib.saturating_add(need.memory_mib),
        };
        Ok(Candidate { node: node.clone(), offered, after })
    } else {
        Err(missing.join(" and "))
    }
}

/// A file that one VM writes belongs to that VM alone.
fn disk_clash(state: &ClusterState, spec: &VmSpec, node: &NodeName) -> Option<String> {
    for other in state.placed_on(node) {
        for disk in &spec.disks {
            let clash =
                other.spec.disks.iter().any(|o| o.path == disk.path && !(o.read_only && disk.read_only));
            if clash {
                return Some(format!("disk {} is in use by VM {}", disk.path, other.spec.name));
            }
        }
    }
    None
}
