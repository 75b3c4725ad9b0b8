//! A node's side: its lease, and the file that its supervisors obey.

use std::collections::BTreeMap;

use blixard_model::{
    BootId, ClusterId, Desired, GrantId, HoldAsk, LeaseFile, LeaseGrant, LeaseRenewal, LeaseTerms, NodeName,
    RaftId, VmName, mutant,
};

use crate::state::{ClusterState, DisarmedCluster, LeaseHold, LeaseHolder};

/// Most grants that wait for the log to be applied.
const WAITING_MAX: usize = 8;
/// A file that could not be written is written again after this time, in milliseconds.
const WRITE_AGAIN_MS: u64 = 1_000;
/// A file that stays the same is written again after this part of the time after which every supervisor has
/// to know what it says: one that was lost or replaced would not be mended otherwise.
const REWRITES: u64 = 6;
/// A renewal that was not answered is sent again after this time, in milliseconds, at least.
const RETRY_MS: u64 = 300;
/// What the log is to be told is told again after this time, in milliseconds.
const TELL_AGAIN_MS: u64 = 2_000;
/// A long lease that ends so little before a cluster is armed again, in milliseconds, is not replaced.
const HOLD_SLACK_MS: u64 = 5_000;

/// What a node knows when it looks at its lease.
#[derive(Debug, Clone, Copy)]
pub struct LeaseStep<'a> {
    /// The present time.
    pub now_ms: u64,
    /// The replicated state, as far as it is applied here.
    pub state: &'a ClusterState,
    /// How far that is.
    pub applied: u64,
    /// This node's raft id.
    pub raft_id: RaftId,
    /// The log was read up to date since the agent started.
    pub up_to_date: bool,
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// Whether a VM of this generation, which needs a lease, may run now by what its node's supervisors know.
pub fn permits(file: Option<&LeaseFile>, now_ms: u64, vm: &VmName, generation: u64) -> bool {
    let listed = |file: &&LeaseFile| file.vms.get(vm) == Some(&generation);
    let holds = |file: &LeaseFile| file.until_ms.is_none_or(|until_ms| now_ms < until_ms);
    file.filter(listed).is_some_and(holds)
}

/// What an agent that starts finds of leases on its machine.
#[derive(Debug, Clone, Default)]
pub struct LeaseFound {
    /// The file that an earlier agent left.
    pub file: Option<LeaseFile>,
    /// Units of VMs are there. Their supervisors may know of a file that is gone.
    pub units_run: bool,
}

impl From<Option<LeaseFile>> for LeaseFound {
    fn from(file: Option<LeaseFile>) -> Self {
        Self { file, units_run: false }
    }
}

/// A node's lease.
#[derive(Debug)]
pub struct Holder {
    node: NodeName,
    boot_id: BootId,
    cluster_id: ClusterId,
    /// Those of the cluster unless somebody chose others, and those that hold.
    usual: LeaseTerms,
    terms: LeaseTerms,
    /// The newest grant of this boot that counts.
    newest: Option<GrantId>,
    /// Grants that count once the log is applied to their index, each with when it ends.
    waiting: Vec<(LeaseGrant, u64)>,
    /// Until when it has a lease that this agent was granted and that counts.
    granted_ms: Option<u64>,
    /// Until when it has one that an earlier agent left or that it gave itself; the first grant replaces it.
    until_ms: Option<u64>,
    /// The agent is about to end in order, and has asked at this time to run its VMs for so long.
    leaving: Option<(u64, u64)>,
    /// Since when the file allows no more than a lease.
    short_since_ms: Option<u64>,
    /// The long lease that the log knows, by its index, and when that was seen first.
    hold_seen: Option<(u64, u64)>,
    /// The entry that disarmed the cluster, by its index, and when that was seen first.
    disarm_seen: Option<(u64, u64)>,
    /// What the file says.
    written: Option<LeaseFile>,
    /// An agent that starts says what it knows, also if that is the same: what it found may not be what the
    /// supervisors read.
    confirmed: bool,
    /// Supervisors that were allowed to run without an end know of the end by then, or are gone.
    settled_ms: u64,
    /// It has not looked at the log yet since it started.
    begins: bool,
    /// An earlier agent of this boot left a file, or this one gave itself a lease. It may go on doing so
    /// until all supervisors know of the end.
    found: bool,
    /// Units of VMs were there when this agent started.
    units_run: bool,
    /// The time of enforcement at which this boot may have said already that it obeys leases.
    enforcing: Option<u64>,
    /// What is being written.
    writing: Option<LeaseFile>,
    write_again_ms: u64,
    rewrite_ms: u64,
    renew_ms: u64,
    tell_ms: u64,
    tell_hold_ms: u64,
    /// The term in which a leader was last known.
    led_in: u64,
}

