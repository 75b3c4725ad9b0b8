//! A VM in the log.

use blixard_model::vm::{is_zero, is_zero_u32};
use blixard_model::{Desired, Disk, NotedStop, OrderId, Placement, VmSpec};
use serde::{Deserialize, Serialize};

use super::held::HeldSpec;

/// A VM as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmRecord {
    /// The wanted VM.
    pub spec: VmSpec,
    /// Whether it shall run.
    pub desired: Desired,
    /// Where it may run.
    pub placement: Placement,
    /// The log index of the command that last changed the spec; 0 while it is as the VM was made with.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// The [`lineage`](super::ClusterState::lineage) of the cluster that placed or changed it last.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub lineage: u32,
    /// What its earlier specs took, until its node has said that no unit runs by any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldSpec>,
    /// Why it is not wanted to run, if that is its node's word and nobody has told it to start since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<NotedStop>,
}

impl VmRecord {
    /// Which order its unit is to obey.
    pub fn order_id(&self) -> OrderId {
        OrderId { generation: self.placement.generation, revision: self.revision, lineage: self.lineage }
    }

    /// The virtual cpus that are reserved for it.
    pub fn reserved_cpus(&self) -> u32 {
        self.spec.cpus.max(self.held.as_ref().map_or(0, |held| held.cpus))
    }

    /// The memory that is reserved for it, in MiB.
    pub fn reserved_memory_mib(&self) -> u64 {
        self.spec.reserved_memory_mib().max(self.held.as_ref().map_or(0, |held| held.memory_mib))
    }

    /// The disks that are its; one that a spec may write stands there as one that is written.
    pub fn reserved_disks(&self) -> impl Iterator<Item = &Disk> {
        self.spec.disks.iter().chain(self.held.iter().flat_map(|held| &held.disks))
    }

    /// Whether a unit of it may run under a lease: by its spec, or by an earlier one.
    pub fn may_run_under_a_lease(&self) -> bool {
        self.spec.fails_over() || self.held.as_ref().is_some_and(|held| held.leased || held.any_leased)
    }

    /// What is held once it has another spec.
    pub(super) fn held_after_change(&self) -> HeldSpec {
        match &self.held {
            Some(held) => held.clone().and(&self.spec),
            None => HeldSpec::of(&self.spec),
        }
    }
}
