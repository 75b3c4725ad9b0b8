//! What a node is doing to its units: one action per VM at a time, a few at once.

use std::collections::BTreeSet;

use blixard_model::VmName;
use blixard_model::report::VmReport;

use super::{Action, Memory, NodeView, reconcile, report, unexpected_ends};

/// Most actions under way at once: starts are heavy.
pub const ACTIONS_MAX: usize = 8;

/// The actions under way, and what is remembered of those that ended. Lost with the agent, which is harmless.
#[derive(Debug, Default)]
pub struct Ongoing {
    memory: Memory,
    busy: BTreeSet<VmName>,
}

impl Ongoing {
    /// VMs that ended though they should run, and how; not those that something is being done to.
    pub fn unexpected_ends(&self, view: &NodeView<'_>) -> Vec<(VmName, Option<String>)> {
        let mut ends = unexpected_ends(view, &self.memory);
        ends.retain(|(name, _)| !self.busy.contains(name));
        ends
    }

    /// A VM ended though it should run, for this reason.
    pub fn note_end(&mut self, name: &VmName, reason: &str, now_ms: u64) {
        self.memory.note_failure(name, reason, now_ms);
    }

    /// The last lines of its console, which were fetched meanwhile.
    pub fn note_console(&mut self, name: &VmName, lines: &[String]) {
        self.memory.note_console(name, lines);
    }

    /// The actions to begin now. Each must end in [`Ongoing::note_done`].
    pub fn begin(&mut self, view: &NodeView<'_>) -> Vec<Action> {
        let mut actions = reconcile(view, &mut self.memory);
        actions.retain(|action| self.busy.len() < ACTIONS_MAX && self.busy.insert(action.vm().clone()));
        actions
    }

    /// An action ended; a start that failed has a reason.
    pub fn note_done(&mut self, action: &Action, failure: Option<&str>, now_ms: u64) {
        self.busy.remove(action.vm());
        if let Some(reason) = failure {
            self.memory.note_failure(action.vm(), reason, now_ms);
        }
        if matches!(action, Action::Stop(_)) {
            self.memory.note_stopped(action.vm());
        }
    }

    /// Nobody knows any more which actions are under way: they are taken for ended.
    pub fn forget_actions(&mut self) {
        self.busy.clear();
    }

    /// What this node tells the leader of its VMs.
    pub fn report(&self, view: &NodeView<'_>) -> Vec<VmReport> {
        report(view, &self.memory)
    }
}
