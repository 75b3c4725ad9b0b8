//! The life of a simulated agent's process: how it starts and how it ends.

use std::collections::{BTreeMap, BTreeSet};

use blixard_consensus::TICK_MS;
use blixard_core::lease::LeaseFound;
use blixard_model::Capacity;
use blixard_model::ClusterVersion;
use blixard_model::NodeFacts;
use blixard_model::StoreId;
use blixard_node::NodeError;
use blixard_node::host::disk::{DiskError, Kept};
use blixard_node::host::{Found, Host, HostConfig, HostEnd};
use blixard_store::{DiskFault, OpenError, Store};

use super::parts::event::{Event, MachineId};
use super::parts::machine::{DiskHealth, Process};
use super::parts::mirror::Mirror;
use super::parts::names::address;
use super::{CAPACITY, World};
use crate::disk::Tear;
use crate::options::below;
use crate::planted;

/// Why an agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The disk is full; it starts again when there is space.
    Full,
    /// The disk failed; it counts as lost.
    Failed,
    /// The disk went back in time, and says so.
    RolledBack,
    /// An operator removed the node from the cluster.
    Removed,
    /// The machine lost its power in the middle of a write.
    Power,
    /// Anything else is a fault of ours.
    Wrong(String),
}

impl World {
    pub(crate) fn handle_start(&mut self, id: MachineId) {
        if let Some(wakes_us) = self.asleep_until_us(id) {
            return self.queue.at(wakes_us, Event::Start { machine: id });
        }
        self.machines[id].start_scheduled = false;
        let machine = &self.machines[id];
        if machine.process.is_some() || machine.retired || machine.removed {
            return;
        }
        self.exchange_lost_disk(id);
        self.list_late_member(id);
        if self.machines[id].supports < ClusterVersion::NEWEST && self.rng.chance(1, 3) {
            self.upgrade(id);
        }
        if self.options.offers_change && self.rng.chance(1, 4) {
            self.offer_another_capacity(id);
        }
        let (run, store_id) = (self.new_id(), self.new_store_id());
        self.trace.line(self.queue.now_us(), || format!("n{} starts, run {run}", id + 1));
        let machine = &self.machines[id];
        // The making of a store is short: without this its boundaries would hardly ever be hit.
        if self.options.faults.power && machine.store_id.is_none() && self.rng.chance(1, 4) {
            machine.disk.crash_after(self.rng.below(240));
        }
        let machine = &self.machines[id];
        let opened = Store::open(&machine.disk, machine.endpoint_id, &self.cluster_name, store_id);
        match opened {
            Ok(store) => self.begin_run(id, run, store),
            Err(error) => {
                let end = self.why_not_opened(id, &error);
                self.end_run(id, end);
            }
        }
    }

    /// Its agent's next run is of the newest release.
    pub(crate) fn upgrade(&mut self, id: MachineId) {
        self.trace.line(self.queue.now_us(), || format!("n{} is upgraded", id + 1));
        self.machines[id].supports = ClusterVersion::NEWEST;
        self.counts.upgrades += 1;
    }

    /// Its next run is configured to offer more or less; what it runs already may be more than that.
    fn offer_another_capacity(&mut self, id: MachineId) {
        let Capacity { cpus, memory_mib } = CAPACITY;
        let parts = [2, 3, 4, 6][below(&mut self.rng, 4)];
        let machine = &mut self.machines[id];
        let capacity = Capacity { cpus: cpus * parts / 4, memory_mib: memory_mib * u64::from(parts) / 4 };
        if capacity != machine.capacity {
            self.counts.other_capacities += 1;
        }
        machine.capacity = capacity;
    }

