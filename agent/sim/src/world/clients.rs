//! Clients: they write and read through any agent, try again under the same request id, sometimes give up.

use blixard_model::{
    ClusterVersion, Desired, Disk, Hypervisor, OnNodeLoss, Outcome, Refusal, RestartPolicy, VmName, VmSpec,
    WriteAsk, WriteRequest,
};
use blixard_node::SubmitError;
use blixard_node::host::Want;

use super::World;
use super::parts::client::ClientOp;
use super::parts::event::{Event, MachineId};
use super::parts::machine::Waiter;
use super::parts::names::{self, text_id};
use crate::options::below;

/// How long a client lets an agent try, in ms.
const PATIENCE_MS: u64 = 5_000;
/// When a client takes the connection for dead, in µs.
const TIMEOUT_US: u64 = 8_000_000;
/// Pause before trying another agent, in µs.
const RETRY_US: u64 = 300_000;

impl World {
    pub(crate) fn handle_client(&mut self, client: usize) {
        if self.clients[client].op.is_none() {
            if self.liveness.is_on() && self.clients[client].probes >= 2 {
                return;
            }
            self.clients[client].probes += u64::from(self.liveness.is_on());
            let op = self.new_op(client);
            if let Some(recorder) = &mut self.recorder {
                recorder.begins(client, op.request.as_ref());
            }
            self.clients[client].op = Some(op);
        }
        if self.clients[client].op.as_ref().is_some_and(|op| op.attempt.is_none()) {
            self.attempt(client);
        }
    }

    fn new_op(&mut self, client: usize) -> ClientOp {
        self.clients[client].number += 1;
        self.counts.operations += 1;
        let floor = self.checker.floor();
        if self.rng.chance(1, 4) {
            return ClientOp::new(None, floor);
        }
        let id = text_id(&format!("c{}-{}", self.clients[client].id, self.clients[client].number));
        let ask = self.new_ask();
        ClientOp::new(Some(WriteRequest { id, ask }), floor)
    }

    fn new_ask(&mut self) -> WriteAsk {
        let name = names::client_vm(below(&mut self.rng, self.options.names));
        match self.rng.below(11) {
            0..=3 => {
                let desired = if self.rng.chance(3, 4) { Desired::Running } else { Desired::Stopped };
                let spec = self.new_spec(name);
                WriteAsk::CreateVm { spec, desired }
            }
            4 | 5 => WriteAsk::StartVm { name },
            6 | 7 => WriteAsk::StopVm { name },
            // Before that it waits for the last upgrade, and a machine that stays cut off shows none.
            8 if self.specs_change() => {
                let spec = self.new_spec(name);
                let spec = self.with_another_fate(&spec).unwrap_or(spec);
                WriteAsk::ChangeVm { spec, seen: None }
            }
            _ => WriteAsk::DeleteVm { name },
        }
    }

    fn specs_change(&self) -> bool {
        self.checker.state().is_some_and(|state| state.version >= ClusterVersion::SPECS_CHANGE)
    }

    /// Before that such a spec waits for the last upgrade as well.
    fn fates_are_chosen(&self) -> bool {
        self.checker.state().is_some_and(|state| state.version >= ClusterVersion::LEASES)
    }

    fn new_spec(&mut self, name: VmName) -> VmSpec {
        let node = self.rng.chance(1, 6).then(|| {
            let machine = below(&mut self.rng, self.machines.len());
            self.machines[machine].name.clone()
        });
        if self.options.failover && node.is_none() && self.rng.chance(2, 3) {
            let chosen = [None, None, Some(OnNodeLoss::Failover), Some(OnNodeLoss::Keep)];
            let chosen = chosen[below(&mut self.supervisors, chosen.len())];
            let on_node_loss = chosen.filter(|_| self.fates_are_chosen());
            return VmSpec { on_node_loss, ..self.small_spec(name) };
        }
        let shared = self.rng.chance(1, 4);
        let path = if shared { "/d/shared.raw".to_owned() } else { format!("/d/{name}.raw") };
        let spec = self.small_spec(name);
        let disks = vec![Disk { path, read_only: shared && self.rng.chance(1, 2) }];
        VmSpec { disks, node, ..spec }
    }

    /// Half of the changes in runs with failover: what the VM is stays as it is, and what becomes of it when
    /// its node is lost changes.
    fn with_another_fate(&mut self, spec: &VmSpec) -> Option<VmSpec> {
        if !self.options.failover || !self.fates_are_chosen() || !self.supervisors.chance(1, 2) {
            return None;
        }
        let before = self.checker.state()?.vms.get(&spec.name)?.spec.clone();
        let fate = if before.fails_over() { OnNodeLoss::Keep } else { OnNodeLoss::Failover };
        let may = before.usual_on_node_loss(false) == OnNodeLoss::Failover;
        self.counts.fates_changed += u64::from(may);
        may.then_some(VmSpec { on_node_loss: Some(fate), ..before })
    }

    fn small_spec(&mut self, name: VmName) -> VmSpec {
        VmSpec {
            name,
            cpus: 1 + u32::try_from(self.rng.below(3)).unwrap_or(0),
            memory_mib: 64 + 64 * self.rng.below(8),
            kernel: "/k".to_owned(),
            initrd: None,
            cmdline: String::new(),
            disks: Vec::new(),
            node: None,
            hypervisor: Hypervisor::Qemu,
            on_node_loss: None,
            restart: RestartPolicy::Always,
        }
    }

