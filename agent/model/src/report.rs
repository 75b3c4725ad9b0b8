//! What a node sees of its VMs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{NodeName, VmName};
use crate::vm::is_zero;

/// Longest reason kept of one VM, in bytes.
pub const REASON_LEN_MAX: usize = 400;

/// Cuts a reason to [`REASON_LEN_MAX`].
pub fn cut_reason(reason: &mut String) {
    if reason.len() > REASON_LEN_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_LEN_MAX));
        // The rest would be held as long as this.
        reason.shrink_to_fit();
    }
}

/// What a node's systemd says about its VMs; sent to the leader, kept in memory there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node that reports.
    pub node: NodeName,
    /// Its VM units, by name.
    pub vms: Vec<VmReport>,
    /// Set when systemd itself could not be asked: then `vms` is the last that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl NodeReport {
    /// Cuts every reason in it to [`REASON_LEN_MAX`]: whoever keeps a report does so, whoever wrote it.
    pub fn cut_reasons(&mut self) {
        let reasons = self.vms.iter_mut().filter_map(|vm| vm.reason.as_mut());
        self.problem.iter_mut().chain(reasons).for_each(cut_reason);
    }
}

/// One VM unit as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmReport {
    /// The VM.
    pub name: VmName,
    /// The state of its unit.
    pub state: ObservedState,
    /// The unit's main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<u32>,
    /// The revision of the spec that the state is reported for: the one that this node's log holds. Left out
    /// by releases that know no other than the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// Why, when there is something to say: "exited 1: ..." with the last console lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The observed state of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedState {
    /// Its node has not taken it up yet.
    Pending,
    /// The unit is activating: the hypervisor does not say running yet.
    Starting,
    /// The hypervisor says running.
    Running,
    /// The unit is deactivating.
    Stopping,
    /// No process.
    Stopped,
    /// The unit failed, or could not be started.
    Failed,
    /// Being deleted.
    Deleting,
    /// Its node does not report: it may run or not.
    Unknown,
}

impl fmt::Display for ObservedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
            Self::Unknown => "unknown",
        })
    }
}
