//! What must hold, one file for each, looked at after every event that could change it.
//!
//! [`Canon`] is what the cluster has agreed on, as the first node that applied each index knew it; the
//! invariants compare every node with it, and what clients were told.

mod acknowledged;
mod birth;
mod bounded;
mod canon;
mod capacity;
mod commit;
mod deleted;
mod election_safety;
mod leader_completeness;
mod leased;
mod let_go;
mod linearizable;
mod log_matching;
mod neighbours;
mod replay;
mod seen;
mod single_unit;
mod state_equal;
mod tickets;
mod version;
mod witness;

use blixard_core::{ClusterState, VmRecord};
use blixard_model::formation::Genesis;
use blixard_model::{
    Capacity, Command, EndpointId, LeaseTerms, Outcome, RaftId, Removal, RequestId, StoreId, VmName, VmSpec,
    WriteRequest,
};

use blixard_node::Replica;

use crate::Violation;
use crate::world::parts::machine::SimMachine;
use crate::world::parts::mirror::Mirror;
pub(crate) use bounded::Bounds;
use canon::{AgreedEntry, AppliedCommand, Canon};
use seen::SeenNode;

/// All invariants, and the first violation.
#[derive(Debug)]
pub(crate) struct Checker {
    bounds: Bounds,
    canon: Option<Canon>,
    violation: Option<Violation>,
    birth: birth::OneBirth,
    elections: election_safety::ElectionSafety,
    logs: log_matching::LogMatching,
    leaders: leader_completeness::LeaderCompleteness,
    commits: commit::CommitMonotonic,
    states: state_equal::StateEqual,
    reservations: capacity::Reservations,
    acknowledged: acknowledged::Acknowledged,
    order: linearizable::Linearizable,
    deleted: deleted::Deleted,
    tickets: tickets::Tickets,
    failovers: u64,
    /// Clocks are no further off than leases allow.
    clocks_hold: bool,
    beyond_clocks: u64,
}

