//! Which fault comes next. What no cluster could survive is not asked of it: disks are lost one at a time,
//! and only while all others are whole.

use blixard_consensus::RaftStatus;
use blixard_model::RaftId;
use blixard_node::Replica;

use super::World;
use super::parts::event::{Event, Fault, MachineId};
use super::parts::machine::{DiskHealth, SimMachine};
use crate::options::below;

/// A hard birth is over by then, in µs: from then on faults come as often as always.
const BIRTH_US: u64 = 15_000_000;

/// How often it is tried to put a copy of a disk back.
const ROLL_BACK_TRIES: u32 = 6;

type Choose = fn(&mut World) -> Vec<(u64, Fault)>;

impl World {
    pub(crate) fn handle_nemesis(&mut self) {
        if self.liveness.is_on() {
            return;
        }
        let usual = self.options.fault_ms * 500 + self.rng.below(self.options.fault_ms * 1_000);
        let wait = if self.is_born_hard() { usual / 8 } else { usual };
        self.queue.after(wait, Event::Nemesis);
        self.note_rolled_back();
        // A rolled back disk is only noticed if the others go on.
        if self.machines.iter().any(|machine| machine.rolled_back) {
            return;
        }
        let kinds = self.kinds();
        let Some(choose) = kinds.get(below(&mut self.rng, kinds.len())) else { return };
        for (wait, fault) in choose(self) {
            self.queue.after(wait, Event::Fault(fault));
        }
    }

    /// A birth takes a moment: in some runs much goes wrong in it.
    fn is_born_hard(&self) -> bool {
        let born = self.checker.state().is_some() || self.queue.now_us() > BIRTH_US;
        self.options.hard_birth && !born
    }

    fn kinds(&self) -> Vec<Choose> {
        let faults = self.options.faults;
        let all: [(bool, Choose); 17] = [
            (faults.power, Self::choose_power),
            (faults.kill, |world| vec![(0, Fault::Kill(world.any()))]),
            (faults.restart, |world| vec![(0, Fault::Restart(world.any()))]),
            (faults.partition, Self::choose_partition),
            (faults.one_way, Self::choose_one_way),
            (faults.pause, Self::choose_pause),
            (faults.clock_jump, |world| {
                vec![(0, Fault::ClockJump(world.any(), world.rng.below(3_600_000_000)))]
            }),
            (faults.slow_disk, Self::choose_slow_disk),
            (faults.disk_full, Self::choose_full_disk),
            (faults.disk_error, Self::choose_disk_error),
            (faults.wipe || self.is_born_hard(), Self::choose_wipe),
            (faults.roll_back, Self::choose_roll_back),
            (faults.guest_ends, Self::choose_guest_ends),
            (faults.lost_store, Self::choose_lost_store),
            (faults.stranger, |world| vec![(0, Fault::Stranger(world.any()))]),
            (faults.sleep, Self::choose_sleep),
            (self.options.offers_change, |world| vec![(0, Fault::Move(world.any()))]),
        ];
        all.into_iter().filter(|(on, _)| *on).map(|(_, choose)| choose).collect()
    }

    fn any(&mut self) -> MachineId {
        below(&mut self.rng, self.machines.len())
    }

    fn choose_power(&mut self) -> Vec<(u64, Fault)> {
        // Sometimes all of them, as when a fuse blows.
        if self.rng.chance(1, 10) {
            return (0..self.machines.len()).map(|id| self.power_loss(id)).collect();
        }
        let id = self.any();
        vec![self.power_loss(id)]
    }

    /// Mostly in the middle of a write to come: at rest there is little to lose.
    fn power_loss(&mut self, id: MachineId) -> (u64, Fault) {
        if self.rng.chance(1, 4) {
            return (0, Fault::Power(id));
        }
        (0, Fault::PowerInWrite(id, self.rng.below(24)))
    }

    fn choose_partition(&mut self) -> Vec<(u64, Fault)> {
        if self.machines.len() < 2 {
            return Vec::new();
        }
        let sides: Vec<bool> = (0..self.machines.len()).map(|_| self.rng.chance(1, 2)).collect();
        let cuts = self.pairs().into_iter().filter(|(a, b)| sides[*a] != sides[*b]).collect();
        self.counts.partitions += 1;
        self.cut_for_a_while(cuts)
    }

    fn choose_one_way(&mut self) -> Vec<(u64, Fault)> {
        if self.machines.len() < 2 {
            return Vec::new();
        }
        let id = self.any();
        let (deaf, all) = (self.rng.chance(1, 2), self.rng.chance(1, 2));
        let mut cuts: Vec<_> = self.pairs();
        cuts.retain(|(from, to)| if deaf { *to == id } else { *from == id });
        if !all {
            let keep = below(&mut self.rng, cuts.len());
            cuts = cuts.into_iter().skip(keep).take(1).collect();
        }
        self.counts.one_way_partitions += 1;
        self.cut_for_a_while(cuts)
    }

