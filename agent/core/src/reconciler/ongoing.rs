//! What a node is doing to its units: one action per unit at a time, except that a stop supersedes a start, a
//! few of each kind at once, and beside them what the cluster is told of changed specs.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::report::VmReport;
use blixard_model::{OrderId, VmName, mutant};

use super::{Action, ActionKind, Memory, UnitsView, reconcile, report, unexpected_ends};

/// Most actions of one kind under way at once: starts are heavy. Each kind has its own share, so that slow
/// stops, or confirmations that wait for a leader, keep no VM from being started.
pub const ACTIONS_MAX: usize = 8;

/// The actions under way, those that wait for a place, and what is remembered of those that ended. Lost with
/// the agent, which is harmless.
#[derive(Debug, Default)]
pub struct Ongoing {
    memory: Memory,
    /// What is being done to the units.
    busy: BTreeMap<VmName, ActionKind>,
    /// The VMs whose start was under way when a stop was begun: what comes of it does not matter any more.
    superseded: BTreeSet<VmName>,
    /// The VMs of which the cluster is being told that no unit runs by an earlier spec.
    confirming: BTreeMap<VmName, OrderId>,
    /// Those of which it was told, and by which order they were to run: the log here may be behind.
    confirmed: BTreeMap<VmName, OrderId>,
    /// How many looks at the units were asked for.
    looks: u64,
    /// The VMs to whose units something was done, each with the look that was the last one then: neither that
    /// one nor an earlier one need show what came of it.
    ended: BTreeMap<VmName, u64>,
    /// The actions that found no place, each with the time since when it is wanted.
    waiting: BTreeMap<VmName, (ActionKind, u64)>,
}

impl Ongoing {
    /// VMs that ended though they should run, and how; not those that something is being done to, or was done
    /// to after the units were asked for.
    pub fn unexpected_ends(&self, view: &UnitsView<'_>) -> Vec<(VmName, Option<String>)> {
        let mut ends = unexpected_ends(view, &self.memory);
        let is_outdated = |name: &VmName| self.ended.get(name).is_some_and(|look| *look >= view.look);
        ends.retain(|(name, _)| !self.busy.contains_key(name) && !is_outdated(name));
        ends
    }

    /// The units whose VMs the log does not know, each with when it is stopped.
    pub fn unknown(&self) -> impl Iterator<Item = (&VmName, u64)> {
        self.memory.unknown()
    }

    /// A VM ended though it should run, for this reason.
    pub fn note_end(&mut self, name: &VmName, reason: &str, now_ms: u64) {
        self.memory.note_failure(name, reason, now_ms);
    }

    /// The last lines of its console, which were fetched meanwhile.
    pub fn note_console(&mut self, name: &VmName, lines: &[String]) {
        self.memory.note_console(name, lines);
    }

    /// The actions to begin now: those that have waited longest come first. Each must end in
    /// [`Ongoing::note_done`].
    pub fn begin(&mut self, view: &UnitsView<'_>) -> Vec<Action> {
        let mut wanted = reconcile(view, &mut self.memory);
        let holding = view.placed.iter().filter(|vm| vm.held.is_some());
        let holding: BTreeMap<&VmName, OrderId> = holding.map(|vm| (&vm.spec.name, vm.order_id())).collect();
        self.confirmed.retain(|name, order| holding.get(name) == Some(order));
        self.ended.retain(|_, look| *look >= view.look);
        wanted.retain(|action| self.may_begin(action));
        let before = std::mem::take(&mut self.waiting);
        let since = |action: &Action| {
            let waited = before.get(action.vm()).filter(|(kind, _)| *kind == action.kind());
            waited.map_or(view.now_ms, |(_, since)| *since)
        };
        // Those that have waited equally long stay in the order of their names.
        wanted.sort_by_key(since);
        let mut begun = Vec::new();
        for action in wanted {
            let kind = action.kind();
            if self.under_way(kind) < ACTIONS_MAX {
                match &action {
                    Action::ConfirmSpec(name) => {
                        let Some(order) = holding.get(name) else { continue };
                        self.confirming.insert(name.clone(), *order);
                    }
                    _ => {
                        if self.busy.insert(action.vm().clone(), kind) == Some(ActionKind::Start) {
                            self.superseded.insert(action.vm().clone());
                        }
                    }
                }
                begun.push(action);
            } else {
                let since = since(&action);
                self.waiting.insert(action.vm().clone(), (kind, since));
            }
        }
        begun
    }

    fn under_way(&self, kind: ActionKind) -> usize {
        match kind {
            ActionKind::ConfirmSpec => self.confirming.len(),
            kind => self.busy.values().filter(|busy| **busy == kind).count(),
        }
    }

    /// The units are asked for: the answer shows what came of everything that ended before. Returns the
    /// number of the look, for [`UnitsView::look`]. Views have to come in the order of their looks.
    pub fn note_asked(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }

    /// The number of the last look that was asked for.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// One step of a VM at a time; but a VM is started and stopped while the cluster is told of its changed
    /// spec, and a stop does not wait for a start, which may take a minute. Nothing is confirmed by a look
    /// that was asked for before something was done to the unit: it may show the unit as it was.
    fn may_begin(&self, action: &Action) -> bool {
        let name = action.vm();
        let is_outdated = self.ended.contains_key(name) && !mutant::lives("confirmed-by-an-old-look");
        let is_told = self.confirming.contains_key(name) || self.confirmed.contains_key(name);
        match action {
            Action::ConfirmGone(_) | Action::ConfirmStop(..) if is_outdated => false,
            Action::ConfirmSpec(_) if is_outdated || is_told => false,
            Action::Stop(_) if !mutant::lives("stop-waits-for-start") => {
                self.busy.get(name).is_none_or(|busy| *busy == ActionKind::Start)
            }
            _ => !self.busy.contains_key(name) && !self.superseded.contains(name),
        }
    }

    /// An action ended, with why if it failed. True: it failed, and not as the time before.
    pub fn note_done(&mut self, action: &Action, failure: Option<&str>, now_ms: u64) -> bool {
        if matches!(action, Action::Start(name) if self.superseded.remove(name)) {
            self.ended.insert(action.vm().clone(), self.looks);
            return false;
        }
        match action {
            Action::ConfirmSpec(name) => {
                let told = self.confirming.remove(name).filter(|_| failure.is_none());
                if let Some(order) = told {
                    self.confirmed.insert(name.clone(), order);
                }
            }
            _ => {
                self.busy.remove(action.vm());
                self.ended.insert(action.vm().clone(), self.looks);
            }
        }
        let is_new = match failure {
            Some(why) => self.memory.note_failed_action(action, why, now_ms),
            None => {
                self.memory.note_success(action, now_ms);
                false
            }
        };
        if matches!(action, Action::Stop(_)) {
            self.memory.note_stopped(action.vm());
        }
        is_new
    }

    /// There is another leader: what waits for one is tried at once.
    pub fn note_leader(&mut self) {
        self.memory.hurry_confirmations();
    }

    /// What this node tells the leader of its VMs.
    pub fn report(&self, view: &UnitsView<'_>) -> Vec<VmReport> {
        report(view, &self.memory)
    }
}
