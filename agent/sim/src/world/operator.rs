//! The operator: gives tickets to machines that are on no list, takes some back, removes nodes that run and
//! nodes that are dead for good, and takes the machines that were removed for new ones.

use blixard_core::formation::contacts;
use blixard_core::state::MemberRef;
use blixard_core::ticket::hash_of;
use blixard_model::{
    JoinTicket, NodeName, Outcome, RaftId, RequestId, TicketId, TicketRecord, TicketSecret, VmsFate,
    WriteAsk, WriteRequest,
};
use blixard_node::SubmitError;
use blixard_node::host::{NodeRemoval, Want};

use super::World;
use super::parts::event::{Event, MachineId};
use super::parts::machine::{DiskHealth, SimMachine, Waiter};
use super::parts::names::text_id;
use super::parts::operator::{OperatorTask, What};
use crate::options::below;

/// How long an agent may try, in ms.
const PATIENCE_MS: u64 = 6_000;
/// When the operator gives up on an agent, in µs.
const TIMEOUT_US: u64 = 9_000_000;
/// How often it tries a removal whose end it does not know.
const TRIES: u32 = 5;

impl World {
    pub(crate) fn handle_operator(&mut self) {
        let calm = self.liveness.is_on();
        let wait = if calm { 1_000_000 } else { 1_000_000 + self.rng.below(4_000_000) };
        self.queue.after(wait, Event::Operator);
        if self.checker.state().is_none() || self.still_busy() {
            return;
        }
        self.unlist_unknown();
        let waiting = self.waiting_for_a_ticket();
        if !waiting.is_empty() && (calm || self.rng.chance(2, 3)) {
            return self.give_ticket(&waiting);
        }
        if calm {
            return;
        }
        match self.rng.below(9) {
            0 => self.revoke_some(),
            1..=3 => self.renew_removed(),
            8 => self.forget_departed(),
            _ => self.remove_some(),
        }
    }

    /// A node is to leave: who is left has to be whole.
    pub(crate) fn is_removing(&self) -> bool {
        let task = self.operator.task.as_ref();
        task.is_some_and(|task| matches!(task.what, What::Remove { .. }))
            || self.machines.iter().any(|it| it.retired)
    }

    /// Waits for an answer; without one in time it asks another agent, or leaves it at that.
    fn still_busy(&mut self) -> bool {
        let now_us = self.queue.now_us();
        match &self.operator.task {
            None => false,
            Some(task) if now_us < task.until_us => true,
            Some(_) => {
                self.no_answer();
                true
            }
        }
    }

    fn ask_somebody(&mut self, what: What, want: Want) {
        let number = self.new_id();
        let until_us = self.queue.now_us() + TIMEOUT_US;
        self.operator.task = Some(OperatorTask { number, what, until_us });
        let in_cluster: Vec<MachineId> =
            (0..self.machines.len()).filter(|id| self.machines[*id].node().is_some()).collect();
        if let Some(at) = in_cluster.get(below(&mut self.rng, in_cluster.len().max(1))).copied()
            && !self.liveness.is_cut_off(at)
        {
            self.want(at, Waiter::Operator(number), want, PATIENCE_MS);
        }
    }

    fn write(&mut self, ask: WriteAsk) -> Want {
        let request = WriteRequest { id: self.new_request_id(), ask };
        Want::Change(Box::new(request.into()))
    }

    fn new_request_id(&mut self) -> RequestId {
        let id = self.new_id();
        text_id(&format!("operator-{id}"))
    }

    /// Machines that are to join and have no ticket, or one that has ended: its agent says so, and shows for
    /// how long it has tried.
    fn waiting_for_a_ticket(&self) -> Vec<MachineId> {
        let open = |id: TicketId| {
            let record = self.checker.state().and_then(|state| state.tickets.get(&id));
            record.is_some_and(TicketRecord::is_open)
        };
        let waits = |id: &MachineId| {
            let machine = &self.machines[*id];
            let has_one = machine.ticket.as_ref().is_some_and(|held| open(held.id));
            machine.joins && !has_one && machine.is_unborn()
        };
        (0..self.machines.len()).filter(waits).collect()
    }