    fn pairs(&self) -> Vec<(MachineId, MachineId)> {
        let count = self.machines.len();
        (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b).collect()
    }

    fn cut_for_a_while(&mut self, cuts: Vec<(MachineId, MachineId)>) -> Vec<(u64, Fault)> {
        let lasts = 500_000 + self.rng.below(9_000_000);
        vec![(0, Fault::Cut(cuts.clone())), (lasts, Fault::Mend(cuts))]
    }

    fn choose_pause(&mut self) -> Vec<(u64, Fault)> {
        self.counts.pauses += 1;
        let longest = if self.rng.chance(1, 4) { 10_000_000 } else { 1_500_000 };
        vec![(0, Fault::Pause(self.any(), 50_000 + self.rng.below(longest)))]
    }

    /// A machine that is suspended hears nothing and says nothing.
    fn choose_sleep(&mut self) -> Vec<(u64, Fault)> {
        let id = self.any();
        self.counts.sleeps += 1;
        let lasts = 100_000 + self.rng.below(15_000_000);
        let mut cuts = self.pairs();
        cuts.retain(|(from, to)| *from == id || *to == id);
        vec![(0, Fault::Sleep(id, lasts)), (0, Fault::Cut(cuts.clone())), (lasts, Fault::Mend(cuts))]
    }

    fn choose_slow_disk(&mut self) -> Vec<(u64, Fault)> {
        let id = self.any();
        self.counts.slow_disks += 1;
        let slow = 200_000 + self.rng.below(3_000_000);
        vec![(0, Fault::SlowDisk(id, slow)), (4_000_000, Fault::SlowDisk(id, 1 + self.options.sync_us / 2))]
    }

    fn choose_full_disk(&mut self) -> Vec<(u64, Fault)> {
        let id = self.any();
        self.counts.full_disks += 1;
        let room = below(&mut self.rng, 64 << 10);
        let lasts = 1_000_000 + self.rng.below(8_000_000);
        vec![(0, Fault::DiskFull(id, room)), (lasts, Fault::DiskFree(id))]
    }

    fn choose_disk_error(&mut self) -> Vec<(u64, Fault)> {
        let id = self.any();
        if self.may_lose_a_disk() { vec![(0, Fault::DiskError(id))] } else { Vec::new() }
    }

    fn choose_wipe(&mut self) -> Vec<(u64, Fault)> {
        let id = self.any();
        if self.may_wipe_unborn(id) {
            return vec![(0, Fault::WipeUnborn(id))];
        }
        if !self.holds_nothing(id) && !self.may_lose_a_disk() {
            return Vec::new();
        }
        vec![(0, Fault::Wipe(id))]
    }

    /// Who votes has changed: all who are left may need to know it after the next moment.
    pub(crate) fn doubt_new_voter(&mut self) {
        if self.options.faults.wipe && self.rng.chance(1, 6) {
            let (id, soon) = (self.any(), self.rng.below(100_000));
            self.queue.after(soon, Event::Fault(Fault::FuseBlows(id)));
        }
    }

    /// A store was made: some disks are exchanged once more, before the cluster counts on them.
    pub(crate) fn doubt_new_disk(&mut self, id: MachineId) {
        if self.options.faults.wipe && self.checker.state().is_some() && self.rng.chance(1, 3) {
            let soon = self.rng.below(1_000_000);
            self.queue.after(soon, Event::Fault(Fault::WipeUnadmitted(id)));
        }
    }

    /// The agent's directory is gone, the machine and its guests go on.
    fn choose_lost_store(&mut self) -> Vec<(u64, Fault)> {
        let id = self.any();
        if self.may_lose_a_disk() { vec![(0, Fault::LoseStore(id))] } else { Vec::new() }
    }

    /// Its store waits to be admitted: the cluster does not count on it yet.
    pub(crate) fn holds_nothing(&self, id: MachineId) -> bool {
        let Some(process) = &self.machines[id].process else { return false };
        let waits = self.machines[id].node().is_none() && self.machines.iter().any(SimMachine::is_in_cluster);
        waits
            && self.checker.state().is_some_and(|state| {
                state.nodes.members().all(|member| member.node.store_id != process.store_id)
            })
    }

    fn choose_roll_back(&mut self) -> Vec<(u64, Fault)> {
        let id = self.any();
        if let Some(id) = (0..self.machines.len()).find(|id| self.machines[*id].copy.is_some()) {
            // Sometimes the copy is of a store that the cluster has let go by then.
            if self.is_copy_of_the_store(id) && self.rng.chance(1, 2) && self.may_lose_a_disk() {
                return vec![(0, Fault::Wipe(id))];
            }
            return vec![(0, Fault::RollBack(id))];
        }
        if !self.may_copy(id) {
            return Vec::new();
        }
        // Not every moment suits.
        let tries =
            (0..ROLL_BACK_TRIES).map(|_| (1_000_000 + self.rng.below(20_000_000), Fault::RollBack(id)));
        std::iter::once((0, Fault::Copy(id))).chain(tries).collect()
    }

