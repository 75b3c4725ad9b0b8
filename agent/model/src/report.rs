//! What a node sees of its VMs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fences::Fences;
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
    /// What ends its VMs once they may not run there any more. Left out until it was looked at, and by
    /// releases that do not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fences: Option<Box<Fences>>,
}

impl NodeReport {
    /// The same with these VMs: a page of it.
    #[must_use]
    pub fn with_vms(&self, vms: Vec<VmReport>) -> Self {
        let Self { node, vms: _, problem, fences } = self;
        Self { node: node.clone(), vms, problem: problem.clone(), fences: fences.clone() }
    }

    /// Cuts every reason in it to its bounds ([`REASON_LEN_MAX`] for that of a VM): whoever keeps a report
    /// does so, whoever wrote it.
    pub fn cut_reasons(&mut self) {
        for VmReport { reason, last_end, .. } in &mut self.vms {
            reason.iter_mut().chain(last_end.iter_mut().map(|end| &mut end.why)).for_each(cut_reason);
        }
        self.problem.iter_mut().for_each(cut_reason);
        self.fences.iter_mut().for_each(|fences| fences.cut());
    }
}

/// One VM unit as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "VmReportForm", into = "VmReportForm")]
pub struct VmReport {
    /// The VM.
    pub name: VmName,
    /// The state of its unit.
    pub state: ObservedState,
    /// The unit's main process.
    pub main_pid: Option<u32>,
    /// The revision of the spec that the state is reported for: the one that this node's log holds. Left out
    /// by releases that know no other than the first.
    pub revision: u64,
    /// Why, when there is something to say: "exited 1: ..." with the last console lines.
    pub reason: Option<String>,
    /// How it ended or failed the last time, as far as its node's agent has seen it.
    pub last_end: Option<LastEnd>,
}

/// How a VM that shall run ended by itself, or failed to start, the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// The reason.
    pub why: String,
    /// When its node saw it, in milliseconds since the Unix epoch by the clock of that node.
    pub at_unix_ms: u64,
    /// How often it has ended or failed in a row; 0 once it has run well for a while since.
    pub failures: u32,
}

/// A [`VmReport`] as it is written. A release that knows no [`ObservedState::Paused`] reads that the VM runs.
#[derive(Serialize, Deserialize)]
struct VmReportForm {
    name: VmName,
    state: ObservedState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    main_pid: Option<u32>,
    #[serde(default, skip_serializing_if = "is_zero")]
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_end: Option<LastEnd>,
}

impl From<VmReport> for VmReportForm {
    fn from(report: VmReport) -> Self {
        let VmReport { name, state, main_pid, revision, reason, last_end } = report;
        let paused = state == ObservedState::Paused;
        let state = if paused { ObservedState::Running } else { state };
        Self { name, state, main_pid, revision, reason, paused, last_end }
    }
}

impl From<VmReportForm> for VmReport {
    fn from(form: VmReportForm) -> Self {
        let VmReportForm { name, state, main_pid, revision, reason, paused, last_end } = form;
        let is_paused = paused && state == ObservedState::Running;
        let state = if is_paused { ObservedState::Paused } else { state };
        Self { name, state, main_pid, revision, reason, last_end }
    }
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
    /// The hypervisor runs and the guest stands still.
    Paused,
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
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_vm_is_one_that_runs_to_a_release_that_knows_no_pauses() {
        let report = VmReport {
            name: "web".parse().expect("a name"),
            state: ObservedState::Paused,
            main_pid: Some(7),
            revision: 0,
            reason: Some("disk0 /srv/a.raw: No space left on device".to_owned()),
            last_end: None,
        };
        let text = serde_json::to_string(&report).expect("json");
        assert!(text.contains(r#""state":"running""#) && text.contains(r#""paused":true"#), "{text}");
        assert_eq!(serde_json::from_str::<VmReport>(&text).expect("a report"), report);
        let runs = VmReport { state: ObservedState::Running, ..report };
        let text = serde_json::to_string(&runs).expect("json");
        assert!(!text.contains("paused"), "{text}");
        assert_eq!(serde_json::from_str::<VmReport>(&text).expect("a report"), runs);
    }
}
