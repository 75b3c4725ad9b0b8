//! The second phase: everything is mended, but for one machine that may stay cut off, and what was asked for
//! has to come to be.

use blixard_core::VmRecord;
use blixard_core::formation::voter_target;
use blixard_core::state::MemberRef;
use blixard_model::report::ObservedState;
use blixard_model::{ClusterVersion, Desired};

use super::World;
use super::parts::event::{Event, MachineId};
use super::parts::hypervisor::Unit;
use super::parts::machine::{DiskHealth, SimMachine};
use crate::options::below;

/// How often it is looked whether all is well, in µs.
const LOOK_US: u64 = 500_000;

/// Whether the unit runs the VM that the log wants: by the right order, and with the guest of that.
fn is_wanted(unit: &Unit, vm: &VmRecord) -> bool {
    unit.order == vm.order_id() && unit.spec.as_ref() == Some(&vm.spec)
}

impl World {
    pub(crate) fn handle_heal(&mut self) {
        let now_us = self.queue.now_us();
        self.trace.line(now_us, || "everything is mended".to_owned());
        self.note_rolled_back();
        self.liveness.since_us = Some(now_us);
        self.options.start_failures = 0;
        self.options.loss = self.options.loss.min(20);
        self.mend_all();
        // While a voter is on its way out the others may be about to need each one of them.
        if self.options.lasting_cut && !self.is_removing() {
            self.cut_one_off();
        }
        for client in 0..self.clients.len() {
            self.queue.after(RESTLESS_US, Event::Client { client });
        }
        self.queue.after(LOOK_US, Event::LivenessCheck);
    }

    /// One machine, without which there is a quorum of whole voters, is cut off in one direction for good.
    fn cut_one_off(&mut self) {
        let whole: Vec<bool> = self.machines.iter().map(|machine| self.is_whole(machine)).collect();
        let suits = |id: &MachineId| {
            let others = || self.machines.iter().enumerate().filter(|(other, _)| other != id);
            // A change of the voters counts for a node once it has applied it: each of the others has to know
            // a configuration in which they are a quorum.
            others().all(|(_, machine)| {
                let Some(node) = machine.node() else { return false };
                let voters = node.raft_status().voters;
                let whole = others().filter(|(other, _)| whole[*other]).filter_map(|(_, other)| other.node());
                let votes = whole.filter(|other| voters.contains(&other.summary().raft_id)).count();
                votes > voters.len() / 2
            })
        };
        let suitable: Vec<MachineId> = (0..self.machines.len()).filter(suits).collect();
        let Some(id) = suitable.get(below(&mut self.rng, suitable.len())).copied() else { return };
        let deaf = self.rng.chance(1, 2);
        self.trace.line(self.queue.now_us(), || format!("n{} stays cut off (deaf: {deaf})", id + 1));
        for other in (0..self.machines.len()).filter(|other| *other != id) {
            let (from, to) = if deaf { (other, id) } else { (id, other) };
            self.network.set_cut(from, to, true);
        }
        self.liveness.cut_off = Some(id);
        self.counts.lasting_cuts += 1;
        self.links_changed();
    }

    /// It is a member with the disk it has.
    fn is_whole(&self, machine: &SimMachine) -> bool {
        let good =
            machine.disk_health == DiskHealth::Good && !machine.rolled_back && !machine.disk.is_armed();
        good && machine.store_id.is_some_and(|store| self.checker.belongs(machine.endpoint_id, store))
    }

    pub(crate) fn handle_liveness_check(&mut self) {
        let now_us = self.queue.now_us();
        let Some(since_us) = self.liveness.since_us else { return };
        let missing = self.what_is_missing();
        if missing.is_empty() {
            self.counts.settled_us = now_us - since_us;
            self.checker.at_rest(&self.machines, now_us);
            return self.end();
        }
        if now_us - since_us >= self.options.liveness_s * 1_000_000 {
            let nodes: Vec<String> = self.machines.iter().map(describe).collect();
            return self.fail("liveness", format!("{}\n{}", missing.join("; "), nodes.join("\n")));
        }
        self.queue.after(LOOK_US, Event::LivenessCheck);
    }