    /// A copy in which a node alone makes up the quorum leads as soon as it is put back, whoever has come
    /// since: nobody whom it knows could tell it.
    fn may_copy(&self, id: MachineId) -> bool {
        let machine = &self.machines[id];
        machine.is_in_cluster() && machine.node().is_some_and(|node| node.raft_status().voters.len() > 1)
    }

    fn is_copy_of_the_store(&self, id: MachineId) -> bool {
        let machine = &self.machines[id];
        machine.copy.as_ref().is_some_and(|copy| copy.of.is_some() && copy.of == machine.store_id)
    }

    fn choose_guest_ends(&mut self) -> Vec<(u64, Fault)> {
        let machine = self.any();
        self.queue.after(0, Event::GuestEnds { machine });
        Vec::new()
    }

    /// Nobody is seen to be in a cluster: what is lost with a disk is a promise. One of the others may hold a
    /// birth already that counts on it; so it is always the same machine, and never one of two.
    pub(crate) fn may_wipe_unborn(&self, id: MachineId) -> bool {
        // Who is listed late does not help those who form without it.
        let forming = |machine: &SimMachine| {
            let unborn = machine.process.as_ref().and_then(|process| process.host.unborn());
            unborn.is_some_and(|unborn| unborn.promise().is_none_or(|it| it.voters.len() >= 3))
        };
        self.machines.iter().all(|machine| machine.listed >= 3)
            && self.wiped_unborn.is_none_or(|wiped| wiped == id)
            && self.checker.state().is_none()
            && self.machines.iter().all(forming)
    }

    /// All are whole, and a quorum is without one of them: it may go.
    pub(crate) fn may_lose_a_disk(&self) -> bool {
        self.checker.voters().len() >= 3 && !self.is_removing() && self.list_survives() && self.all_whole()
    }

    /// A list of which every node has an empty store is a cluster to come, whoever else has what it was
    /// before.
    fn list_survives(&self) -> bool {
        let mut listed = self.machines.iter().filter(|machine| machine.listed > 1).peekable();
        listed.peek().is_none() || listed.filter(|machine| machine.node().is_some()).count() >= 2
    }

    /// Every member is there with the disk it has, everybody knows who votes, and no fault of a disk is
    /// armed.
    pub(crate) fn all_whole(&self) -> bool {
        let voters = self.checker.voters();
        let Some(state) = self.checker.state() else { return false };
        let members = self.machines.iter().filter(|it| state.member_by_endpoint(it.endpoint_id).is_some());
        members.into_iter().all(|machine| {
            let Some(process) = &machine.process else { return false };
            // One that has promised and not begun yet is needed as it is.
            let Some(node) = machine.node() else { return false };
            let belongs = self.checker.belongs(machine.endpoint_id, process.store_id);
            let mut known = node.raft_status().voters;
            known.sort();
            let mut agreed = voters.to_vec();
            agreed.sort();
            let knows = known == agreed;
            belongs
                && knows
                && !machine.rolled_back
                && machine.disk_health == DiskHealth::Good
                && !machine.disk.is_armed()
        })
    }

    /// Another one leads in the same term, and a quorum without this one is with that leader and has in its
    /// logs whatever this one has acknowledged, by the voters of today and by those that the copy knows. Each
    /// of them has an entry of that term, so that none votes for anybody who lacks one. Neither a vote nor an
    /// entry is forgotten that counts.
    pub(crate) fn may_roll_back(&self, id: MachineId) -> bool {
        let machine = &self.machines[id];
        let (Some(own), Some(copy)) = (machine.node().map(Replica::raft_status), &machine.copy) else {
            return false;
        };
        let committed = self.checker.applied();
        let holds_all = |other: &RaftStatus| {
            other.term == own.term
                && other.leader == own.leader
                && other.last.0 == own.term
                && other.last.1 >= own.last.1.max(committed)
        };
        let others = self.machines.iter().enumerate().filter(|(other, _)| *other != id);
        let holding = others.filter_map(|(_, machine)| machine.node().map(Replica::raft_status));
        let holding: Vec<RaftStatus> = holding.filter(holds_all).collect();
        let led = holding.iter().any(|other| other.leader == Some(other.id));
        let is_quorum = |voters: &[RaftId]| {
            holding.iter().filter(|other| voters.contains(&other.id)).count() > voters.len() / 2
        };
        self.may_lose_a_disk() && led && is_quorum(&own.voters) && is_quorum(&copy.voters)
    }
}