impl Checker {
    pub(crate) fn new(bounds: Bounds, clocks_hold: bool) -> Self {
        Self {
            bounds,
            clocks_hold,
            beyond_clocks: 0,
            canon: None,
            violation: None,
            birth: birth::OneBirth::default(),
            elections: election_safety::ElectionSafety::default(),
            logs: log_matching::LogMatching::default(),
            leaders: leader_completeness::LeaderCompleteness::default(),
            commits: commit::CommitMonotonic::default(),
            states: state_equal::StateEqual::default(),
            reservations: capacity::Reservations::default(),
            acknowledged: acknowledged::Acknowledged::default(),
            order: linearizable::Linearizable::default(),
            deleted: deleted::Deleted::default(),
            tickets: tickets::Tickets::default(),
            failovers: 0,
        }
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub(crate) fn report(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    fn note(&mut self, invariant: &'static str, at_us: u64, held: Result<(), String>) {
        if let Err(what) = held {
            self.report(Violation { invariant, what, at_us });
        }
    }

    /// A node begins with this genesis.
    pub(crate) fn birth(&mut self, genesis: &Genesis, now_us: u64) {
        let held = self.birth.check(genesis);
        self.note("one_birth", now_us, held);
        if self.canon.is_none() {
            self.canon = Some(Canon::new(genesis.clone()));
        }
    }

    /// A node has had its turn. Returns what goes into the trace.
    pub(crate) fn turn(
        &mut self,
        machines: &[SimMachine],
        seen: (usize, u64, &Replica, &mut Mirror),
        now_us: u64,
    ) -> u64 {
        let (machine, run, node, mirror) = seen;
        let written_from = mirror.written_from.take();
        if let Some(why) = mirror.unreadable.take() {
            self.note("log_matching", now_us, Err(why));
        }
        let seen = SeenNode {
            machine,
            run,
            raft: node.raft_status(),
            state: node.state(),
            mirror,
            waiting: node.waiting(),
            written_from,
        };
        let held = self.elections.check(&seen);
        self.note("election_safety", now_us, held);
        let held = self.logs.check(&seen);
        self.note("log_matching", now_us, held);
        self.advance(machines, &seen, now_us);
        let Some(canon) = &self.canon else { return 0 };
        let raft = &seen.raft;
        let told = raft.applied ^ raft.term.rotate_left(20) ^ raft.commit.rotate_left(40);
        let held = [
            ("leader_completeness", self.leaders.check(&seen, canon)),
            ("commit_never_regresses", self.commits.check(&seen)),
            ("state_equal", self.states.check(&seen, canon)),
            ("bounded", bounded::check(&seen, self.bounds)),
            ("version_supported", version::check(&seen, machines)),
        ];
        for (invariant, held) in held {
            self.note(invariant, now_us, held);
        }
        mirror.forget_cut();
        told
    }

    /// What this node applied first becomes what the cluster agreed on.
    fn advance(&mut self, machines: &[SimMachine], seen: &SeenNode<'_>, now_us: u64) {
        let Some(canon) = &mut self.canon else { return };
        while canon.last() < seen.raft.applied {
            let index = canon.last() + 1;
            let applied = match canon.apply(seen) {
                Ok(applied) => applied,
                Err(what) => return self.note("state_equal", now_us, Err(what)),
            };
            let (command, let_go) = match &applied {
                AgreedEntry::Command(command) => (Some(command), None),
                AgreedEntry::Removed(member, Removal::LostStore) => (None, Some(member)),
                AgreedEntry::Removed(..) | AgreedEntry::Admitted(..) | AgreedEntry::Nothing => (None, None),
            };
            if command.is_some_and(|it| matches!(it.request.command, Command::NodeLost { .. })) {
                let moved = |vm: &&VmRecord| vm.placement.generation == index;
                let moved: Vec<VmName> =
                    canon.state().vms.values().filter(moved).map(|vm| vm.spec.name.clone()).collect();
                self.failovers += moved.len() as u64;
                // Nowhere does a guest of it run, whether the next one begins at once or not.
                let nowhere = moved
                    .iter()
                    .try_for_each(|name| single_unit::check(machines, &(usize::MAX, name.clone()), now_us));
                if self.clocks_hold
                    && let Err(what) = nowhere
                {
                    return self.note("lost_runs_nothing", now_us, Err(what));
                }
                self.beyond_clocks += u64::from(nowhere.is_err());
            }
            let is_offer =
                |command: &AppliedCommand| matches!(command.request.command, Command::SetNode { .. });
            let offers_changed =
                matches!(applied, AgreedEntry::Admitted(..)) || command.is_some_and(is_offer);
            let held = [
                ("capacity", self.reservations.check(canon.state(), offers_changed)),
                ("applied_once", self.acknowledged.applied(index, command)),
                ("deleted_stays", self.deleted.applied((canon.state(), machines, now_us), command)),
                ("whole_is_kept", let_go.map_or(Ok(()), |member| let_go::check(machines, member))),
                ("ticket_admits_once", self.tickets.applied(&applied)),
                ("witness_runs_nothing", witness::check(canon.state(), command)),
            ];
            if let Some((invariant, Err(what))) = held.into_iter().find(|(_, held)| held.is_err()) {
                return self.note(invariant, now_us, Err(what));
            }
        }
    }

    /// An agent has ended: the next one may stand further back.
    pub(crate) fn process_ended(&mut self, machine: usize) {
        self.commits.process_ended(machine);
    }

    /// A client was told that its write is done, or refused.
    pub(crate) fn write_acknowledged(
        &mut self,
        request: &WriteRequest,
        outcome: &Outcome,
        floor: u64,
        now_us: u64,
    ) {
        let held = self.acknowledged.acknowledge(request, outcome);
        match held {
            Ok(index) => {
                let held = self.order.write(index, floor);
                self.note("linearizable", now_us, held);
            }
            Err(what) => self.note("acknowledged_stays", now_us, Err(what)),
        }
    }

    /// A client was told that nothing happened.
    pub(crate) fn write_denied(&mut self, id: &RequestId, now_us: u64) {
        let held = self.acknowledged.deny(id);
        self.note("denied_stays_undone", now_us, held);
    }

    /// A client read the state at this index.
    pub(crate) fn read_served(&mut self, index: u64, floor: u64, now_us: u64) {
        let held = self.order.read(index, floor);
        self.note("linearizable", now_us, held);
    }

    /// A unit starts for this placement.
    pub(crate) fn unit_starts(
        &mut self,
        machines: &[SimMachine],
        unit: (usize, VmName, u64),
        offered: Capacity,
        now_us: u64,
    ) {
        let state = self.state();
        let is_known = |name: &VmName| state.is_some_and(|state| state.vms.contains_key(name));
        let held = machines
            .get(unit.0)
            .map_or(Ok(()), |machine| neighbours::check(machine, &unit.1, (offered, is_known)));
        self.note("neighbours", now_us, held);
        let held = self.deleted.unit_starts(&unit);
        self.note("deleted_stays", now_us, held);
    }

    /// A guest begins to run, or its unit to start if nothing holds it back.
    pub(crate) fn guest_runs(&mut self, machines: &[SimMachine], unit: (usize, VmName), now_us: u64) {
        let held = single_unit::check(machines, &unit, now_us);
        let spec = self.state().and_then(|state| state.vms.get(&unit.1)).map(|vm| &vm.spec);
        if held.is_err() && !self.clocks_hold && spec.is_some_and(VmSpec::fails_over) {
            self.beyond_clocks += 1;
            return;
        }
        self.note("single_unit", now_us, held);
    }

    /// Whether the VM of this placement is deleted.
    pub(crate) fn is_deleted(&self, vm: &VmName, generation: u64) -> bool {
        self.deleted.is_gone(vm, generation)
    }

    /// A guest goes on, or does not run at all.
    pub(crate) fn guest_goes_on(
        &mut self,
        machine: &SimMachine,
        vm: &VmName,
        terms: LeaseTerms,
        now_us: u64,
    ) {
        let held = leased::check(machine, vm, terms, now_us);
        self.note("runs_under_a_lease", now_us, held);
    }

    /// Everything has come to rest.
    pub(crate) fn at_rest(&mut self, machines: &[SimMachine], now_us: u64) {
        let Some(canon) = &self.canon else { return };
        let held = replay::check(canon, machines);
        self.note("replay", now_us, held);
    }

    /// The highest index that anybody was told of.
    pub(crate) fn floor(&self) -> u64 {
        self.order.floor()
    }

    /// The highest index that any node has applied.
    pub(crate) fn applied(&self) -> u64 {
        self.canon.as_ref().map_or(0, Canon::last)
    }

    /// How many VMs were given to another node because theirs was lost.
    pub(crate) fn failovers(&self) -> u64 {
        self.failovers
    }

    /// How often VMs that may be failed over ran twice, or still when they were given away, in a run whose
    /// clocks are further off than leases allow.
    pub(crate) fn beyond_clocks(&self) -> u64 {
        self.beyond_clocks
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.count()
    }

    pub(crate) fn state(&self) -> Option<&ClusterState> {
        self.canon.as_ref().map(Canon::state)
    }

    /// Whether this endpoint is a member with this store.
    pub(crate) fn belongs(&self, endpoint_id: EndpointId, store_id: StoreId) -> bool {
        self.canon.as_ref().is_some_and(|canon| canon.belongs(endpoint_id, store_id))
    }

    /// Who votes.
    pub(crate) fn voters(&self) -> &[RaftId] {
        self.canon.as_ref().map_or(&[], |canon| canon.voters())
    }
}