    fn what_is_missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let applied = self.checker.applied();
        let leaders = self.machines.iter().filter(|m| m.node().is_some_and(|node| node.summary().leads));
        if leaders.count() == 0 {
            missing.push("nobody leads".to_owned());
        }
        for (id, machine) in self.machines.iter().enumerate().filter(|(id, _)| !self.liveness.is_cut_off(*id))
        {
            let name = &machine.name;
            if machine.removed {
                continue;
            }
            let Some(process) = &machine.process else {
                missing.push(format!("{name} does not run"));
                continue;
            };
            match machine.node() {
                None => missing.push(format!("{name} is in no cluster")),
                Some(node) if node.summary().applied < applied => {
                    missing.push(format!("{name} has applied {} of {applied}", node.summary().applied));
                }
                Some(_) if !self.checker.belongs(machine.endpoint_id, process.store_id) => {
                    missing.push(format!("{name} is no member"));
                }
                Some(_) => {
                    missing.extend(self.offer_missing(machine));
                    self.units_missing(id, &mut missing);
                }
            }
        }
        missing.extend(self.takeover_missing());
        missing.extend(self.voters_missing());
        missing.extend(self.version_missing());
        missing.extend(self.operator_misses());
        let waiting = self.clients.iter().enumerate().filter(|(_, client)| !client.is_idle());
        missing.extend(waiting.map(|(id, _)| format!("an operation of client {id} is not decided")));
        let unprobed = self.clients.iter().any(|client| client.probes < 2);
        if unprobed {
            missing.push("clients have yet to write again".to_owned());
        }
        missing
    }

    /// The log says what a machine offers by now.
    fn offer_missing(&self, machine: &SimMachine) -> Option<String> {
        let member = self.checker.state()?.member_by_endpoint(machine.endpoint_id)?;
        let (told, offers) = (member.node.offer, machine.offer());
        let name = &machine.name;
        (*told != offers && !self.swaps_addresses(machine))
            .then(|| format!("the log says that {name} offers {told:?}, not {offers:?}"))
    }

    /// Whether its address is another member's by the log, whose own address is a third one's, and so on in a
    /// circle: each would have to be told first, and none can be. An operator has to move one of them to an
    /// address that nobody has ("Configuration" in operations.md). A machine that is cut off cannot tell its
    /// new one.
    fn swaps_addresses(&self, machine: &SimMachine) -> bool {
        let Some(state) = self.checker.state() else { return false };
        let holder = |of: &SimMachine| {
            let has = |member: &MemberRef<'_>| member.node.offer.addresses.contains(&of.address);
            let holder = state.nodes.members().find(|member| has(member))?.node.endpoint_id;
            self.machines.iter().find(|machine| machine.endpoint_id == holder)
        };
        let cut_off = self.liveness.cut_off.map(|id| self.machines[id].endpoint_id);
        let mut at = machine;
        for _ in 0..self.machines.len() {
            match holder(at) {
                Some(next) if Some(next.endpoint_id) == cut_off => return next.endpoint_id != at.endpoint_id,
                Some(next) if next.endpoint_id != at.endpoint_id => at = next,
                _ => return false,
            }
        }
        true
    }

    /// What may be failed over does not stay on a machine that is cut off, if others have room for it.
    fn takeover_missing(&self) -> Option<String> {
        let (state, cut_off) = (self.checker.state()?, &self.machines[self.liveness.cut_off?].name);
        state.leases.holder(cut_off)?;
        let others = state.nodes.members().map(|member| member.node.name.clone());
        let others: Vec<_> = others.filter(|other| other != cut_off).collect();
        let waits = state.would_move(cut_off, &others);
        waits.then(|| format!("VMs on {cut_off}, which is cut off, are to be failed over"))
    }

    /// All machines run the newest release by now. One that is cut off cannot say what it supports.
    fn version_missing(&self) -> Option<String> {
        let version = self.checker.state()?.version;
        let is_due = version < ClusterVersion::NEWEST && self.liveness.cut_off.is_none();
        is_due.then(|| format!("the cluster has version {version}, and all support a newer one"))
    }

    /// As many vote as shall. One that is cut off cannot be promoted.
    fn voters_missing(&self) -> Option<String> {
        let state = self.checker.state()?;
        let (members, voters) = (state.nodes.member_count(), self.checker.voters());
        let cut_off =
            self.liveness.cut_off.and_then(|id| state.member_by_endpoint(self.machines[id].endpoint_id));
        let replaceable = members > voters.len() && self.checker.voters().len() >= voter_target(members);
        if let Some(member) = cut_off.filter(|member| replaceable && voters.contains(&member.raft_id)) {
            return Some(format!("{} is cut off and still votes", member.node.name));
        }
        let waits = usize::from(cut_off.is_some_and(|member| !voters.contains(&member.raft_id)));
        let (voters, target) = (voters.len(), voter_target(members).min(members - waits));
        (voters != target).then(|| format!("{voters} of {members} members vote, {target} shall"))
    }

    fn units_missing(&self, id: MachineId, missing: &mut Vec<String>) {
        let machine = &self.machines[id];
        let units = machine.hypervisor.units();
        let Some(state) = self.checker.state() else { return };
        for vm in state.placed_on(&machine.name) {
            let VmRecord { spec, desired, .. } = vm;
            let unit = units.get(&spec.name);
            let runs = unit.is_some_and(|unit| unit.state == ObservedState::Running && unit.guest_runs());
            let right = match desired {
                Desired::Running => runs && unit.is_some_and(|unit| is_wanted(unit, vm)),
                Desired::Stopped => !unit.is_some_and(Unit::lives),
                Desired::Absent => false,
            };
            if !right {
                missing.push(format!("VM {} on {} shall be {desired:?}", spec.name, machine.name));
            }
        }
        let strangers = units.iter().filter(|(name, unit)| {
            unit.lives() && state.vms.get(*name).is_none_or(|vm| vm.placement.node != machine.name)
        });
        missing.extend(strangers.map(|(name, _)| format!("a unit {name} runs on {}", machine.name)));
    }
}

/// Clients go on soon after the mending.
const RESTLESS_US: u64 = 200_000;

/// A machine at the end of a run that did not come to rest.
fn describe(machine: &SimMachine) -> String {
    let (name, units) = (&machine.name, machine.hypervisor.units().len());
    match machine.node() {
        Some(node) => format!("  {name}: {:?}, {units} units", node.raft_status()),
        None => match machine.process.as_ref().and_then(|process| process.host.unborn()) {
            Some(unborn) => format!("  {name} waits for {:?}", unborn.waiting_for()),
            None => format!("  {name} does not run"),
        },
    }
}
