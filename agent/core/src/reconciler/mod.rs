//! What a node does to its units so that they become what the log wants.
//!
//! ```text
//!   desired    unit                      action
//!   running    starting, running         -
//!              the same, by the order of another placement: stop, then start as wanted
//!              stopping                  wait
//!              stopped, failed, none     start (after a pause that grows with each failure)
//!   stopped    starting, running         stop
//!              failed                    forget the failure
//!   absent     starting, running         stop
//!              failed                    forget the failure
//!              stopped, none             confirm to the cluster that it is gone
//!   not ours   starting, running         stop (it was deleted while this node was away)
//! ```
//!
//! Nothing is done before the node has once read the log up to date since its agent started: an old log may
//! want what was deleted long ago, or not know what was made since.

mod ongoing;

use std::collections::BTreeMap;

use blixard_model::backoff::VM_START;
use blixard_model::report::{ObservedState, REASON_LEN_MAX, VmReport};
use blixard_model::{Desired, VmName, mutant};

use crate::ports::ObservedUnit;
use crate::state::VmRecord;

pub use ongoing::{ACTIONS_MAX, Ongoing};

/// A VM that runs this long, in milliseconds, has recovered: the next failure is the first again.
pub const STABLE_MS: u64 = 60_000;

/// One step towards the desired state. Steps for different VMs are independent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the unit.
    Start(VmName),
    /// Stop the unit.
    Stop(VmName),
    /// Forget how the unit failed.
    ResetFailed(VmName),
    /// Tell the cluster that the unit of an absent VM is gone.
    ConfirmGone(VmName),
}

/// The kinds of [`Action`]: each has its own share of what may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActionKind {
    /// [`Action::Start`].
    Start,
    /// [`Action::Stop`].
    Stop,
    /// [`Action::ResetFailed`].
    ResetFailed,
    /// [`Action::ConfirmGone`].
    ConfirmGone,
}

impl Action {
    /// Its kind.
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Start(_) => ActionKind::Start,
            Self::Stop(_) => ActionKind::Stop,
            Self::ResetFailed(_) => ActionKind::ResetFailed,
            Self::ConfirmGone(_) => ActionKind::ConfirmGone,
        }
    }

    /// The VM it is about.
    pub fn vm(&self) -> &VmName {
        match self {
            Self::Start(name) | Self::Stop(name) | Self::ResetFailed(name) | Self::ConfirmGone(name) => name,
        }
    }
}

/// What a node remembers of its VMs between two looks; lost with the agent, which is harmless.
#[derive(Debug, Default)]
pub struct Memory {
    vms: BTreeMap<VmName, Attempts>,
}

#[derive(Debug, Default)]
struct Attempts {
    failures: u32,
    retry_at_ms: u64,
    running_since_ms: Option<u64>,
    last_failure: Option<String>,
}

impl Memory {
    /// Notes that a start failed, or that a running VM ended by itself.
    pub fn note_failure(&mut self, name: &VmName, reason: &str, now_ms: u64) {
        let attempts = self.vms.entry(name.clone()).or_default();
        attempts.failures = attempts.failures.saturating_add(1);
        attempts.retry_at_ms = now_ms.saturating_add(VM_START.pause_ms(attempts.failures));
        attempts.running_since_ms = None;
        attempts.last_failure = Some(reason[..reason.floor_char_boundary(REASON_LEN_MAX)].to_owned());
    }

    /// Adds the last lines of the console to why it failed last.
    pub fn note_console(&mut self, name: &VmName, lines: &[String]) {
        let last = self.vms.get_mut(name).and_then(|attempts| attempts.last_failure.as_mut());
        if let Some(reason) = last.filter(|_| !lines.is_empty()) {
            *reason = format!("{reason}: {}", lines.join(" | "));
            reason.truncate(reason.floor_char_boundary(REASON_LEN_MAX));
        }
    }

    /// Whether the VM was seen running and has not been seen to end since.
    pub fn was_running(&self, name: &VmName) -> bool {
        self.vms.get(name).is_some_and(|attempts| attempts.running_since_ms.is_some())
    }

    /// Notes that the VM was stopped because somebody asked for it: its end is no failure, and the next start
    /// is the first again.
    pub fn note_stopped(&mut self, name: &VmName) {
        self.vms.remove(name);
    }

    fn note_running(&mut self, name: &VmName, now_ms: u64) {
        let attempts = self.vms.entry(name.clone()).or_default();
        let since = *attempts.running_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since) >= STABLE_MS {
            attempts.failures = 0;
            attempts.last_failure = None;
        }
    }

    fn may_start(&self, name: &VmName, now_ms: u64) -> bool {
        self.vms.get(name).is_none_or(|attempts| now_ms >= attempts.retry_at_ms)
    }
}

/// What a node looks at.
#[derive(Debug)]
pub struct NodeView<'a> {
    /// The VMs placed on this node, from the log.
    pub placed: &'a [&'a VmRecord],
    /// Its VM units, from the service manager.
    pub units: &'a [ObservedUnit],
    /// The log was read up to date at least once since the agent started.
    pub up_to_date: bool,
    /// Milliseconds of a clock that never goes back.
    pub now_ms: u64,
}