    fn new_store_id(&mut self) -> StoreId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&self.new_id().to_be_bytes());
        StoreId::from_bytes(bytes)
    }

    fn why_not_opened(&self, id: MachineId, error: &OpenError) -> End {
        match error.disk_fault() {
            _ if self.machines[id].disk.is_crashed() => End::Power,
            Some(DiskFault::Full) => End::Full,
            Some(DiskFault::Failed) => End::Failed,
            None => End::Wrong(format!("the store cannot be opened: {error}")),
        }
    }

    fn begin_run(&mut self, id: MachineId, run: u64, store: Store) {
        let store_id = store.store_id();
        self.machines[id].store_id = Some(store_id);
        let kept = match Kept::load(&store) {
            Ok(kept) => kept.map(|kept| Kept { durable: planted::read(kept.durable), ..kept }),
            Err(error) => {
                let end = self.why_not_opened(id, &error);
                return self.end_run(id, end);
            }
        };
        let bound = kept.is_some();
        let mut mirror = Mirror::default();
        if let Some(kept) = &kept {
            mirror.load(&kept.durable);
        }
        let genesis = kept.as_ref().map(|kept| kept.marker.genesis.clone());
        let found = Found { promise: store.promise().cloned(), kept, removed: store.is_removed() };
        let host = match Host::new(self.host_config(id, store_id), found, self.moment(id)) {
            Ok(host) => host,
            Err(error) => return self.host_ended(id, &error),
        };
        self.machines[id].process = Some(Process {
            run,
            store_id,
            store,
            host,
            mirror,
            contacts: BTreeSet::new(),
            kept_out: BTreeMap::new(),
            asked: BTreeMap::new(),
            waiters: BTreeMap::new(),
            binding: None,
            last_number: 0,
            turn_due: false,
            wake_us: None,
        });
        if let Some(genesis) = &genesis {
            self.checker.birth(genesis, self.queue.now_us());
        }
        self.links_changed();
        let first = self.rng.below(TICK_MS * 1_000);
        self.queue.after(first, Event::Tick { machine: id, run });
        if !bound {
            self.doubt_new_disk(id);
        }
        self.pay_for_syncs(id);
        self.tell_links(id);
        self.turn_soon(id);
    }

    fn host_config(&mut self, id: MachineId, store_id: StoreId) -> HostConfig {
        let machine = &self.machines[id];
        let offer = machine.offer();
        HostConfig {
            node: NodeFacts { name: machine.name.clone(), endpoint_id: machine.endpoint_id, store_id, offer },
            cluster_name: self.cluster_name.clone(),
            declared: self.declared(id),
            joins: machine.joins,
            needs: None,
            ticket: machine.ticket.clone().map(Ok),
            written: vec![address(id)],
            voter_lost_ticks: self.options.voter_lost_ticks,
            supports: machine.supports,
            lease_terms: self.options.lease_terms,
            lease: LeaseFound { file: machine.lease.file.clone(), units_run: machine.hypervisor.any_lives() },
            limits: self.options.limits,
            incarnation: self.rng.next_u64(),
        }
    }

    /// What was to be made durable is not.
    pub(crate) fn write_failed(&mut self, id: MachineId, error: &DiskError) {
        let end = match error.disk_fault() {
            _ if self.machines[id].disk.is_crashed() => End::Power,
            Some(DiskFault::Full) => End::Full,
            Some(DiskFault::Failed) => End::Failed,
            None => End::Wrong(format!("a write failed: {error}")),
        };
        self.end_run(id, end);
    }

    /// The host says that its process has to end.
    pub(crate) fn host_ended(&mut self, id: MachineId, end: &HostEnd) {
        let end = match end {
            HostEnd::Node(NodeError::RolledBack { .. } | NodeError::Left { .. })
                if self.machines[id].rolled_back =>
            {
                End::RolledBack
            }
            other => End::Wrong(other.to_string()),
        };
        self.end_run(id, end);
    }

    /// The host has learned that it was removed. Its agent goes on to say so; here it makes room for another.
    pub(crate) fn learned_removal(&mut self, id: MachineId) {
        let end = match self.has_removed(id) {
            true => End::Removed,
            false => End::Wrong("it takes itself for removed".to_owned()),
        };
        self.end_run(id, end);
    }

    /// The disk made the agent wait.
    pub(crate) fn pay_for_syncs(&mut self, id: MachineId) {
        let now_us = self.queue.now_us();
        let machine = &mut self.machines[id];
        let latency = machine.disk.take_latency_us();
        if latency > 0 {
            machine.stand_still(now_us + latency);
        }
    }

    /// The agent ends by itself.
    pub(crate) fn end_run(&mut self, id: MachineId, end: End) {
        let now_us = self.queue.now_us();
        self.trace.line(now_us, || format!("n{} ends: {end:?}", id + 1));
        match end {
            End::Power => return self.lose_power(id),
            End::Wrong(what) => return self.fail("unexpected_end", format!("n{}: {what}", id + 1)),
            End::Removed => {
                self.counts.learned_removed += 1;
                self.machines[id].removed = true;
                return self.drop_process(id, false);
            }
            End::Full => {
                self.counts.full_disk_ends += 1;
                self.drop_process(id, true);
            }
            End::Failed | End::RolledBack => {
                self.counts.lost_disks += 1;
                self.drop_process(id, true);
                self.machines[id].disk_health = DiskHealth::Lost;
            }
        }
        self.schedule_start(id, 1_000_000, 4_000_000);
    }

    /// The process is gone at once, with everything in its memory.
    pub(crate) fn drop_process(&mut self, id: MachineId, killed: bool) {
        let machine = &mut self.machines[id];
        if killed {
            machine.disk.crash_process();
        }
        machine.held_until_us = 0;
        if let Some(process) = machine.process.take() {
            drop(process);
            self.checker.process_ended(id);
            self.client_connections_end(id);
            self.links_changed();
        }
    }

    /// The machine is off: what was not synced may be lost, the guests are gone.
    pub(crate) fn lose_power(&mut self, id: MachineId) {
        let tear = if self.rng.chance(1, 2) { Tear::Sectors } else { Tear::Bytes };
        let (now_us, kept) = (self.queue.now_us(), self.keeps_old_file());
        self.counts.crashes += 1;
        self.counts.crashes_in_writes += u64::from(self.machines[id].disk.is_crashed());
        let machine = &mut self.machines[id];
        machine.disk.crash_power(tear);
        machine.boot += 1;
        machine.asleep_until_us = 0;
        machine.hypervisor.lose_power();
        machine.lease.lose_power(kept);
        machine.booted_us = now_us;
        self.drop_process(id, false);
        self.schedule_start(id, 200_000, 4_000_000);
    }

    pub(crate) fn schedule_start(&mut self, id: MachineId, least_us: u64, spread_us: u64) {
        if std::mem::replace(&mut self.machines[id].start_scheduled, true) {
            return;
        }
        let wait = least_us + self.rng.below(spread_us);
        self.queue.after(wait, Event::Start { machine: id });
    }
}
