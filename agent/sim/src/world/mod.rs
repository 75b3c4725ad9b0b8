//! The world of one run: machines, the network between them, clients, and what goes wrong.
//!
//! One thread, virtual time, one seed. The hosts are the production crate's; what stands here in the daemon's
//! place is its shell, which carries their inputs and effects.

mod agent;
mod clients;
mod copies;
mod faults;
mod lease_operator;
mod leases;
mod liveness;
mod nemesis;
mod network;
mod operator;
pub(crate) mod parts;
mod service_manager;
mod shell;
mod supervisors;
mod units;

use std::collections::BTreeSet;

use blixard_core::declared::DeclaredMember;
use blixard_model::{Capacity, ClusterName, ClusterVersion, EndpointId, NodeName};
use blixard_node::host::Input;

use crate::disk::SimDisk;
use crate::invariants::{Bounds, Checker};
use crate::judge::{History, Recorder};
use crate::options::Options;
use crate::report::{Counts, Report};
use crate::trace::Trace;
use crate::{SimRng, Violation};
use parts::client::SimClient;
use parts::event::{Event, MachineId, Queue};
use parts::hypervisor::SimHypervisor;
use parts::lease_dir::SimLeaseDir;
use parts::liveness::Liveness;
use parts::machine::{DiskHealth, SimMachine};
use parts::names::{address, client_vm, text_id};
use parts::network::Network;
use parts::node_copy::NodeCopy;
use parts::operator::Operator;

/// What each machine offers: few VMs fit, so that what does not is met often.
pub(crate) const CAPACITY: Capacity = Capacity { cpus: 8, memory_mib: 1_536 };

/// How long a judged run goes on after the mending, in simulated seconds: what is under way then stays
/// without an answer.
const JUDGED_REST_S: u64 = 10;

