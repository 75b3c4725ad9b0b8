//! The wiring of an agent without a cluster: rounds of questions, a look at what came back, the birth.

use blixard_model::formation::Identity;
use blixard_model::wire::PeerRequest;
use blixard_node::birth;
use blixard_node::forming::{self, Birth, Configured, Formed};

use super::World;
use super::agent::{ANSWER_US, End};
use super::event::{Event, MachineId};
use super::faults::Fault;
use super::machine::{Call, Forming, Phase, Process};
use crate::options::below;

/// How long a slow disk takes to bind a store to a cluster at most, in µs.
const BIND_US: u64 = 6_000_000;

impl World {
    pub(crate) fn handle_forming_round(&mut self, id: MachineId) {
        let now_ms = self.machines[id].mono_ms(self.queue.now_us());
        let me = self.identity_of(id, None);
        let asked = |peer: &MachineId| {
            let machine = &self.machines[id];
            let named = machine.ticket.as_ref().is_some_and(|it| it.names(self.machines[*peer].endpoint_id));
            let process = machine.process.as_ref();
            let told = process.is_some_and(|it| it.is_told_of(self.machines[*peer].endpoint_id));
            *peer != id && (*peer < machine.listed || named || told)
        };
        let peers: Vec<MachineId> = (0..self.machines.len()).filter(asked).collect();
        let Some(process) = &mut self.machines[id].process else { return };
        let run = process.run;
        let Some(Forming { answers, pace, birth: None, .. }) = process.forming_mut() else { return };
        // The pace changed since this was planned, and another one is.
        if pace.due_ms().is_none_or(|due| now_ms < due) {
            return;
        }
        pace.begin();
        answers.clear();
        // Who does not answer in this round has not answered.
        process.calls.retain(|_, call| !matches!(call, Call::Identify { .. }));
        for peer in peers {
            let call = self.new_id();
            let what = (call, Call::Identify { of: peer, version: None });
            self.ask((id, peer), what, PeerRequest::Identify { me: me.clone() }, ANSWER_US);
        }
        self.queue.after(0, Event::FormingLook { machine: id, run });
    }

    /// Looks once everybody who was asked has answered, or did not in time: as the agent does.
    pub(crate) fn handle_forming_look(&mut self, id: MachineId) {
        let now_ms = self.machines[id].mono_ms(self.queue.now_us());
        let me = self.identity_of(id, None);
        let (declared, joins) = (self.declared(id), self.machines[id].joins);
        let Some(process) = &mut self.machines[id].process else { return };
        let run = process.run;
        if process.calls.values().any(|call| matches!(call, Call::Identify { .. })) {
            return;
        }
        let Some(forming) = process.forming_mut() else { return };
        // Between two rounds there is nothing to look at.
        if forming.pace.due_ms().is_some() {
            return;
        }
        let Forming { store, answers, promise, waiting_for, pace, birth, told: known, .. } = forming;
        let members: Vec<_> = forming::told_members(answers).iter().map(|it| it.endpoint_id).collect();
        if !members.is_empty() && *known != members {
            *known = members;
            self.links_due = true;
        }
        // Its place came by the other way meanwhile.
        if birth.is_some() {
            return;
        }
        let list = Configured { cluster_name: &self.cluster_name, declared: &declared, joins };
        let formed = match forming::advance(store, &me, list, answers) {
            Ok(formed) => formed,
            Err(error) => {
                let end = self.why_not_written(id, &error);
                return self.end_run(id, end);
            }
        };
        pace.end(now_ms, answers, &formed);
        let now_us = self.queue.now_us();
        self.trace.line(now_us, || format!("n{} {}", id + 1, told(&formed)));
        match formed {
            Formed::Promised(genesis) => *promise = Some(genesis),
            Formed::Waiting(reasons) => *waiting_for = reasons,
            Formed::Born(born) => {
                *birth = Some(born);
                return self.begin_to_bind(id, run);
            }
        }
        self.pay_for_syncs(id);
        self.plan_forming_round(id);
    }

    /// Until the store is bound the agent still answers that it has none of a cluster. On a slow disk that is
    /// long: what the others do meanwhile, one of them with a new disk, is what promises are for.
    pub(crate) fn begin_to_bind(&mut self, id: MachineId, run: u64) {
        let slow = self.options.hard_birth && self.rng.chance(1, 2);
        let wait = if slow { self.rng.below(BIND_US) } else { 0 };
        self.queue.after(wait, Event::Bind { machine: id, run });
        if slow && self.rng.chance(1, 2) {
            let other = below(&mut self.rng, self.machines.len());
            let soon = self.rng.below(100_000);
            self.queue.after(soon, Event::Fault(Fault::WipeUnborn(other)));
        }
    }

    pub(crate) fn handle_bind(&mut self, id: MachineId) {
        let endpoint_id = self.machines[id].endpoint_id;
        let name = self.machines[id].name.clone();
        let process = self.machines[id].process.as_mut();
        let Some(Forming { store, birth, .. }) = process.and_then(Process::forming_mut) else { return };
        let Some(birth) = birth.take() else { return };
        if let Err(error) = birth::bind(store, endpoint_id, &name, birth) {
            let end = match &error {
                birth::BindError::Store(error) => self.why_not_written(id, error),
                other => End::Wrong(other.to_string()),
            };
            return self.end_run(id, end);
        }
        self.pay_for_syncs(id);
        self.resume(id);
    }

    /// The next round of questions is when the pace says so. One that was planned before is not taken back:
    /// it finds that it is not due.
    fn plan_forming_round(&mut self, id: MachineId) {
        let machine = &self.machines[id];
        let Some(process) = &machine.process else { return };
        let Phase::Forming(forming) = &process.phase else { return };
        let Some(due_ms) = forming.pace.due_ms() else { return };
        let (run, now_ms) = (process.run, machine.mono_ms(self.queue.now_us()));
        let wait = machine.true_us(due_ms.saturating_sub(now_ms) * 1_000) + 1_000;
        self.queue.after(wait, Event::FormingRound { machine: id, run });
    }

    /// Somebody asked who this agent is: without a cluster it may hurry.
    pub(crate) fn heard_while_forming(&mut self, id: MachineId, asker: &Identity) {
        let declared = self.declared(id);
        let process = self.machines[id].process.as_mut();
        let Some(Forming { pace, .. }) = process.and_then(Process::forming_mut) else { return };
        let planned = pace.due_ms();
        pace.heard(&declared, asker);
        if pace.due_ms() != planned {
            self.plan_forming_round(id);
        }
    }
}

/// A step of a birth, for the trace.
fn told(formed: &Formed) -> String {
    let id = |genesis| blixard_core::formation::cluster_id(genesis).short();
    match formed {
        Formed::Promised(genesis) => format!("promises cluster {}", id(genesis)),
        Formed::Waiting(reasons) => format!("waits: {}", reasons.join("; ")),
        Formed::Born(Birth::Formed(genesis)) => format!("forms cluster {}", id(genesis)),
        Formed::Born(Birth::Joined { raft_id, .. }) => format!("takes its place as raft id {raft_id}"),
    }
}
