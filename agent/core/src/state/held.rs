//! What a VM may still use by a spec that was changed.
//!
//! The log changes a spec at once; the unit that runs by the spec before is stopped some time later, or much
//! later if its node is cut off. Until the node has said that none does, what the earlier specs took stays
//! taken: another VM that was given the same disk would write it together with the unit that still runs.

use blixard_model::{Disk, VmSpec};
use serde::{Deserialize, Serialize};

/// Most disks that a VM holds by its earlier specs.
pub const HELD_DISKS_MAX: usize = 64;

/// What the earlier specs of a VM took.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct HeldSpec {
    /// The most virtual cpus of any.
    pub cpus: u32,
    /// The most memory that any reserved, in MiB.
    pub memory_mib: u64,
    /// The disks of all, by their paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// All of them asked for a lease: a unit that runs by one ends with that of its node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leased: bool,
    /// One of them did: a unit that runs by it may still do so under a lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_leased: bool,
}

impl HeldSpec {
    /// What this spec takes, as the only one.
    pub fn of(spec: &VmSpec) -> Self {
        Self { leased: true, ..Self::default() }.and(spec)
    }

    /// With what another spec takes.
    #[must_use]
    pub fn and(mut self, spec: &VmSpec) -> Self {
        self.cpus = self.cpus.max(spec.cpus);
        self.memory_mib = self.memory_mib.max(spec.reserved_memory_mib());
        self.leased &= spec.fails_over();
        self.any_leased |= spec.fails_over();
        for disk in &spec.disks {
            match self.disks.iter_mut().find(|held| held.path == disk.path) {
                Some(held) => held.read_only &= disk.read_only,
                None => self.disks.push(disk.clone()),
            }
        }
        self
    }
}