impl Holder {
    /// A node's lease as its agent starts, with what an earlier agent may have left.
    pub fn new(
        node: NodeName,
        (boot_id, cluster_id): (BootId, ClusterId),
        terms: LeaseTerms,
        left: LeaseFound,
        now_ms: u64,
    ) -> Self {
        let any_boot = mutant::lives("found-file-of-another-boot");
        let is_own = |file: &LeaseFile| file.boot_id == boot_id || any_boot;
        let written = left.file.filter(|file| is_own(file) && file.cluster_id == cluster_id);
        let found = written.is_some();
        Self {
            node,
            boot_id,
            cluster_id,
            usual: terms,
            terms,
            newest: written.as_ref().and_then(|file| file.grant),
            waiting: Vec::new(),
            granted_ms: None,
            until_ms: written.as_ref().and_then(|file| file.until_ms),
            leaving: None,
            short_since_ms: None,
            hold_seen: None,
            disarm_seen: None,
            enforcing: written.as_ref().and_then(|file| file.enforces),
            written,
            confirmed: false,
            settled_ms: now_ms,
            begins: true,
            found,
            units_run: left.units_run,
            writing: None,
            write_again_ms: now_ms,
            rewrite_ms: now_ms,
            renew_ms: now_ms,
            tell_ms: now_ms,
            tell_hold_ms: now_ms,
            led_in: 0,
        }
    }

    /// What the supervisors of this node's VMs know.
    pub fn file(&self) -> Option<&LeaseFile> {
        self.written.as_ref()
    }

    /// The renewal that is due. What comes of it is counted from now on.
    pub fn renewal(&mut self, step: LeaseStep<'_>) -> Option<LeaseRenewal> {
        let may = step.state.leases.may_hold(&self.node, step.raft_id, self.boot_id).is_some();
        if !may || !step.up_to_date || step.now_ms < self.renew_ms {
            return None;
        }
        self.renew_ms = step.now_ms.saturating_add(self.terms.renewal_ms());
        let quote = self.written.as_ref().and_then(|file| file.grant);
        Some(LeaseRenewal { boot_id: self.boot_id, quote })
    }

    /// The renewal that was sent last was not answered, or the answer says to come again in so many
    /// milliseconds.
    pub fn retry(&mut self, now_ms: u64, wait_ms: Option<u64>) {
        let wait_ms = wait_ms.unwrap_or(0).clamp(RETRY_MS, self.terms.renewal_ms().max(RETRY_MS));
        self.renew_ms = self.renew_ms.min(now_ms.saturating_add(wait_ms));
    }

    /// There is a leader in this term. One that has not been asked yet is asked at once.
    pub fn hurry_once(&mut self, now_ms: u64, term: u64) {
        if std::mem::replace(&mut self.led_in, term) != term {
            self.renew_ms = self.renew_ms.min(now_ms);
            self.tell_ms = self.tell_ms.min(now_ms);
        }
    }