/// The ends that were not asked for: VMs seen running before that run no more while they should, and how they
/// ended as far as the service manager still knows.
pub fn unexpected_ends(view: &NodeView<'_>, memory: &Memory) -> Vec<(VmName, Option<String>)> {
    view.placed
        .iter()
        .filter(|vm| vm.desired == Desired::Running && memory.was_running(&vm.spec.name))
        .filter_map(|vm| match unit_of(view.units, &vm.spec.name) {
            None => Some((vm.spec.name.clone(), None)),
            Some(unit) => matches!(unit.state, ObservedState::Stopped | ObservedState::Failed)
                .then(|| (unit.name.clone(), unit.ended.clone())),
        })
        .collect()
}

/// Decides the next steps. Idempotent: the same view gives the same steps, and a step done makes its reason
/// vanish.
pub fn reconcile(view: &NodeView<'_>, memory: &mut Memory) -> Vec<Action> {
    // What shall not run has nothing to remember: its end is no failure.
    let shall_run =
        |name: &VmName| view.placed.iter().any(|vm| vm.spec.name == *name && vm.desired == Desired::Running);
    memory.vms.retain(|name, _| shall_run(name));
    for unit in view.units.iter().filter(|unit| unit.state == ObservedState::Running) {
        if shall_run(&unit.name) {
            memory.note_running(&unit.name, view.now_ms);
        }
    }
    if !view.up_to_date && !mutant::lives("acts-on-old-log") {
        return Vec::new();
    }
    let ours = view.placed.iter().filter_map(|vm| step(vm, unit_of(view.units, &vm.spec.name), memory, view));
    let strangers = view
        .units
        .iter()
        .filter(|unit| !view.placed.iter().any(|vm| vm.spec.name == unit.name))
        .filter(|unit| matches!(unit.state, ObservedState::Starting | ObservedState::Running))
        .map(|unit| Action::Stop(unit.name.clone()));
    ours.chain(strangers.filter(|_| !mutant::lives("strangers-left-running"))).collect()
}

/// Whether the unit runs by the order of another placement of that name: not the VM that is wanted. A unit
/// that shows no generation is taken for the wanted one, by its name.
fn is_of_another_placement(vm: &VmRecord, unit: &ObservedUnit) -> bool {
    unit.generation.is_some_and(|generation| generation != vm.placement.generation)
        && !mutant::lives("other-generation-kept")
}

fn unit_of<'a>(units: &'a [ObservedUnit], name: &VmName) -> Option<&'a ObservedUnit> {
    units.iter().find(|unit| unit.name == *name)
}

fn step(vm: &VmRecord, unit: Option<&ObservedUnit>, memory: &Memory, view: &NodeView<'_>) -> Option<Action> {
    let name = vm.spec.name.clone();
    let state = unit.map_or(ObservedState::Stopped, |unit| unit.state);
    let is_other = unit.is_some_and(|unit| is_of_another_placement(vm, unit));
    match (vm.desired, state) {
        (Desired::Running, ObservedState::Starting | ObservedState::Running) if is_other => {
            Some(Action::Stop(name))
        }
        (_, ObservedState::Stopping) => None,
        (Desired::Running, ObservedState::Stopped | ObservedState::Failed) => {
            memory.may_start(&name, view.now_ms).then_some(Action::Start(name))
        }
        (Desired::Running, _) => None,
        (Desired::Stopped | Desired::Absent, ObservedState::Starting | ObservedState::Running) => {
            Some(Action::Stop(name))
        }
        (Desired::Stopped | Desired::Absent, ObservedState::Failed) => Some(Action::ResetFailed(name)),
        (Desired::Absent, ObservedState::Stopped) => Some(Action::ConfirmGone(name)),
        (Desired::Stopped | Desired::Absent, _) => None,
    }
}

/// What this node tells the leader of its VMs.
pub fn report(view: &NodeView<'_>, memory: &Memory) -> Vec<VmReport> {
    view.placed.iter().map(|vm| report_vm(vm, unit_of(view.units, &vm.spec.name), memory, view)).collect()
}

fn report_vm(vm: &VmRecord, unit: Option<&ObservedUnit>, memory: &Memory, view: &NodeView<'_>) -> VmReport {
    let name = vm.spec.name.clone();
    let attempts = memory.vms.get(&name);
    let observed = unit.map_or(ObservedState::Stopped, |unit| unit.state);
    let main_pid = unit.and_then(|unit| unit.main_pid);
    let failure = attempts.and_then(|attempts| attempts.last_failure.clone());
    let idle = matches!(observed, ObservedState::Stopped | ObservedState::Failed);
    let (state, reason) = match vm.desired {
        Desired::Running if idle => match failure {
            Some(failure) => {
                let wait_ms = attempts.map_or(0, |a| a.retry_at_ms.saturating_sub(view.now_ms));
                let next = format!("{failure} (next try in {} s)", wait_ms.div_ceil(1_000));
                (ObservedState::Failed, Some(next))
            }
            None => (ObservedState::Pending, None),
        },
        Desired::Running if unit.is_some_and(|unit| is_of_another_placement(vm, unit)) => {
            let why = "it runs by the order of an earlier placement: stopped, then started as wanted";
            (ObservedState::Stopping, Some(why.to_owned()))
        }
        Desired::Running => (observed, failure.filter(|_| observed != ObservedState::Running)),
        Desired::Stopped if idle => (ObservedState::Stopped, None),
        Desired::Stopped => (observed, None),
        Desired::Absent => (ObservedState::Deleting, None),
    };
    VmReport { name, state, main_pid, reason }
}
