//! What a node remembers of its VMs between two looks: how often what failed, and when it is tried again.

use std::collections::BTreeMap;

use blixard_model::backoff::VM_START;
use blixard_model::report::{LastEnd, REASON_LEN_MAX, cut_reason};
use blixard_model::{OrderId, VmName, mutant};

use super::action::{Action, ActionKind};

/// A VM that runs this long, in milliseconds, has recovered: the next failure is the first again.
pub const STABLE_MS: u64 = 60_000;

/// A unit whose VM the log does not know is told of for so long, in milliseconds, before it is stopped. It
/// may be somebody's experiment, or what is left of a cluster that was there before.
const UNKNOWN_GRACE_MS: u64 = 10_000;

/// A VM that ended this often without running for [`STABLE_MS`] in between is in a loop.
const CRASH_LOOP_FAILURES: u32 = 2;

/// What a node remembers of its VMs between two looks; lost with the agent, which is harmless.
#[derive(Debug, Default)]
pub struct Memory {
    vms: BTreeMap<VmName, Attempts>,
    /// Which order those runs were wanted to be by.
    orders: BTreeMap<VmName, OrderId>,
    /// The actions other than starts that failed: at most one for each VM, the one that is wanted.
    failed: BTreeMap<VmName, FailedAction>,
    /// Since when units run whose VMs the log does not know.
    unknown: BTreeMap<VmName, u64>,
    /// How far the machine's clock is ahead of the one that never goes back, in milliseconds.
    wall_ahead_ms: u64,
}

/// The runs of a VM that shall run.
#[derive(Debug, Default)]
struct Attempts {
    failures: u32,
    retry_at_ms: u64,
    running_since_ms: Option<u64>,
    last_failure: Option<String>,
    /// How it ended or failed the last time; kept when its failures are forgotten.
    last_end: Option<(String, u64)>,
    /// The last lines of the console before that.
    console: Option<String>,
}

/// An action that failed so many times in a row.
#[derive(Debug)]
struct FailedAction {
    kind: ActionKind,
    failures: u32,
    retry_at_ms: u64,
    why: String,
}

impl Memory {
    /// Notes that a start failed, or that a running VM ended by itself. True: it failed otherwise the time
    /// before, or did not fail.
    pub fn note_failure(&mut self, name: &VmName, reason: &str, now_ms: u64) -> bool {
        let attempts = self.vms.entry(name.clone()).or_default();
        attempts.failures = attempts.failures.saturating_add(1);
        attempts.retry_at_ms = now_ms.saturating_add(VM_START.pause_ms(attempts.failures));
        attempts.running_since_ms = None;
        attempts.console = None;
        attempts.last_end = Some((short(reason), now_ms.saturating_add(self.wall_ahead_ms)));
        let before = attempts.last_failure.replace(short(reason));
        before != attempts.last_failure
    }

    /// Notes that an action failed: it is tried again after a pause that grows with each failure. True: it
    /// failed otherwise the time before, or did not fail.
    pub fn note_failed_action(&mut self, action: &Action, why: &str, now_ms: u64) -> bool {
        let (name, kind) = (action.vm(), action.kind());
        if kind == ActionKind::Start {
            return self.note_failure(name, why, now_ms);
        }
        // It is told beside what is done to the unit, whose own failure is the one to show.
        let other = self.failed.get(name).is_some_and(|failed| failed.kind != kind);
        if kind == ActionKind::ConfirmSpec && other {
            return false;
        }
        let why = short(why);
        let before = self.failed.remove(name).filter(|failed| failed.kind == kind);
        let is_new = before.as_ref().is_none_or(|before| before.why != why);
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let retry_at_ms = now_ms.saturating_add(VM_START.pause_ms(failures));
        self.failed.insert(name.clone(), FailedAction { kind, failures, retry_at_ms, why });
        is_new
    }

    /// Notes that an action went well: the next failure is the first again. Not so for a start, after which
    /// the VM has to run for a while; it may have ended before anybody has seen it run.
    pub fn note_success(&mut self, action: &Action, now_ms: u64) {
        if let Action::Start(name) = action {
            self.note_running(name, now_ms);
        }
        if self.failed.get(action.vm()).is_some_and(|failed| failed.kind == action.kind()) {
            self.failed.remove(action.vm());
        }
    }

    /// Adds the last lines of the console to why it failed last.
    pub fn note_console(&mut self, name: &VmName, lines: &[String]) {
        if let Some(attempts) = self.vms.get_mut(name).filter(|_| !lines.is_empty()) {
            attempts.console = Some(lines.join(" | "));
        }
    }