    /// The renewal that was sent at this time was granted.
    pub fn note_granted(&mut self, sent_ms: u64, granted: LeaseGrant) {
        let begins_ms = sent_ms;
        let until_ms = begins_ms.saturating_add(granted.length_ms);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.remove(0);
        }
        self.waiting.push((granted, until_ms));
    }

    /// What the log is to be told of this node: that it obeys leases, at this time of enforcement.
    pub fn enforces(&mut self, step: LeaseStep<'_>) -> Option<u64> {
        let epoch = step.state.leases.epoch;
        let is_noted = self.written.as_ref().is_some_and(|file| file.enforces == Some(epoch));
        let early = mutant::lives("enforces-before-the-file");
        let may = early || is_noted && self.writing.is_none() && self.may_enforce(step);
        if !may || !self.lacks_holder(step) || !step.up_to_date || step.now_ms < self.tell_ms {
            return None;
        }
        self.tell_ms = step.now_ms.saturating_add(TELL_AGAIN_MS);
        Some(epoch)
    }

    /// Leases are on, and the log does not know yet that this boot obeys them.
    fn lacks_holder(&self, step: LeaseStep<'_>) -> bool {
        let leases = &step.state.leases;
        leases.is_on && leases.may_hold(&self.node, step.raft_id, self.boot_id).is_none()
    }

    /// Whether every supervisor knows of an end that is no later than that of a lease.
    fn may_enforce(&self, step: LeaseStep<'_>) -> bool {
        // What the log knows to be longer stays known: that of another store of this boot, too.
        let is_of = |hold: &LeaseHold| hold.boot_id == self.boot_id;
        let own = step.state.leases.holder(&self.node).filter(|holder| holder.boot_id == self.boot_id);
        let held_ms = own.and_then(|holder| holder.hold.filter(is_of)?.until_ms()).unwrap_or(0);
        let longest_ms = step.now_ms.saturating_add(self.terms.lease_ms).max(held_ms);
        let until_ms = self.written.as_ref().and_then(|file| file.until_ms);
        let is_short = until_ms.is_some_and(|until_ms| until_ms <= longest_ms);
        let has_settled = step.now_ms >= self.settled_ms || mutant::lives("settling-not-waited-out");
        self.confirmed && is_short && has_settled
    }

    /// The file to be written, if another one than there is.
    pub fn look(&mut self, step: LeaseStep<'_>) -> Option<LeaseFile> {
        let early = mutant::lives("lease-before-its-index");
        let counts = |(grant, _): &(LeaseGrant, u64)| grant.grant.index <= step.applied || early;
        let counted = self.waiting.iter().filter(|it| counts(it));
        let newest = counted.clone().map(|(granted, _)| granted.grant).max();
        let until_ms = counted.map(|(_, until_ms)| *until_ms).max();
        let before_ms = self.terms.lease_ms;
        self.terms = self.usual.with(step.state.leases.terms);
        if self.terms.lease_ms < before_ms {
            // What was short by the terms before is not any more.
            self.short_since_ms = None;
            self.renew_ms = self.renew_ms.min(step.now_ms);
        }
        self.newest = self.newest.max(newest);
        // By shorter terms a new grant takes the place of a longer one.
        let longest_ms = step.now_ms.saturating_add(self.terms.lease_ms);
        let stays = |granted_ms: &u64| until_ms.is_none() || *granted_ms <= longest_ms;
        self.granted_ms = self.granted_ms.filter(stays).max(until_ms);
        self.waiting.retain(|it| !counts(it));
        if self.writing.is_some() || step.now_ms < self.write_again_ms || !step.up_to_date {
            return None;
        }
        let until_ms = self.until_wanted(step);
        let (boot_id, cluster_id) = (self.boot_id, self.cluster_id);
        let epoch = step.state.leases.epoch;
        if self.lacks_holder(step) && self.may_enforce(step) {
            self.enforcing = Some(epoch);
        }
        let enforces = self.enforcing.filter(|at| *at == epoch);
        let vms = BTreeMap::new();
        let mut wanted = LeaseFile { boot_id, cluster_id, until_ms, grant: self.newest, enforces, vms };
        // Asked at every turn: the list of VMs is made only when it is to be written.
        let is_same = self.confirmed && self.says(&wanted, step.state);
        if is_same && step.now_ms < self.rewrite_ms {
            return None;
        }
        let listed = self.listed(step.state);
        wanted.vms = listed.map(|(name, generation)| (name.clone(), generation)).collect();
        self.writing = Some(wanted.clone());
        Some(wanted)
    }

    /// Until when the VMs may run, without an end while leases are not enforced.
    ///
    /// When enforcement begins the node gives itself a lease, and goes on doing so until all supervisors know
    /// of it: nobody takes its VMs over before it has said that it obeys leases, and whoever does so later
    /// waits from when it was said.
    fn until_wanted(&mut self, step: LeaseStep<'_>) -> Option<u64> {
        if !step.state.leases.is_on {
            (self.until_ms, self.granted_ms) = (None, None);
            self.waiting.clear();
            return None;
        }
        // Once somebody has said under this name that it obeys leases, it is the leader's to grant them.
        let is_nobodys = step.state.leases.holder(&self.node).is_none();
        let may_be_known = self.found || self.units_run && !mutant::lives("lost-file-not-settled");
        if std::mem::take(&mut self.begins) && is_nobodys && may_be_known && !self.has_told(step) {
            self.settled_ms = step.now_ms.saturating_add(self.terms.settle_ms);
        }
        let own_ms = step.now_ms.saturating_add(self.terms.lease_ms);
        let was_free = self.written.as_ref().is_some_and(|file| file.until_ms.is_none());
        let goes_on = self.found && !self.has_told(step) && step.now_ms < self.settled_ms;
        if is_nobodys && (was_free || goes_on && self.is_due(own_ms)) {
            (self.until_ms, self.granted_ms) = (Some(own_ms), None);
            self.found = true;
        }
        // With nothing to go on with, what supervisors may know of an earlier lease ends now.
        let left_ms = *self.until_ms.get_or_insert(step.now_ms);
        let held_ms = self.hold(step).filter(|it| self.counts_on(step, it)).and_then(|it| it.until_ms());
        Some(self.granted_ms.unwrap_or(left_ms).max(held_ms.unwrap_or(0)))
    }

    /// An agent of this boot may have said that it obeys leases, in an entry that is not applied here. A
    /// leader counts from that, so this node gives itself nothing more. Supervisors had settled before that.
    fn has_told(&self, step: LeaseStep<'_>) -> bool {
        self.enforcing == Some(step.state.leases.epoch) && !mutant::lives("told-before-not-noted")
    }

    /// The long lease that the log knows of this node.
    fn hold<'a>(&self, step: LeaseStep<'a>) -> Option<&'a LeaseHold> {
        let holder = step.state.leases.may_hold(&self.node, step.raft_id, self.boot_id)?;
        holder.hold.as_ref()
    }

    /// Whether the VMs may run under it: the agent is about to end, or the cluster is disarmed. At any other
    /// time the log may already say that it has ended.
    fn counts_on(&self, step: LeaseStep<'_>, hold: &LeaseHold) -> bool {
        let is_announced = hold.begins_ms.is_some() && hold.begins_ms == self.leaving.map(|(at_ms, _)| at_ms);
        let counts = is_announced || step.state.leases.disarmed.is_some() || mutant::lives("old-hold-counts");
        hold.boot_id == self.boot_id && counts
    }

    /// The agent is about to end in order: its VMs are to run on for so long, in milliseconds, if the log
    /// takes it. None: no VM here needs that. False: this node has no lease that could be made longer.
    pub fn leave(&mut self, step: LeaseStep<'_>, for_ms: u64) -> Option<bool> {
        let mut placed = step.state.placed_on(&self.node);
        let needs = placed.any(|vm| vm.desired == Desired::Running && vm.spec.fails_over());
        if !needs || !step.state.leases.is_on {
            return None;
        }
        let may = step.state.leases.may_hold(&self.node, step.raft_id, self.boot_id).is_some();
        self.leaving = may.then_some((step.now_ms, for_ms));
        self.tell_hold_ms = step.now_ms;
        Some(may)
    }

    /// Whether what was asked for with [`Holder::leave`] is known to the supervisors.
    pub fn is_left(&self, step: LeaseStep<'_>) -> bool {
        let announced = self.hold(step).filter(|it| self.leaving.is_some() && self.counts_on(step, it));
        let until_ms = announced.and_then(|hold| hold.until_ms());
        until_ms.is_some_and(|until_ms| self.file().and_then(|file| file.until_ms) >= Some(until_ms))
    }

    /// The long lease that the log is to be told of now: because the agent is about to end, or because the
    /// cluster is disarmed.
    pub fn hold_to_take(&mut self, step: LeaseStep<'_>) -> Option<HoldAsk> {
        let leases = &step.state.leases;
        let holder = leases.may_hold(&self.node, step.raft_id, self.boot_id)?;
        if step.now_ms < self.tell_hold_ms || !step.up_to_date {
            return None;
        }
        let known = holder.hold.filter(|hold| hold.boot_id == self.boot_id);
        // One of an earlier boot is replaced once it is over.
        if holder.hold.is_some() && known.is_none() && !self.has_waited(holder) {
            return None;
        }
        let wanted = match (self.leaving, leases.disarmed) {
            (Some((at_ms, length_ms)), _) => {
                let is_known = known.is_some_and(|hold| hold.begins_ms == Some(at_ms));
                (!is_known).then_some((at_ms, length_ms))
            }
            (None, Some(disarmed)) => {
                let left_ms = self.disarmed_for_ms(step, &disarmed);
                let until_ms = step.now_ms.saturating_add(left_ms);
                let covered_ms = known.and_then(|hold| hold.until_ms()).unwrap_or(0);
                let is_covered = covered_ms.saturating_add(HOLD_SLACK_MS) >= until_ms;
                let is_of_it = known.is_some_and(|hold| hold.since > disarmed.since);
                (!is_covered || !is_of_it).then_some((step.now_ms, left_ms))
            }
            (None, None) => None,
        };
        let (begins_ms, length_ms) = wanted?;
        let hold = HoldAsk { boot_id: self.boot_id, begins_ms, length_ms };
        self.tell_hold_ms = step.now_ms.saturating_add(TELL_AGAIN_MS);
        hold.is_valid().then_some(hold)
    }

    /// For how long the cluster is still disarmed, in milliseconds: by the time since this agent saw it, and
    /// less if the clock on the wall says so.
    fn disarmed_for_ms(&mut self, step: LeaseStep<'_>, disarmed: &DisarmedCluster) -> u64 {
        let seen = self.disarm_seen.filter(|(since, _)| *since == disarmed.since);
        let (_, seen_ms) = *self.disarm_seen.insert(seen.unwrap_or((disarmed.since, step.now_ms)));
        let left_ms = disarmed.for_ms.saturating_sub(step.now_ms.saturating_sub(seen_ms));
        match disarmed.until_unix_ms.saturating_sub(step.wall_ms) {
            0 => left_ms,
            wall_ms => left_ms.min(wall_ms),
        }
    }

    /// The long lease that none of this node's supervisors counts on any more, by the log index that it came
    /// with. Each has read of the shorter one by then, or was ended by systemd's watchdog. One that an
    /// earlier boot announced is over when this boot is granted a lease.
    pub fn hold_to_end(&mut self, step: LeaseStep<'_>) -> Option<u64> {
        let holder = step.state.leases.may_hold(&self.node, step.raft_id, self.boot_id)?;
        let hold = holder.hold?;
        // What is short now may not have been by what was known when it was written.
        let seen = self.hold_seen.filter(|(since, _)| *since == hold.since);
        let (_, seen_ms) = *self.hold_seen.insert(seen.unwrap_or((hold.since, step.now_ms)));
        let settle_ms = if mutant::lives("hold-ended-early") { 0 } else { self.terms.settle_ms };
        let settled = |at_ms: u64| step.now_ms >= at_ms.saturating_add(settle_ms);
        let is_settled = settled(seen_ms) && self.short_since_ms.is_some_and(settled);
        let written = self.written.as_ref().filter(|_| self.writing.is_none());
        // By what the log knew when it granted it, too.
        let is_renewed = self.newest.is_some_and(|grant| grant.index >= hold.since);
        let is_short = is_renewed && written.is_some_and(|file| self.is_short(step.now_ms, file));
        // Whoever granted a lease since the log knows of this boot has waited for the one before.
        let is_over = hold.boot_id == self.boot_id || self.has_waited(holder);
        let waits = self.leaving.is_some() || step.state.leases.disarmed.is_some();
        if waits
            || !is_settled
            || !is_short
            || !is_over
            || !step.up_to_date
            || step.now_ms < self.tell_hold_ms
        {
            return None;
        }
        self.tell_hold_ms = step.now_ms.saturating_add(TELL_AGAIN_MS);
        Some(hold.since)
    }

    /// Whether a file allows no more than a lease that this agent was granted, which whoever leads waits for.
    fn is_short(&self, now_ms: u64, file: &LeaseFile) -> bool {
        let longest_ms = now_ms.saturating_add(self.terms.lease_ms);
        let granted_ms = self.granted_ms.unwrap_or(0).max(now_ms);
        let is_granted = |until_ms: u64| until_ms <= granted_ms || mutant::lives("short-without-a-grant");
        file.until_ms.is_some_and(|until_ms| until_ms <= longest_ms && is_granted(until_ms))
    }

    /// This boot was granted a lease since the log knows of it: those of the boot before are over.
    fn has_waited(&self, holder: &LeaseHolder) -> bool {
        self.newest.is_some_and(|grant| grant.index >= holder.since)
    }

    /// Whether what an earlier boot of this machine ran, or another machine of its name, is certainly over as
    /// far as this node knows. Only then may it say that a VM that needs a lease is gone.
    pub fn speaks_for_all(&self, step: LeaseStep<'_>) -> bool {
        let leases = &step.state.leases;
        let own = leases.may_hold(&self.node, step.raft_id, self.boot_id);
        leases.holder(&self.node).is_none() || own.is_some_and(|own| own.is_first || self.has_waited(own))
    }

    /// Whether the lease that it gives itself is to be given anew: soon it ends, or it is a long one that was
    /// announced to a log which does not know of it any more.
    fn is_due(&self, own_ms: u64) -> bool {
        let ends_soon = |until_ms: u64| until_ms.saturating_add(self.terms.renewal_ms()) <= own_ms;
        self.until_ms.is_none_or(|until_ms| ends_soon(until_ms) || until_ms > own_ms)
    }

    /// The VMs that may run here by the log. Those that are kept are listed as well: a unit of one that was
    /// not before runs under a lease until it is stopped.
    fn listed<'a>(&'a self, state: &'a ClusterState) -> impl Iterator<Item = (&'a VmName, u64)> {
        state.placed_on(&self.node).map(|vm| (&vm.spec.name, vm.placement.generation))
    }

    /// Whether the file says already what is wanted, and lists the VMs that it is to list. Both lists are in
    /// the order of the names.
    fn says(&self, wanted: &LeaseFile, state: &ClusterState) -> bool {
        let Some(written) = &self.written else { return false };
        let LeaseFile { boot_id, cluster_id, until_ms, grant, enforces, vms } = written;
        (*boot_id, *cluster_id, *until_ms) == (wanted.boot_id, wanted.cluster_id, wanted.until_ms)
            && (*grant, *enforces) == (wanted.grant, wanted.enforces)
            && vms.iter().map(|(name, generation)| (name, *generation)).eq(self.listed(state))
    }

    /// The file was written, or was not.
    pub fn note_written(&mut self, now_ms: u64, is_written: bool) {
        let writing = self.writing.take();
        if is_written || mutant::lives("refused-file-taken-for-written") {
            let longest_ms = now_ms.saturating_add(self.terms.lease_ms);
            let end_of = |file: &LeaseFile| file.until_ms.unwrap_or(u64::MAX);
            let before_ms = self.written.as_ref().map_or(0, end_of);
            // What is shorter by other terms alone, after the log was told, is what whoever leads waits for.
            let is_shorter = |file: &LeaseFile| end_of(file) < before_ms && file.enforces.is_none();
            if before_ms > longest_ms && writing.as_ref().is_some_and(is_shorter) {
                self.settled_ms = now_ms.saturating_add(self.terms.settle_ms);
            }
            self.written = writing;
            self.confirmed = true;
            self.rewrite_ms = now_ms.saturating_add(self.terms.settle_ms / REWRITES);
            let is_short = self.written.as_ref().is_some_and(|file| self.is_short(now_ms, file));
            self.short_since_ms = is_short.then(|| self.short_since_ms.unwrap_or(now_ms));
        } else {
            self.write_again_ms = now_ms.saturating_add(WRITE_AGAIN_MS);
        }
    }
}
