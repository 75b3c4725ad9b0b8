//! Whether the machine has to be restarted, because SIGKILL did not end a VM whose lease is over.
//!
//! ```text
//!   allowed ── its lease ends, or is taken away ──▶ overdue ── 5 s ──▶ killed here ── 1 s ──▶ restart
//!      ▲                                               │
//!      └────────── a later lease allows it ────────────┘         gone at any time: forgotten
//! ```
//!
//! What is watched is processes and not units: a process that was in the unit of a VM when the lease allowed
//! that VM, and is there still when the lease is over and everybody else had the time to end it. It is killed
//! once more before anything else is done, so that a mistake costs a VM and not the machine.

use std::collections::BTreeMap;

use blixard_model::{LeaseFile, LeaseTerms, VmName};

use crate::lease::{LeaseNeed, LeasePermission};

/// How long its supervisor and systemd have for it, in milliseconds after the end of the lease.
const OTHERS_MS: u64 = LeaseTerms::DEFAULT.stop_ms;
/// How long SIGKILL has for it after that, in milliseconds. The leader starts the VM elsewhere a second later
/// at the earliest.
const KILL_MS: u64 = 1_000;
/// Most time that counts between two looks, in milliseconds: in a longer pause nobody ran.
const GAP_MS: u64 = 500;
/// Most processes that are named.
const NAMED_MAX: usize = 4;

/// A process, not to be taken for a later one with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Its number.
    pub pid: i32,
    /// When it was started, in ticks of the kernel.
    pub started: u64,
}

/// What is seen of the machine.
#[derive(Debug, Clone, Default)]
pub struct LastResortLook {
    /// Milliseconds of CLOCK_BOOTTIME, which the lease is written in.
    pub now_ms: u64,
    /// Milliseconds of CLOCK_MONOTONIC, which does not count while the machine is suspended.
    pub awake_ms: u64,
    /// The lease of the node; none if it cannot be read.
    pub lease: Option<LeaseFile>,
    /// The processes in units of VMs.
    pub processes: BTreeMap<ProcessKey, VmName>,
    /// What the VMs of running units need a lease for, as their orders say; looked at after the processes.
    pub needs: BTreeMap<VmName, LeaseNeed>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastResortEffect {
    /// This is to be said.
    Say(String),
    /// These processes get a SIGKILL.
    Kill(Vec<ProcessKey>),
    /// The machine is restarted at once.
    Restart,
}

/// What the lease says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessTerm {
    /// It was never allowed to run: its guest does not.
    Never,
    /// It may run, or might until now and no file has said since that it may not.
    Until(u64),
    /// It may run without an end.
    Endless,
    /// Its right was taken away.
    Revoked,
}

#[derive(Debug, Clone)]
struct WatchedProcess {
    vm: VmName,
    need: LeaseNeed,
    term: ProcessTerm,
    /// Its lease was over at the last look.
    was_over: bool,
    /// For how long it is there although its lease is over, in milliseconds in which the machine was awake.
    overdue_ms: u64,
}

impl WatchedProcess {
    fn note(&mut self, now_ms: u64, lease: Option<&LeaseFile>) {
        self.term = match self.need.permission(Ok(lease.cloned())) {
            // One that begins after the end of a lease does not run by it.
            LeasePermission::Until(until_ms) if now_ms >= until_ms && self.term == ProcessTerm::Never => {
                ProcessTerm::Never
            }
            LeasePermission::Until(until_ms) => ProcessTerm::Until(until_ms),
            LeasePermission::Endless => ProcessTerm::Endless,
            LeasePermission::Denied(why) if why.revokes() && self.term != ProcessTerm::Never => {
                ProcessTerm::Revoked
            }
            LeasePermission::Denied(_) => self.term,
        };
    }

    fn is_over(&self, now_ms: u64) -> bool {
        match self.term {
            ProcessTerm::Never | ProcessTerm::Endless => false,
            ProcessTerm::Until(until_ms) => now_ms >= until_ms,
            ProcessTerm::Revoked => true,
        }
    }
}

/// What is known of the processes of VMs that need a lease.
#[derive(Debug, Default)]
pub struct LastResort {
    processes: BTreeMap<ProcessKey, WatchedProcess>,
    looked_ms: Option<u64>,
    /// What was killed and said so.
    told: Vec<ProcessKey>,
}

impl LastResort {
    /// Takes a look and says what is to be done.
    pub fn look(&mut self, look: &LastResortLook) -> Vec<LastResortEffect> {
        let passed_ms = self.looked_ms.map_or(0, |last| look.awake_ms.saturating_sub(last)).min(GAP_MS);
        self.looked_ms = Some(look.awake_ms);
        self.processes.retain(|key, _| look.processes.contains_key(key));
        for (key, vm) in &look.processes {
            // The order of a unit that is started anew is not that of a process that was left over.
            let Some(need) = look.needs.get(vm).filter(|_| !self.processes.contains_key(key)) else {
                continue;
            };
            let (vm, need, term) = (vm.clone(), need.clone(), ProcessTerm::Never);
            self.processes.insert(*key, WatchedProcess { vm, need, term, was_over: false, overdue_ms: 0 });
        }
        for process in self.processes.values_mut() {
            process.note(look.now_ms, look.lease.as_ref());
            let is_over = process.is_over(look.now_ms);
            // Of the time before the first look that found it over nobody knows how much counts.
            let counts = is_over && process.was_over;
            process.overdue_ms = if counts { process.overdue_ms.saturating_add(passed_ms) } else { 0 };
            process.was_over = is_over;
        }
        self.effects()
    }

    /// Whether any process is there that is to be watched closely.
    pub fn watches(&self) -> bool {
        !self.processes.is_empty()
    }

    fn effects(&mut self) -> Vec<LastResortEffect> {
        let overdue = |least_ms: u64| {
            let late = self.processes.iter().filter(move |(_, process)| process.overdue_ms >= least_ms);
            late.map(|(key, _)| *key).collect::<Vec<ProcessKey>>()
        };
        let (kill, stuck) = (overdue(OTHERS_MS), overdue(OTHERS_MS + KILL_MS));
        let mut effects = Vec::new();
        if kill.iter().any(|key| !self.told.contains(key)) {
            effects.push(LastResortEffect::Say(format!(
                "{} still there {OTHERS_MS} ms after the end of the lease: killing it; if that does not help \
                 within {KILL_MS} ms, this machine is restarted (last_resort = \"reboot\")",
                self.named(&kill)
            )));
        }
        self.told.clone_from(&kill);
        if !kill.is_empty() {
            effects.push(LastResortEffect::Kill(kill));
        }
        if !stuck.is_empty() {
            effects.push(LastResortEffect::Say(format!(
                "{} not ended by SIGKILL, and other nodes start what runs here: restarting this machine NOW",
                self.named(&stuck)
            )));
            effects.push(LastResortEffect::Restart);
        }
        effects
    }

    fn named(&self, keys: &[ProcessKey]) -> String {
        let name = |key: &ProcessKey| {
            let vm = self.processes.get(key).map(|process| process.vm.to_string()).unwrap_or_default();
            format!("process {} of VM {vm}", key.pid)
        };
        let names: Vec<String> = keys.iter().take(NAMED_MAX).map(name).collect();
        let more = keys.len().saturating_sub(NAMED_MAX);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{}{more}:", names.join(", "))
    }
}

#[cfg(test)]
mod tests;
