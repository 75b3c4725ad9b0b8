//! A machine: its disk, its clock, its units, and the agent that runs on it or not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use blixard_model::removal::RemovedFrom;
use blixard_model::{
    Capacity, ClusterVersion, EndpointId, JoinTicket, NodeName, Offer, RaftId, StopNote, StoreId, VmName,
    WriteAsk,
};
use blixard_node::Replica;
use blixard_node::host::disk::Write;
use blixard_node::host::{Host, PeerCallId, WaiterId};
use blixard_store::Store;

use super::event::PeerQuestion;
use super::hypervisor::SimHypervisor;
use super::lease_dir::SimLeaseDir;
use super::mirror::Mirror;
use crate::disk::{Image, SimDisk};

/// A machine that wakes up has ended what its supervisors kill within this time, in µs.
const WOKEN_US: u64 = 200_000;
/// When a run begins, by every wall clock, in ms since the epoch.
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;

/// Who waits for an answer of an agent.
#[derive(Debug, Clone)]
pub(crate) enum Waiter {
    /// A client that writes.
    Client { client: usize, op: u64 },
    /// A client that reads a list.
    Reader { client: usize, op: u64 },
    /// The operator.
    Operator(u64),
    /// The operator, who asked for something about leases.
    LeaseOperator(WriteAsk),
    /// The operator, who brings this ticket.
    Ticket(JoinTicket),
    /// Whoever asked the agent to stop.
    HandOver,
    /// The same, who lets its VMs run on meanwhile.
    Hold,
}

/// One run of an agent.
#[derive(Debug)]
pub(crate) struct Process {
    /// Different for every run of every agent.
    pub(crate) run: u64,
    pub(crate) store_id: StoreId,
    pub(crate) store: Store,
    pub(crate) host: Host,
    pub(crate) mirror: Mirror,
    /// Whom the host keeps links with, beside those that are listed.
    pub(crate) contacts: BTreeSet<EndpointId>,
    /// Whom it does not let in, and what they are told.
    pub(crate) kept_out: BTreeMap<EndpointId, RemovedFrom>,
    pub(crate) asked: BTreeMap<PeerCallId, PeerQuestion>,
    pub(crate) waiters: BTreeMap<WaiterId, Waiter>,
    /// The store is being bound to a cluster, on a slow disk.
    pub(crate) binding: Option<Write>,
    pub(crate) last_number: u64,
    pub(crate) turn_due: bool,
    /// When it is woken next, in µs.
    pub(crate) wake_us: Option<u64>,
}

/// How a machine's disk is, as far as an operator would know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskHealth {
    /// It keeps what was written.
    Good,
    /// It failed, or went back in time, and counts as lost.
    Lost,
}

/// A machine. It outlives its agents.
#[derive(Debug)]
pub(crate) struct SimMachine {
    pub(crate) name: NodeName,
    pub(crate) endpoint_id: EndpointId,
    pub(crate) capacity: Capacity,
    /// Where it is reached.
    pub(crate) address: SocketAddr,
    pub(crate) disk: SimDisk,
    pub(crate) disk_health: DiskHealth,
    /// The store that its last agent had.
    pub(crate) store_id: Option<StoreId>,
    pub(crate) hypervisor: SimHypervisor,
    pub(crate) process: Option<Process>,
    /// What its agents let the supervisors of its VMs know.
    pub(crate) lease: SimLeaseDir,
    /// What is kept on its disk of VMs that were stopped by hand.
    pub(crate) stopped: Vec<StopNote>,
    /// Counts power losses: jobs of an earlier boot are void.
    pub(crate) boot: u64,
    /// The agent stands still until then: paused, or waiting for its disk.
    pub(crate) held_until_us: u64,
    /// The whole machine stands still until then: it is suspended.
    pub(crate) asleep_until_us: u64,
    /// When it was booted: its CLOCK_BOOTTIME counts from then.
    pub(crate) booted_us: u64,
    /// How fast its clock runs, as parts per million of true time.
    pub(crate) clock_ppm: u64,
    /// What its clock has jumped ahead, in µs.
    pub(crate) jumped_us: u64,
    /// The machines it can send to.
    pub(crate) view: BTreeSet<EndpointId>,
    /// Which machines its configuration lists: the first so many.
    pub(crate) listed: usize,
    /// An older copy of its disk, which may be put in its place.
    pub(crate) copy: Option<DiskCopy>,
    /// That copy was put in its place, and nobody has noticed yet.
    pub(crate) rolled_back: bool,
    /// The term and the end of the log that were there before.
    pub(crate) rolled_back_from: (u64, u64),
    /// It is not to be started before this.
    pub(crate) start_scheduled: bool,
    /// It votes and runs no VMs.
    pub(crate) witness: bool,
    /// The newest version of a cluster that its release supports.
    pub(crate) supports: ClusterVersion,
    /// Configured to join a cluster, with no list of members.
    pub(crate) joins: bool,
    /// The ticket in its directory.
    pub(crate) ticket: Option<JoinTicket>,
    /// It is off, for all that its operator knows for good.
    pub(crate) retired: bool,
    /// Its agent has ended because an operator removed it from the cluster.
    pub(crate) removed: bool,
}