    fn attempt(&mut self, client: usize) {
        let at = below(&mut self.rng, self.machines.len());
        let in_cluster = self.machines[at].node().is_some();
        if !in_cluster || self.liveness.is_cut_off(at) {
            return self.queue.after(RETRY_US, Event::Client { client });
        }
        let attempt = self.new_id();
        let Some(op) = &mut self.clients[client].op else { return };
        op.attempt = Some((attempt, at));
        let request = op.request.clone();
        self.queue.after(TIMEOUT_US, Event::ClientTimeout { client, op: attempt });
        match request {
            Some(request) => {
                self.change(at, request, PATIENCE_MS, Waiter::Client { client, op: attempt });
            }
            None => {
                let waiter = Waiter::Reader { client, op: attempt };
                self.want(at, waiter, Want::Read, PATIENCE_MS);
            }
        }
    }

    /// The operation that waits for this attempt.
    fn waiting_op(&mut self, client: usize, attempt: u64) -> Option<&mut ClientOp> {
        let op = self.clients[client].op.as_mut()?;
        (op.attempt.map(|(number, _)| number) == Some(attempt)).then_some(op)
    }

    pub(crate) fn client_answered(&mut self, client: usize, attempt: u64, end: Result<Outcome, SubmitError>) {
        let now_us = self.queue.now_us();
        let Some(op) = self.waiting_op(client, attempt) else { return };
        op.attempt = None;
        let Some(request) = op.request.clone() else { return };
        let (floor, maybe) = (op.floor, op.maybe);
        self.trace.line(now_us, || format!("client {client} {} {end:?}", request.id));
        match end {
            Ok(outcome) => {
                self.counts.count_outcome(&outcome);
                if let Some(recorder) = &mut self.recorder {
                    recorder.answered(client, &outcome);
                }
                // What a leader refuses by itself is nowhere in the log.
                let unheard = |outcome: &Outcome| {
                    matches!(outcome, Outcome::Refused { refusal: Refusal::Membership { .. } })
                };
                match &request.ask {
                    WriteAsk::DeleteVm { .. } if unheard(&outcome) && maybe => {}
                    WriteAsk::DeleteVm { .. } if unheard(&outcome) => {
                        self.checker.write_denied(&request.id, now_us);
                    }
                    _ => self.checker.write_acknowledged(&request, &outcome, floor, now_us),
                }
                self.finish(client);
            }
            Err(SubmitError::Unavailable(_)) if !maybe && self.gives_up() => {
                self.checker.write_denied(&request.id, now_us);
                if let Some(recorder) = &mut self.recorder {
                    recorder.denied(client);
                }
                self.counts.gave_up += 1;
                self.finish(client);
            }
            Err(SubmitError::Unavailable(_)) => self.queue.after(RETRY_US, Event::Client { client }),
            Err(SubmitError::Unknown(_)) => self.op_unknown(client),
        }
    }

    fn gives_up(&mut self) -> bool {
        !self.liveness.is_on() && self.rng.chance(1, 8)
    }

    /// It may have happened: tried again under the same id, or left at that.
    fn op_unknown(&mut self, client: usize) {
        if self.gives_up() {
            self.counts.gave_up += 1;
            if let Some(recorder) = &mut self.recorder {
                recorder.gave_up(client);
            }
            return self.finish(client);
        }
        if let Some(op) = &mut self.clients[client].op {
            op.attempt = None;
            op.maybe = true;
        }
        self.counts.retries += 1;
        self.queue.after(RETRY_US, Event::Client { client });
    }

    fn finish(&mut self, client: usize) {
        self.clients[client].op = None;
        let think = self.options.think_ms * 1_000;
        let wait = think / 2 + self.rng.below(think + 1);
        self.queue.after(wait, Event::Client { client });
    }

    /// A list was read: of the state that the agent had applied when it was served. Or nobody confirmed it:
    /// then another agent is asked.
    pub(crate) fn client_read(&mut self, at: MachineId, (client, attempt): (usize, u64), served: bool) {
        let now_us = self.queue.now_us();
        if !served {
            let Some(op) = self.waiting_op(client, attempt) else { return };
            op.attempt = None;
            return self.queue.after(RETRY_US, Event::Client { client });
        }
        let Some(index) = self.machines[at].node().map(|node| node.summary().applied) else { return };
        let Some(op) = self.waiting_op(client, attempt) else { return };
        let floor = op.floor;
        self.counts.reads += 1;
        self.checker.read_served(index, floor, now_us);
        if let (Some(recorder), Some(node)) = (&mut self.recorder, self.machines[at].node()) {
            recorder.read(client, node.state());
        }
        self.finish(client);
    }

    pub(crate) fn handle_client_timeout(&mut self, client: usize, attempt: u64) {
        let Some(op) = self.waiting_op(client, attempt) else { return };
        if let Some((_, at)) = op.attempt {
            self.waiters_gave_up(at, |waiter| {
                matches!(waiter, Waiter::Client { op, .. } | Waiter::Reader { op, .. } if *op == attempt)
            });
        }
        self.op_unknown(client);
    }

    /// The agent that these clients talked to is gone.
    pub(crate) fn client_connections_end(&mut self, at: MachineId) {
        for client in 0..self.clients.len() {
            let attempt = self.clients[client].op.as_ref().and_then(|op| op.attempt);
            if attempt.is_some_and(|(_, machine)| machine == at) {
                self.op_unknown(client);
            }
        }
    }
}