/// A run in progress.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) rng: SimRng,
    /// What happens to units and their supervisors is drawn from numbers of its own.
    pub(crate) supervisors: SimRng,
    pub(crate) queue: Queue,
    pub(crate) machines: Vec<SimMachine>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<SimClient>,
    pub(crate) checker: Checker,
    /// What the clients see, for the second judge.
    pub(crate) recorder: Option<Recorder>,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    pub(crate) cluster_name: ClusterName,
    pub(crate) liveness: Liveness,
    /// Until then somebody may hear of a disk that went back in time: in µs.
    pub(crate) all_honest_from_us: u64,
    /// The machine whose disk was lost before anybody had a cluster.
    pub(crate) wiped_unborn: Option<MachineId>,
    /// A machine that is a copy of another one.
    pub(crate) copy: Option<NodeCopy>,
    operator: Operator,
    /// Members came or went: who lets whom in is looked at again.
    links_due: bool,
    next_id: u64,
    ended: bool,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options, print: bool) -> Self {
        let mut rng = SimRng::new(seed);
        let count = options.nodes + options.spares;
        let machines = (0..count).map(|id| new_machine(id, &options, &mut rng)).collect();
        let clients = (0..options.clients).map(SimClient::new).collect();
        let mut world = Self {
            network: Network::new(count),
            checker: Checker::new(bounds(&options), options.clocks_hold()),
            recorder: None,
            counts: Counts::default(),
            trace: Trace::new(print),
            queue: Queue::default(),
            machines,
            clients,
            rng,
            supervisors: SimRng::new(seed ^ 0x7375_7065_7276_6973),
            options,
            cluster_name: text_id("sim"),
            liveness: Liveness::default(),
            all_honest_from_us: 0,
            wiped_unborn: None,
            copy: None,
            operator: Operator::default(),
            links_due: false,
            next_id: 0,
            ended: false,
        };
        world.schedule_begin();
        world
    }

    fn schedule_begin(&mut self) {
        let late = usize::from(self.options.late_member);
        for machine in 0..self.machines.len() {
            let wait = match machine + late < self.machines.len() {
                true => self.rng.below(2_000_000),
                false => 8_000_000 + self.rng.below(8_000_000),
            };
            self.machines[machine].start_scheduled = true;
            self.queue.at(wait, Event::Start { machine });
        }
        for client in 0..self.options.clients {
            let wait = 1_000_000 + self.rng.below(1_000_000);
            self.queue.at(wait, Event::Client { client });
        }
        self.queue.at(1_000_000, Event::Nemesis);
        if self.options.churn {
            self.queue.at(3_000_000, Event::Operator);
        }
        self.queue.at(self.options.safety_s * 1_000_000, Event::Heal);
        if self.options.failover {
            self.queue.at(1_000_000, Event::Audit);
        }
        if self.options.supervisor_faults {
            self.queue.at(2_000_000, Event::LeaseNemesis);
        }
        if self.options.lease_operator {
            self.queue.at(4_000_000, Event::LeaseOperator);
        }
        if self.options.node_copies {
            let wait = 10_000_000 + self.supervisors.below(25_000_000);
            self.queue.at(wait, Event::CopyBegins);
        }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Report {
        while !self.ended && self.checker.violation().is_none() {
            let Some(event) = self.queue.pop() else { break };
            self.handle(event);
        }
        self.report()
    }

    /// Runs to the end, whatever the invariants say, and gives what the clients saw.
    pub(crate) fn run_recorded(mut self) -> (Report, Vec<History>) {
        let names = (0..self.options.names).map(client_vm);
        self.recorder = Some(Recorder::new(names));
        let end_us = (self.options.safety_s + JUDGED_REST_S) * 1_000_000;
        while !self.ended && self.queue.now_us() < end_us {
            let Some(event) = self.queue.pop() else { break };
            self.handle(event);
        }
        let histories = self.recorder.take().map(Recorder::histories).unwrap_or_default();
        (self.report(), histories)
    }

    fn report(mut self) -> Report {
        for machine in &self.machines {
            self.counts.crash_points.merge(&machine.disk.points());
        }
        self.counts.simulated_us = self.queue.now_us();
        self.counts.events = self.trace.events();
        self.counts.acknowledged = self.checker.acknowledged();
        self.counts.failovers = self.checker.failovers();
        self.counts.beyond_clocks = self.checker.beyond_clocks();
        self.counts.applied = self.checker.applied();
        Report {
            trace_hash: self.trace.hash(),
            counts: self.counts.clone(),
            violation: self.checker.violation().cloned(),
        }
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn fail(&mut self, invariant: &'static str, what: String) {
        let at_us = self.queue.now_us();
        self.trace.line(at_us, || format!("VIOLATION {invariant}: {what}"));
        self.checker.report(Violation { invariant, what, at_us });
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn declared(&self, machine: MachineId) -> Vec<DeclaredMember> {
        let listed = self.machines.iter().take(self.machines[machine].listed).enumerate();
        let declared = |(id, machine): (usize, &SimMachine)| DeclaredMember {
            name: machine.name.clone(),
            endpoint_id: machine.endpoint_id,
            addresses: vec![address(id)],
        };
        // A list of one is a cluster of one, which no list makes.
        if self.machines[machine].listed < 2 { Vec::new() } else { listed.map(declared).collect() }
    }

    pub(crate) fn machine_of(&self, endpoint_id: EndpointId) -> Option<MachineId> {
        self.machines.iter().position(|machine| machine.endpoint_id == endpoint_id)
    }

    fn handle(&mut self, event: Event) {
        if let Some(id) = event.machine() {
            let machine = &self.machines[id];
            let run = machine.process.as_ref().map(|process| process.run);
            if run.is_none() || event.run().is_some() && event.run() != run {
                return self.arrives_nowhere(event);
            }
            // What comes over a network that carries nothing waits for nobody, whoever stands still.
            if matches!(&event, Event::Arrival { to, from, .. } if self.network.is_cut(*from, *to)) {
                return self.dispatch(event);
            }
            if machine.held_until_us > self.queue.now_us() {
                let until_us = self.until_mended_us(machine.held_until_us);
                return self.queue.at(until_us, event);
            }
        }
        self.dispatch(event);
    }

    /// What holds a machine is mended with everything else.
    pub(crate) fn until_mended_us(&self, until_us: u64) -> u64 {
        let mended_us = self.options.safety_s * 1_000_000;
        if self.liveness.is_on() { until_us } else { until_us.min(mended_us + 1) }
    }

    /// When a machine that is suspended wakes up.
    pub(crate) fn asleep_until_us(&self, id: MachineId) -> Option<u64> {
        let until_us = self.machines[id].asleep_until_us;
        (until_us > self.queue.now_us()).then(|| self.until_mended_us(until_us))
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Tick { machine, .. } => self.handle_tick(machine),
            Event::Turn { machine, .. } => self.handle_turn(machine),
            Event::Wake { machine, .. } => self.handle_wake(machine),
            Event::Bind { machine, .. } => self.handle_bind(machine),
            Event::Operator => self.handle_operator(),
            Event::Ticket { machine, ticket } => self.handle_ticket(machine, *ticket),
            Event::Connection { machine, call, to, .. } => self.handle_connection(machine, call, to),
            Event::ListUnits { machine, look, seen, .. } => self.handle_list_units(machine, look, seen),
            Event::Console { machine, vm, .. } => self.handle_console(machine, vm),
            Event::SnapshotEnd { machine, member, delivered, .. } => {
                let member = blixard_model::RaftId(member);
                self.input(machine, Input::SnapshotSent { member, delivered });
            }
            Event::Arrival { to, to_run, from, message } => self.handle_arrival((to, to_run), from, message),
            Event::Link { machine } => self.handle_link(machine),
            Event::JobDone { machine, boot, run, action, fails } => {
                self.handle_job_done((machine, boot, run), action, fails);
            }
            Event::Unit { machine, boot, vm, number, what } => {
                self.handle_unit_event((machine, boot), (&vm, number), what);
            }
            Event::CopyBegins => self.handle_copy_begins(),
            Event::CopyStep => self.handle_copy_step(),
            Event::CopyAsks { to, asked, request, .. } => self.handle_copy_asks(to, asked, request),
            Event::CopyAnswered { run, call, answer } => self.handle_copy_answered(run, call, *answer),
            Event::Audit => self.handle_audit(),
            Event::LeaseNemesis => self.handle_lease_nemesis(),
            Event::LeaseOperator => self.handle_lease_operator(),
            Event::GuestEnds { machine } => self.handle_guest_ends(machine),
            Event::Client { client } => self.handle_client(client),
            Event::ClientTimeout { client, op } => self.handle_client_timeout(client, op),
            Event::Start { machine } => self.handle_start(machine),
            Event::Fault(fault) => self.handle_fault(fault),
            Event::Nemesis => self.handle_nemesis(),
            Event::Heal => self.handle_heal(),
            Event::LivenessCheck => self.handle_liveness_check(),
        }
    }
}

/// Each client has one operation, each agent one declaration and one confirmation for each VM; as many again
/// may have been given up since the last tick.
fn bounds(options: &Options) -> Bounds {
    let machines = options.nodes + options.spares;
    // The operator and those who join have one each beside that.
    let under_way = options.clients + machines * (2 + options.names) + 1;
    Bounds { limits: options.limits, waiting: 2 * under_way }
}

fn new_machine(id: MachineId, options: &Options, rng: &mut SimRng) -> SimMachine {
    let name: NodeName = text_id(&format!("n{}", id + 1));
    let drift = rng.below(2 * options.drift_ppm + 1);
    let late = usize::from(options.late_member);
    let is_spare = id >= options.nodes;
    let disk = SimDisk::new(format!("/{name}"), rng.fork());
    disk.set_sync_latency_us(1 + rng.below(options.sync_us));
    SimMachine {
        endpoint_id: EndpointId::from_bytes([u8::try_from(id + 1).unwrap_or(u8::MAX); 32]),
        name,
        capacity: CAPACITY,
        address: address(id),
        disk,
        disk_health: DiskHealth::Good,
        store_id: None,
        hypervisor: SimHypervisor::default(),
        process: None,
        lease: SimLeaseDir::default(),
        stopped: Vec::new(),
        boot: 0,
        booted_us: 0,
        held_until_us: 0,
        asleep_until_us: 0,
        clock_ppm: 1_000_000 + drift - options.drift_ppm,
        jumped_us: 0,
        view: BTreeSet::new(),
        listed: if is_spare { 0 } else { options.nodes - late },
        copy: None,
        rolled_back: false,
        rolled_back_from: (0, 0),
        start_scheduled: false,
        witness: options.witness && id + 1 == options.nodes,
        supports: if options.old_releases && id % 2 == 1 {
            ClusterVersion::FIRST
        } else {
            ClusterVersion::NEWEST
        },
        joins: is_spare,
        ticket: None,
        retired: false,
        removed: false,
    }
}
