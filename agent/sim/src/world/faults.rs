//! What goes wrong, carried out.

use blixard_model::wire::PeerRequest;
use blixard_model::{ClusterVersion, OrderId};
use blixard_node::Replica;
use blixard_node::host::{CallId, Input, Want};

use super::World;
use super::parts::event::{Event, Fault, MachineId, Message};
use super::parts::machine::{DiskHealth, Waiter};
use super::parts::names::{address, text_id};
use super::parts::network::STRAGGLES_LONG_US;
use crate::options::below;

/// How long handing the leadership over may take when an agent stops, in ms.
const HAND_OVER_MS: u64 = 2_000;
/// How long the VMs of an agent that is restarted may run on meanwhile, in ms.
const HOLD_MS: u64 = 20_000;

impl World {
    pub(crate) fn handle_fault(&mut self, fault: Fault) {
        // What was still to go wrong, or to be mended, when everything was mended.
        if self.liveness.is_on() && !matches!(fault, Fault::Restart(_) | Fault::Stop(..)) {
            return;
        }
        let now_us = self.queue.now_us();
        self.trace.line(now_us, || format!("fault {fault:?}"));
        self.trace.add(now_us, 3, 0, crate::trace::hash_bytes(format!("{fault:?}").as_bytes()));
        match fault {
            Fault::Power(id) => self.lose_power(id),
            Fault::PowerInWrite(id, boundaries) => self.machines[id].disk.crash_after(boundaries),
            Fault::Kill(id) => {
                self.counts.kills += 1;
                self.drop_process(id, true);
                self.schedule_start(id, 100_000, 2_000_000);
            }
            Fault::Restart(id) => self.ask_to_stop(id),
            Fault::Stop(id, run) => {
                if self.machines[id].process.as_ref().is_some_and(|process| process.run == run) {
                    self.drop_process(id, false);
                    self.schedule_start(id, 100_000, 1_000_000);
                }
            }
            Fault::Cut(cuts) => self.cut(&cuts, true),
            Fault::Mend(cuts) => self.cut(&cuts, false),
            Fault::Pause(id, us) => self.machines[id].stand_still(now_us + us),
            Fault::Sleep(id, us) => self.suspend(id, now_us + us),
            Fault::Move(id) => self.move_to_another_address(id),
            Fault::ClockJump(id, us) => self.machines[id].jumped_us += us,
            Fault::SlowDisk(id, us) => self.machines[id].disk.set_sync_latency_us(us),
            Fault::DiskFull(id, room) => {
                let disk = &self.machines[id].disk;
                disk.set_capacity(Some(disk.used_bytes() + room));
            }
            Fault::DiskFree(id) => self.machines[id].disk.set_capacity(None),
            Fault::DiskError(id) => self.machines[id].disk.fail_next_sync(),
            Fault::Wipe(id) => self.wipe(id),
            Fault::FuseBlows(id) => {
                if self.may_lose_a_disk() {
                    self.wipe(id);
                    (0..self.machines.len()).filter(|other| *other != id).for_each(|id| self.lose_power(id));
                }
            }
            Fault::WipeUnborn(id) => {
                if self.may_wipe_unborn(id) {
                    self.wiped_unborn = Some(id);
                    self.wipe(id);
                }
            }
            Fault::WipeUnadmitted(id) if self.holds_nothing(id) => {
                self.leave_last_words(id);
                self.wipe(id);
            }
            Fault::WipeUnadmitted(_) => {}
            Fault::LoseStore(id) => {
                self.counts.lost_disks += 1;
                self.machines[id].disk_health = DiskHealth::Lost;
                self.drop_process(id, true);
                self.schedule_start(id, 100_000, 2_000_000);
            }
            Fault::Stranger(id) => self.start_stranger(id),
            Fault::Copy(id) => self.machines[id].copy_disk(),
            Fault::RollBack(id) if self.may_roll_back(id) => self.roll_back(id),
            Fault::RollBack(_) => {}
        }
    }

    /// Not where a supervisor stands still: it is ended too late, as its watchdog does not count that time.
    fn suspend(&mut self, id: MachineId, until_us: u64) {
        if !self.has_frozen(id) {
            self.note_sleep(id, self.until_mended_us(until_us));
            self.machines[id].sleep(until_us);
        }
    }

    fn wipe(&mut self, id: MachineId) {
        self.counts.lost_disks += 1;
        self.machines[id].disk_health = DiskHealth::Lost;
        self.lose_power(id);
    }

    /// What it just said of its store arrives when the next one has taken that one's place.
    fn leave_last_words(&mut self, id: MachineId) {
        let Some(process) = &self.machines[id].process else { return };
        let (Some(me), run) = (process.host.identity(), process.run) else { return };
        for to in (0..self.machines.len()).filter(|to| *to != id) {
            if self.rng.chance(1, 2) {
                let request = Box::new(PeerRequest::Identify { me: me.clone() });
                // Nobody is there any more who could be answered.
                let message = Message::Request { run, call: CallId(self.new_id()), request };
                let late = self.rng.below(STRAGGLES_LONG_US);
                self.arrives_after(late, (id, to), message);
            }
        }
    }

