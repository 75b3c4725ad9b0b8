//! This node's VMs: when the units are listed, what is done to them, what is reported of them.
//!
//! What is believed is the list of units, taken anew each time. Changes of the log and signals of systemd
//! only make the next look come sooner.

use std::collections::BTreeMap;

use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::{Action, Ongoing, UnitsView, outdated_notes};
use blixard_core::{ClusterState, VmRecord};
use blixard_model::fences::Fences;
use blixard_model::report::{NodeReport, ObservedState};
use blixard_model::{EndpointId, LeaseFile, NodeName, OrderId, StopNote, VmName};

use super::super::moment::Moment;
use super::by_hand::ByHand;

/// The units are listed at least this often, in milliseconds ...
const PERIOD_MS: u64 = 2_000;
/// ... and at most this often: a busy log must not become a busy service manager.
const PERIOD_MIN_MS: u64 = 50;
/// A list that systemd does not give within this time, in milliseconds, is asked for again.
const LIST_MS: u64 = 30_000;
/// Most looks whose answers are still of use.
const LOOKS_MAX: usize = 8;

/// What a look at the units comes to.
#[derive(Debug)]
pub(super) struct UnitsLook {
    /// What to do, each with the VM as the log has it.
    pub(super) actions: Vec<(Action, Option<VmRecord>)>,
    /// The VMs that ended though they should run, and how.
    pub(super) ended: Vec<(VmName, String)>,
    /// Units that were found just now and whose VMs the log does not know, each with how long it is left
    /// running, in milliseconds.
    pub(super) found: Vec<(VmName, u64)>,
    /// What is kept of stops by hand and is of no use any more.
    pub(super) outdated: Vec<StopNote>,
    /// What the leader is told.
    pub(super) report: NodeReport,
}

/// The reconciler's memory, and what it waits for.
#[derive(Debug)]
pub(super) struct Vms {
    me: EndpointId,
    name: NodeName,
    ongoing: Ongoing,
    by_hand: ByHand,
    leader: Option<EndpointId>,
    /// The log was read up to date once since this agent started.
    up_to_date: bool,
    /// Another agent with this node's key was there first: these VMs are its.
    stands_aside: bool,
    units: Vec<ObservedUnit>,
    /// The looks at the units that are not answered, each with when it was asked for.
    asked: BTreeMap<u64, u64>,
    next_list_ms: u64,
    last_list_ms: Option<u64>,
    /// What ends the VMs that may not run here any more.
    fences: Option<Box<Fences>>,
}

impl Vms {
    pub(super) fn new(me: EndpointId, name: NodeName, now_ms: u64) -> Self {
        Self {
            me,
            name,
            ongoing: Ongoing::default(),
            by_hand: ByHand::default(),
            leader: None,
            up_to_date: false,
            stands_aside: false,
            units: Vec::new(),
            asked: BTreeMap::new(),
            next_list_ms: now_ms,
            last_list_ms: None,
            fences: None,
        }
    }

    /// What the shell saw of what ends this node's VMs.
    pub(super) fn note_fences(&mut self, fences: Box<Fences>) {
        self.fences = Some(fences);
    }

    /// The log here holds everything that was acknowledged when this agent started.
    pub(super) fn note_up_to_date(&mut self, now_ms: u64) {
        self.up_to_date = true;
        self.hurry(now_ms);
    }

    /// The log here holds everything that was acknowledged when this agent started.
    pub(super) fn has_read_log(&self) -> bool {
        self.up_to_date
    }