    /// These units run, and the log does not know their VMs.
    pub(super) fn note_unknown<'a>(&mut self, names: impl Iterator<Item = &'a VmName>, now_ms: u64) {
        let before = std::mem::take(&mut self.unknown);
        let since = |name: &VmName| before.get(name).copied().unwrap_or(now_ms);
        self.unknown = names.map(|name| (name.clone(), since(name))).collect();
    }

    /// The units whose VMs the log does not know, each with when it is stopped.
    pub fn unknown(&self) -> impl Iterator<Item = (&VmName, u64)> {
        self.unknown.iter().map(|(name, since_ms)| (name, since_ms.saturating_add(UNKNOWN_GRACE_MS)))
    }

    /// Whether somebody may still have to see that this unit runs before it is stopped.
    pub(super) fn is_left_for_now(&self, name: &VmName, now_ms: u64) -> bool {
        let since_ms = self.unknown.get(name).filter(|_| !mutant::lives("unknown-stopped-at-once"));
        since_ms.is_some_and(|since_ms| now_ms < since_ms.saturating_add(UNKNOWN_GRACE_MS))
    }

    pub(super) fn note_clocks(&mut self, now_ms: u64, wall_ms: u64) {
        self.wall_ahead_ms = wall_ms.saturating_sub(now_ms);
    }

    /// How the VM ended or failed the last time, and how often in a row.
    pub(super) fn last_end(&self, name: &VmName) -> Option<LastEnd> {
        let attempts = self.vms.get(name)?;
        let (why, at_unix_ms) = attempts.last_end.clone()?;
        Some(LastEnd { why, at_unix_ms, failures: attempts.failures })
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

    /// What waits for a leader is due at once: there is one now.
    pub fn hurry_confirmations(&mut self) {
        let confirms = |kind| {
            matches!(kind, ActionKind::ConfirmGone | ActionKind::ConfirmSpec | ActionKind::ConfirmStop)
        };
        self.failed.retain(|_, failed| !confirms(failed.kind));
    }

    /// The runs of a VM count for the order that it is to obey: with another one the next run is the first.
    pub(super) fn note_order(&mut self, name: &VmName, order: OrderId) {
        if self.orders.insert(name.clone(), order).is_some_and(|before| before != order) {
            self.vms.remove(name);
        }
    }

    pub(super) fn retain_runs(&mut self, shall_run: impl Fn(&VmName) -> bool) {
        self.vms.retain(|name, _| shall_run(name));
        self.orders.retain(|name, _| shall_run(name));
    }

    /// Forgets the failures of actions that are not wanted any more.
    pub(super) fn retain_failed(&mut self, is_wanted: impl Fn(&VmName, ActionKind) -> bool) {
        self.failed.retain(|name, failed| is_wanted(name, failed.kind));
    }

    pub(super) fn note_running(&mut self, name: &VmName, now_ms: u64) {
        let attempts = self.vms.entry(name.clone()).or_default();
        let since = *attempts.running_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since) >= STABLE_MS {
            attempts.failures = 0;
            attempts.last_failure = None;
        }
    }

    /// Whether the pause after its last failure is over.
    pub(super) fn may_begin(&self, action: &Action, now_ms: u64) -> bool {
        let name = action.vm();
        let at_ms = match action.kind() {
            ActionKind::Start => self.vms.get(name).map(|attempts| attempts.retry_at_ms),
            kind => {
                let failed = self.failed.get(name).filter(|failed| failed.kind == kind);
                failed.filter(|_| !mutant::lives("only-starts-paced")).map(|failed| failed.retry_at_ms)
            }
        };
        at_ms.is_none_or(|at_ms| now_ms >= at_ms)
    }

    /// Why the VM does not run, as far as it is known, with the last lines of its console.
    pub(super) fn why_not_running(&self, name: &VmName) -> Option<String> {
        let attempts = self.vms.get(name)?;
        let failure = attempts.last_failure.as_ref()?;
        Some(
            attempts
                .console
                .as_ref()
                .map_or_else(|| failure.clone(), |console| short(&format!("{failure}: {console}"))),
        )
    }

    /// What is to be said of a VM that runs, but has ended by itself again and again: how often, and how the
    /// last time.
    pub(super) fn crash_looping(&self, name: &VmName) -> Option<String> {
        let attempts = self.vms.get(name).filter(|attempts| attempts.failures >= CRASH_LOOP_FAILURES)?;
        let failures = attempts.failures;
        let why = self.why_not_running(name)?;
        Some(short(&format!(
            "crash-looping: it ended or failed {failures} times in a row; the last time: {why}"
        )))
    }

    /// Why a VM that shall run and failed does not, how often it did in a row, and when it is started again.
    /// None: it did not fail. The reason alone is cut where all that gets too long.
    pub(super) fn failed(&self, name: &VmName, now_ms: u64) -> Option<String> {
        let mut why = self.why_not_running(name)?;
        let attempts = self.vms.get(name)?;
        let times = match attempts.failures {
            0 | 1 => String::new(),
            failures => format!("{failures} times in a row, the last time: "),
        };
        let next = next_try(attempts.retry_at_ms, now_ms);
        let room = REASON_LEN_MAX.saturating_sub(times.len() + 1 + next.len());
        why.truncate(why.floor_char_boundary(room));
        Some(format!("{times}{why} {next}"))
    }

    /// What is wanted of the VM's unit beside a start, but fails: what, why, and when it is tried again.
    pub(super) fn failing(&self, name: &VmName, now_ms: u64) -> Option<String> {
        let FailedAction { kind, retry_at_ms, why, .. } = self.failed.get(name)?;
        let what = match kind {
            ActionKind::Start => "it cannot be started",
            ActionKind::Stop => "it cannot be stopped",
            ActionKind::ResetFailed => "its failed unit cannot be reset",
            ActionKind::ConfirmGone => "it is gone, but the cluster cannot be told",
            ActionKind::ConfirmSpec => "its spec has changed, but the cluster cannot be told",
            ActionKind::ConfirmStop => "the cluster cannot be told",
        };
        Some(format!("{what}: {why} {}", next_try(*retry_at_ms, now_ms)))
    }
}

fn next_try(at_ms: u64, now_ms: u64) -> String {
    format!("(next try in {} s)", at_ms.saturating_sub(now_ms).div_ceil(1_000))
}

fn short(reason: &str) -> String {
    let mut reason = reason.to_owned();
    cut_reason(&mut reason);
    reason
}