/// What a machine's disk held at some time.
#[derive(Debug)]
pub(crate) struct DiskCopy {
    pub(crate) image: Image,
    /// The store that is in it.
    pub(crate) of: Option<StoreId>,
    /// Who votes by what is in it.
    pub(crate) voters: Vec<RaftId>,
}

impl SimMachine {
    /// Its disk as it is now is kept, for later.
    pub(crate) fn copy_disk(&mut self) {
        let voters = self.node().map(|node| node.raft_status().voters).unwrap_or_default();
        self.copy = Some(DiskCopy { image: self.disk.image(), of: self.store_id, voters });
    }

    /// Its agent stands still until then, at least.
    pub(crate) fn stand_still(&mut self, until_us: u64) {
        self.held_until_us = self.held_until_us.max(until_us);
    }

    /// All of it stands still until then, at least.
    pub(crate) fn sleep(&mut self, until_us: u64) {
        self.stand_still(until_us);
        self.asleep_until_us = self.asleep_until_us.max(until_us);
    }

    /// Whether a guest may run here now. One that needs a lease does not while the machine is suspended, and
    /// when it wakes up its supervisor looks before anything else.
    pub(crate) fn guest_runs(&self, name: &VmName, now_us: u64) -> bool {
        let unit = self.hypervisor.units().get(name).filter(|unit| unit.runs());
        unit.is_some_and(|unit| !(unit.is_leased() && self.is_asleep_or_just_woken(now_us)))
    }

    /// Whether it is suspended, or was a moment ago: what has to end then takes that long.
    pub(crate) fn is_asleep_or_just_woken(&self, now_us: u64) -> bool {
        self.asleep_until_us > 0 && self.asleep_until_us + WOKEN_US >= now_us
    }

    /// What its agent offers the cluster.
    pub(crate) fn offer(&self) -> Offer {
        Offer {
            capacity: Some(self.capacity),
            addresses: vec![self.address],
            relay_url: None,
            witness: self.witness,
            ..Offer::default()
        }
    }

    /// Its CLOCK_BOOTTIME, in ms.
    pub(crate) fn boot_ms(&self, now_us: u64) -> u64 {
        (scale(now_us.saturating_sub(self.booted_us), self.clock_ppm) + self.jumped_us) / 1_000
    }

    /// Its wall clock, in ms since the epoch; it jumps with the other one.
    pub(crate) fn wall_ms(&self, now_us: u64) -> u64 {
        WALL_BEGIN_MS + (scale(now_us, self.clock_ppm) + self.jumped_us) / 1_000
    }

    /// How much true time a span of its own clock takes.
    pub(crate) fn true_us(&self, local_us: u64) -> u64 {
        let true_us = u128::from(local_us) * 1_000_000 / u128::from(self.clock_ppm.max(1));
        u64::try_from(true_us).unwrap_or(u64::MAX)
    }

    /// Its node, while it is a member of a cluster.
    pub(crate) fn node(&self) -> Option<&Replica> {
        Some(self.process.as_ref()?.host.member()?.replica())
    }

    /// It runs and has no cluster.
    pub(crate) fn is_unborn(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.host.unborn().is_some())
    }

    pub(crate) fn is_in_cluster(&self) -> bool {
        self.node().is_some_and(|node| node.summary().is_member)
    }
}

fn scale(us: u64, ppm: u64) -> u64 {
    u64::try_from(u128::from(us) * u128::from(ppm) / 1_000_000).unwrap_or(u64::MAX)
}
