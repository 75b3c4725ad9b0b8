//! A report with its time.

use blixard_model::report::NodeReport;
use blixard_model::wire::AgedReport;

/// A report, and when its node looked: on this node's clock.
#[derive(Debug, Clone)]
pub(super) struct SeenReport {
    pub(super) at_ms: u64,
    /// When the report came.
    pub(super) came_ms: u64,
    pub(super) report: NodeReport,
    /// Another one for each report of that node.
    pub(super) version: u64,
}

impl SeenReport {
    pub(super) fn aged(&self, now_ms: u64) -> AgedReport {
        AgedReport { report: self.report.clone(), age_ms: now_ms.saturating_sub(self.at_ms) }
    }
}
