//! The launch order: what the agent writes for one VM and `blixard vm-run` reads.

use serde::{Deserialize, Serialize};

use crate::id::ClusterId;
use crate::vm::{Accel, OrderId, VmSpec, is_zero, is_zero_u32};

/// Everything the launcher needs to run one VM on this node; written as JSON to `/run/blixard/vms/NAME.json`
/// and handed to the unit as the credential `order`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchOrder {
    /// The wanted VM.
    pub vm: VmSpec,
    /// This node's accelerator.
    pub accel: Accel,
    /// Path or name of the QEMU program.
    pub qemu: String,
    /// Disks outside these directories are refused.
    pub disk_dirs: Vec<String>,
    /// Those of them whose files other nodes have as well. A file there is known to the cluster by its path
    /// below this one, and is refused under any other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_dirs: Vec<String>,
    /// The placement's generation. The unit shows it while it runs: a unit that shows another one than the
    /// cluster's state says is stopped and started anew.
    pub generation: u64,
    /// The spec's revision, which the unit shows as well; 0 for the spec that the VM was made with. Releases
    /// that know no other leave it out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// The order's [`OrderId::lineage`], which the unit shows as well.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub lineage: u32,
    /// Set for a VM that may be failed over: it runs only while the [`LeaseFile`](crate::LeaseFile) of this
    /// cluster allows its generation. Left out for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<ClusterId>,
}

impl LaunchOrder {
    /// Which order it is.
    pub fn id(&self) -> OrderId {
        OrderId { generation: self.generation, revision: self.revision, lineage: self.lineage }
    }
}