    /// The log here holds everything that was acknowledged when this agent started, and nobody else runs with
    /// its key.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.up_to_date && !self.stands_aside
    }

    /// Nothing is done to any unit while another agent with this node's key was there first.
    pub(super) fn stand_aside(&mut self) {
        self.stands_aside = true;
    }

    /// Something may have changed: the next look comes as soon as it may.
    pub(super) fn hurry(&mut self, now_ms: u64) {
        let soonest = self.last_list_ms.map_or(now_ms, |last| last.saturating_add(PERIOD_MIN_MS).max(now_ms));
        self.next_list_ms = self.next_list_ms.min(soonest);
    }

    /// The number of the look that is to be taken now, if one is.
    pub(super) fn wants_list(&mut self, now_ms: u64) -> Option<u64> {
        let awaited = self.awaited_since_ms().is_some_and(|since| now_ms.saturating_sub(since) < LIST_MS);
        if awaited || now_ms < self.next_list_ms {
            return None;
        }
        let look = self.ongoing.note_asked();
        if self.asked.len() >= LOOKS_MAX {
            self.asked.pop_first();
        }
        self.asked.insert(look, now_ms);
        self.last_list_ms = Some(now_ms);
        self.next_list_ms = now_ms.saturating_add(PERIOD_MS);
        Some(look)
    }

    fn awaited_since_ms(&self) -> Option<u64> {
        self.asked.last_key_value().map(|(_, asked_ms)| *asked_ms)
    }

    /// A look was answered. Returns when it was asked for; none if a later look was answered before.
    pub(super) fn note_answered(&mut self, look: u64) -> Option<u64> {
        let asked_ms = self.asked.get(&look).copied()?;
        self.asked.retain(|other, _| *other > look);
        Some(asked_ms)
    }

    /// When to look again.
    pub(super) fn due_ms(&self) -> u64 {
        self.awaited_since_ms().map_or(self.next_list_ms, |since| since.saturating_add(LIST_MS))
    }

    /// The units were listed; what changed since they were asked for may be missing. Returns what comes of
    /// the look.
    pub(super) fn listed(
        &mut self,
        (now, look): (Moment, u64),
        (state, lease): (&ClusterState, Option<&LeaseFile>),
        (listed, stopped): (Result<Vec<ObservedUnit>, String>, Vec<StopNote>),
    ) -> UnitsLook {
        let problem = match listed {
            Ok(units) => {
                self.units = units;
                None
            }
            Err(why) => Some(format!("systemd cannot be asked: {why}")),
        };
        self.by_hand.note_found(look, stopped);
        // Placements are by name: they are this node's only if the log gives the name to its key.
        let ours = state.member_by_endpoint(self.me).is_some_and(|member| *member.node.name == self.name);
        let placed: Vec<&VmRecord> = state.placed_on(&self.name).collect();
        let up_to_date = self.up_to_date && ours && problem.is_none() && !self.stands_aside;
        let units = &self.units;
        let is_known = |unit: &&ObservedUnit| state.vms.contains_key(&unit.name);
        let unknown: Vec<VmName> =
            units.iter().filter(|unit| !is_known(unit)).map(|unit| unit.name.clone()).collect();
        let view = UnitsView {
            placed: &placed,
            units,
            unknown: &unknown,
            look,
            lease,
            stopped: self.by_hand.notes(),
            up_to_date,
            now_ms: now.boot_ms,
            wall_ms: now.wall_ms,
        };
        let mut ended = Vec::new();
        if problem.is_none() {
            for (name, how) in self.ongoing.unexpected_ends(&view) {
                let how = how.unwrap_or_else(|| "ended by itself".to_owned());
                self.ongoing.note_end(&name, &how, now.boot_ms);
                ended.push((name, how));
            }
        }
        let record = |action: &Action| {
            placed.iter().find(|vm| vm.spec.name == *action.vm()).map(|vm| VmRecord::clone(vm))
        };
        let told: Vec<VmName> = self.ongoing.unknown().map(|(name, _)| name.clone()).collect();
        let actions = self.ongoing.begin(&view);
        let found = self.ongoing.unknown().filter(|(name, _)| !told.contains(name));
        let found =
            found.map(|(name, stop_ms)| (name.clone(), stop_ms.saturating_sub(now.boot_ms))).collect();
        let actions = actions.into_iter().map(|action| (record(&action), action)).map(|(r, a)| (a, r));
        let actions = actions.collect();
        let (vms, fences) = (self.ongoing.report(&view), self.fences.clone());
        let report = NodeReport { node: self.name.clone(), vms, problem, fences };
        let outdated = outdated_notes(&view);
        self.by_hand.note_forgotten(self.ongoing.looks(), &outdated);
        UnitsLook { actions, ended, found, outdated, report }
    }

    /// The units whose VMs the log does not know, each with how long it is left running, in milliseconds.
    pub(super) fn unknown(&self, now_ms: u64) -> Vec<(VmName, u64)> {
        let left = |(name, stop_ms): (&VmName, u64)| (name.clone(), stop_ms.saturating_sub(now_ms));
        self.ongoing.unknown().map(left).collect()
    }

    /// An action ended, with why if it failed. True: it failed, and not as the time before.
    pub(super) fn action_done(&mut self, now_ms: u64, action: &Action, failure: Option<&str>) -> bool {
        self.hurry(now_ms);
        self.ongoing.note_done(action, failure, now_ms)
    }

    /// The units as they were last listed.
    pub(super) fn units(&self) -> &[ObservedUnit] {
        &self.units
    }

    /// What was stopped by hand here and the log does not know.
    pub(super) fn stopped_by_hand(&self) -> &[StopNote] {
        self.by_hand.notes()
    }

    /// By which order a unit of the VM runs or is being started, as far as it shows one; none when there is
    /// no such unit.
    pub(super) fn runs_as(&self, name: &VmName) -> Option<Option<OrderId>> {
        let lives = |unit: &&ObservedUnit| {
            unit.name == *name && matches!(unit.state, ObservedState::Starting | ObservedState::Running)
        };
        self.units.iter().find(lives).map(|unit| unit.order)
    }

    /// Somebody stopped these by hand, and that is kept.
    pub(super) fn note_stopped_by_hand(&mut self, now_ms: u64, notes: Vec<StopNote>) {
        self.by_hand.note_kept(self.ongoing.looks(), notes);
        self.hurry(now_ms);
    }

    /// Who leads. Another leader than before is told at once what the one before was not.
    pub(super) fn note_leader(&mut self, leader: Option<EndpointId>) {
        if self.leader != leader {
            self.leader = leader;
            if leader.is_some() {
                self.ongoing.note_leader();
            }
        }
    }

    /// The console lines of a VM that ended or did not start, for the reason that is shown.
    pub(super) fn note_console(&mut self, now_ms: u64, vm: &VmName, lines: &[String]) {
        self.ongoing.note_console(vm, lines);
        self.hurry(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_is_answered_late_counts_unless_a_later_one_was_answered() {
        let mut vms = Vms::new(EndpointId::from_bytes([1; 32]), "n1".parse().expect("a name"), 0);
        assert_eq!((vms.wants_list(0), vms.wants_list(LIST_MS - 1)), (Some(1), None));
        assert_eq!(vms.wants_list(LIST_MS), Some(2), "it is asked for again");
        assert_eq!(vms.note_answered(1), Some(0), "systemd is slow, and may be as slow the next time");
        assert_eq!(vms.wants_list(LIST_MS + PERIOD_MS), None, "the second one is awaited");
        assert_eq!(vms.wants_list(2 * LIST_MS), Some(3));
        assert_eq!(vms.note_answered(3), Some(2 * LIST_MS));
        assert_eq!((vms.note_answered(2), vms.note_answered(3)), (None, None));
        assert_eq!(vms.wants_list(2 * LIST_MS + PERIOD_MS), Some(4), "nothing is awaited");
    }
}