    /// Under a name that no client uses: two units of one VM started by hand are not the cluster's to
    /// prevent.
    fn start_stranger(&mut self, id: MachineId) {
        let name = text_id("stranger");
        let hypervisor = &mut self.machines[id].hypervisor;
        if hypervisor.begin_start(&name, OrderId::new(0, 0), None) {
            hypervisor.end_start(&name);
            self.counts.strangers += 1;
        }
    }

    /// As when the network gives a machine another address: one that nobody has, or one that somebody had,
    /// but none that an operator wrote down.
    fn move_to_another_address(&mut self, id: MachineId) {
        if self.machines[id].node().is_none() {
            return;
        }
        let other = address(self.machines.len() + below(&mut self.rng, 3));
        if self.machines.iter().any(|machine| machine.address == other) {
            return;
        }
        self.counts.moves += 1;
        self.machines[id].address = other;
        let offer = self.machines[id].offer();
        self.input(id, Input::Offer(Box::new(offer)));
    }

    fn ask_to_stop(&mut self, id: MachineId) {
        let Some(run) = self.run_of(id) else { return };
        self.counts.restarts += 1;
        if self.options.holds {
            self.want(id, Waiter::Hold, Want::Hold { for_ms: HOLD_MS }, HAND_OVER_MS);
        }
        self.want(id, Waiter::HandOver, Want::HandOver, HAND_OVER_MS);
        let stops_us = if self.options.holds { 1_500_000 } else { 500_000 };
        self.queue.after(stops_us, Event::Fault(Fault::Stop(id, run)));
    }

    fn cut(&mut self, cuts: &[(MachineId, MachineId)], cut: bool) {
        for (from, to) in cuts {
            self.network.set_cut(*from, *to, cut);
        }
        self.links_changed();
    }

    /// As when somebody restores a machine from a backup while it is off.
    fn roll_back(&mut self, id: MachineId) {
        let Some(own) = self.machines[id].node().map(Replica::raft_status) else { return };
        let Some(copy) = self.machines[id].copy.take() else { return };
        self.counts.rolled_back += 1;
        self.drop_process(id, true);
        let machine = &mut self.machines[id];
        machine.disk.restore(&copy.image);
        machine.rolled_back = true;
        machine.rolled_back_from = (own.term, own.last.1);
        self.all_honest_from_us = u64::MAX;
        self.schedule_start(id, 100_000, 500_000);
    }

    /// A machine that was rolled back has caught up without losing anything that counted, or was noticed.
    pub(crate) fn note_rolled_back(&mut self) {
        let (applied, now_us) = (self.checker.applied(), self.queue.now_us());
        for id in 0..self.machines.len() {
            let machine = &mut self.machines[id];
            let (term, last) = machine.rolled_back_from;
            // A leader may count on what this one had acknowledged for as long as it leads in that term.
            let caught_up = machine.node().map(Replica::raft_status).is_some_and(|own| {
                own.applied >= applied && (own.term > term || own.term == term && own.last.1 >= last)
            });
            let noticed = machine.disk_health == DiskHealth::Lost;
            if machine.rolled_back && noticed {
                self.counts.recognised += 1;
            }
            if machine.rolled_back && (noticed || caught_up) {
                machine.rolled_back = false;
                // What it said until now is under way.
                self.all_honest_from_us = now_us + 2 * STRAGGLES_LONG_US;
            }
        }
    }

    /// The machine that comes late is listed everywhere once it is there: the others' agents are restarted
    /// with the new list, one after another.
    pub(crate) fn list_late_member(&mut self, id: MachineId) {
        let all = self.machines.len();
        if !self.options.late_member || self.machines[id].listed == all || id + 1 != all {
            return;
        }
        self.machines[id].listed = all;
        for other in 0..id {
            self.machines[other].listed = all;
            let wait = 500_000 + self.rng.below(6_000_000);
            self.queue.after(wait, Event::Fault(Fault::Restart(other)));
        }
    }

    /// An operator who reads what the agent said exchanges the disk before it starts again.
    pub(crate) fn exchange_lost_disk(&mut self, id: MachineId) {
        let machine = &mut self.machines[id];
        if machine.disk_health == DiskHealth::Lost {
            // A ticket lies in the same directory.
            machine.ticket = None;
            machine.disk.wipe();
            machine.disk.heal();
            machine.disk_health = DiskHealth::Good;
        }
    }

    /// Everything is mended, but for what lasts.
    pub(crate) fn mend_all(&mut self) {
        self.network.heal();
        self.thaw_all();
        let now_us = self.queue.now_us();
        for id in 0..self.machines.len() {
            let machine = &mut self.machines[id];
            machine.disk.heal();
            machine.held_until_us = machine.held_until_us.min(now_us);
            machine.asleep_until_us = machine.asleep_until_us.min(now_us);
            machine.retired = false;
            if machine.supports < ClusterVersion::NEWEST {
                self.upgrade(id);
                self.drop_process(id, true);
            }
            let machine = &self.machines[id];
            if machine.process.is_none() && !machine.removed {
                self.schedule_start(id, 100_000, 500_000);
            }
        }
        self.links_changed();
    }
}