    fn give_ticket(&mut self, waiting: &[MachineId]) {
        let calm = self.liveness.is_on();
        let first = below(&mut self.rng, waiting.len());
        let mut machines = vec![waiting[first]];
        if !calm && waiting.len() > 1 && self.rng.chance(1, 4) {
            machines.push(waiting[(first + 1) % waiting.len()]);
        }
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.new_id().to_be_bytes());
        let id = TicketId::from_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]);
        let secret = TicketSecret::from_bytes(bytes);
        let ttl_ms = if calm { 3_600_000 } else { [10_000, 20_000, 3_600_000][below(&mut self.rng, 3)] };
        let ask = WriteAsk::CreateTicket { id, name: None, hash: hash_of(&secret), ttl_ms };
        let request = self.write(ask);
        self.ask_somebody(What::Give { id, secret, machines }, request);
    }

    /// Carries the ticket to the machines; for two of them it is one too few.
    fn carry_ticket(&mut self, id: TicketId, secret: &TicketSecret, machines: &[MachineId]) {
        // A node without a list forms a cluster of its own each time its store is empty: not any more.
        if self.options.nodes == 1 {
            self.machines[0].joins = true;
        }
        let Some(state) = self.checker.state() else { return };
        let (cluster_id, contacts) = (state.cluster_id(), contacts(state));
        for machine in machines.iter().copied() {
            let (contacts, secret) = (contacts.clone(), secret.clone());
            let ticket = JoinTicket { cluster_id, id, secret, contacts };
            // Some come when it has been used, taken back, or is over.
            let spread = if self.liveness.is_on() { 1_000 } else { 15_000_000 };
            let wait = if self.rng.chance(1, 2) { 1_000 } else { self.rng.below(spread) };
            self.queue.after(wait, Event::Ticket { machine, ticket: Box::new(ticket) });
        }
    }

    /// The ticket is brought to a machine; to its agent, if one runs.
    pub(crate) fn handle_ticket(&mut self, machine: MachineId, ticket: JoinTicket) {
        if !self.machines[machine].is_unborn() {
            return;
        }
        let want = Want::Join { ticket: Box::new(ticket.clone()), text: String::new() };
        self.want(machine, Waiter::Ticket(ticket), want, PATIENCE_MS);
    }

    fn revoke_some(&mut self) {
        let Some(state) = self.checker.state() else { return };
        let open: Vec<TicketId> = state.tickets.values().filter(|it| it.is_open()).map(|it| it.id).collect();
        let Some(id) = open.get(below(&mut self.rng, open.len().max(1))).copied() else { return };
        let request = self.write(WriteAsk::RevokeTicket { id });
        self.ask_somebody(What::Revoke, request);
    }

    /// A machine that lost its disk before it learned that it was removed is let in by nobody on its list,
    /// and one that no member's list has any more is answered by nobody: it is to join.
    fn unlist_unknown(&mut self) {
        for id in 0..self.machines.len() {
            if self.machines[id].is_unborn()
                && !self.machines[id].joins
                && (self.has_removed(id) || self.is_listed_nowhere(id))
            {
                let machine = &mut self.machines[id];
                (machine.joins, machine.listed) = (true, 0);
                // An agent reads its configuration when it starts.
                self.drop_process(id, false);
                self.schedule_start(id, 100_000, 1_000_000);
            }
        }
    }

    /// Whether nobody can tell the leader of it: its place was let go, and who listed it is a member no more
    /// or came back without a list. Or the place is kept, and there is no member left on its own list: it
    /// answers to nobody else.
    fn is_listed_nowhere(&self, id: MachineId) -> bool {
        let Some(state) = self.checker.state() else { return false };
        let is_member = |machine: &SimMachine| state.member_by_endpoint(machine.endpoint_id).is_some();
        let own = &self.machines[id];
        let meets = |(other, machine): (MachineId, &SimMachine)| {
            let listed = if is_member(own) { other < own.listed } else { id < machine.listed };
            other != id && listed && is_member(machine)
        };
        !self.machines.iter().enumerate().any(meets)
    }

    /// A machine that was removed gets an empty disk, and is to join again.
    fn renew_removed(&mut self) {
        for id in 0..self.machines.len() {
            if !self.machines[id].removed {
                continue;
            }
            let machine = &mut self.machines[id];
            machine.disk.wipe();
            machine.disk.heal();
            (machine.removed, machine.retired, machine.rolled_back) = (false, false, false);
            (machine.joins, machine.listed, machine.ticket) = (true, 0, None);
            (machine.copy, machine.store_id) = (None, None);
            machine.disk_health = DiskHealth::Good;
            self.trace.line(self.queue.now_us(), || format!("n{} is to join anew", id + 1));
            self.schedule_start(id, 100_000, 1_000_000);
        }
    }

    fn remove_some(&mut self) {
        let Some(state) = self.checker.state() else { return };
        let members: Vec<RaftId> = state.nodes.raft_ids().collect();
        if members.len() < 3 || !self.all_whole() {
            return;
        }
        let raft_id = members[below(&mut self.rng, members.len())];
        let Some(member) =
            self.checker.state().and_then(|state| state.nodes.member(raft_id)).map(MemberRef::to_member)
        else {
            return;
        };
        let Some(machine) = self.machine_of(member.node.endpoint_id) else { return };
        let has_vms =
            self.checker.state().is_some_and(|state| state.placed_on(&member.node.name).next().is_some());
        let dead = self.rng.chance(1, 2);
        if dead {
            self.machines[machine].retired = true;
            self.lose_power(machine);
        }
        let fate = if self.rng.chance(1, 2) { VmsFate::Delete } else { VmsFate::Keep };
        let vms = (dead && has_vms).then_some(fate);
        let removal = NodeRemoval { name: member.node.name, force: dead, vms, id: self.new_request_id() };
        self.trace.line(self.queue.now_us(), || format!("n{} is to be removed (dead: {dead})", machine + 1));
        let want = Want::RemoveNode(Box::new(removal.clone()));
        self.ask_somebody(What::Remove { machine, raft_id, removal, tries: 0 }, want);
    }

    /// VMs of a node that was removed without them are deleted after all.
    fn forget_departed(&mut self) {
        let Some(state) = self.checker.state() else { return };
        let departed: Vec<NodeName> = state.nodes.departed().map(|(_, node)| node.name.clone()).collect();
        let Some(name) = departed.get(below(&mut self.rng, departed.len().max(1))).cloned() else { return };
        let id = self.new_request_id();
        // Without force: one that has joined again by then is to stay.
        let removal = NodeRemoval { name, force: false, vms: Some(VmsFate::Delete), id };
        self.ask_somebody(What::Forget, Want::RemoveNode(Box::new(removal)));
    }

    pub(crate) fn operator_answered(&mut self, number: u64, end: Result<Outcome, SubmitError>) {
        let Some(task) = self.operator.task.take_if(|task| task.number == number) else { return };
        self.trace.line(self.queue.now_us(), || format!("the operator hears {end:?}"));
        match (task.what, end) {
            (What::Give { id, secret, machines }, Ok(Outcome::Done { .. })) => {
                self.carry_ticket(id, &secret, &machines);
            }
            (What::Give { .. } | What::Revoke | What::Forget, _) => {}
            (What::Remove { machine, raft_id, .. }, Ok(Outcome::Done { .. })) => {
                if self.checker.state().is_some_and(|state| state.nodes.has_member(raft_id)) {
                    let what = format!("n{} is removed, the operator hears, and it is not", machine + 1);
                    self.fail("removed_when_told", what);
                }
                self.is_removed(machine);
            }
            (What::Remove { machine, .. }, Ok(_)) => self.stays(machine),
            (what @ What::Remove { .. }, Err(_)) => {
                self.operator.task = Some(OperatorTask { number, what, until_us: 0 });
            }
        }
    }

    fn no_answer(&mut self) {
        let Some(task) = self.operator.task.take() else { return };
        let What::Remove { machine, raft_id, removal, tries } = task.what else { return };
        if tries >= TRIES || self.liveness.is_on() {
            return self.stays(machine);
        }
        let want = Want::RemoveNode(Box::new(removal.clone()));
        self.ask_somebody(What::Remove { machine, raft_id, removal, tries: tries + 1 }, want);
    }

    fn is_removed(&mut self, machine: MachineId) {
        self.counts.removals += 1;
        if !self.machines[machine].retired {
            return;
        }
        if self.rng.chance(1, 2) {
            // Somebody switches it on again after all.
            self.machines[machine].retired = false;
            self.schedule_start(machine, 500_000, 5_000_000);
        } else {
            self.machines[machine].removed = true;
        }
    }

    /// It was refused, or nobody knows: the machine is switched on again.
    fn stays(&mut self, machine: MachineId) {
        if std::mem::take(&mut self.machines[machine].retired) {
            self.schedule_start(machine, 500_000, 2_000_000);
        }
    }

    /// Whether the cluster has agreed that this machine's node is removed.
    pub(crate) fn has_removed(&self, id: MachineId) -> bool {
        let endpoint_id = self.machines[id].endpoint_id;
        self.checker.state().is_some_and(|state| state.nodes.departed().any(|(id, _)| id == endpoint_id))
    }

    /// What the operator still waits for when everything is mended.
    pub(crate) fn operator_misses(&self) -> Vec<String> {
        let Some(state) = self.checker.state() else { return Vec::new() };
        let mut missing = Vec::new();
        for (id, machine) in self.machines.iter().enumerate() {
            let left = machine.node().is_some_and(|node| state.has_left(node.summary().raft_id));
            if left && !self.liveness.is_cut_off(id) {
                missing.push(format!("{} has not learned that it was removed", machine.name));
            }
        }
        missing
    }
}
