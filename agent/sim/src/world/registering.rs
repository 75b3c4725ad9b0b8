//! What an agent offers, and the log's knowledge of it: the agent's own decisions with the simulator's clock.

use blixard_core::state::NodeOffer;
use blixard_model::{Outcome, Request};
use blixard_node::{Registration, RegistrationStep, SubmitError};

use super::event::{Event, MachineId};
use super::machine::Purpose;
use super::{World, address, text_id};

/// How long one attempt may take, in ms.
const DECLARE_MS: u64 = 10_000;

impl World {
    pub(crate) fn new_registration(&mut self, id: MachineId) -> Registration {
        let machine = &self.machines[id];
        let (endpoint_id, capacity) = (machine.endpoint_id, machine.capacity);
        let offer =
            NodeOffer { capacity, addresses: vec![address(id)], relay_url: None, witness: machine.witness };
        Registration::new(endpoint_id, offer, self.rng.next_u64())
    }

    /// Something changed, or a pause is over: does what the registration says next.
    pub(crate) fn register(&mut self, id: MachineId) {
        let now_ms = self.machines[id].mono_ms(self.queue.now_us());
        let endpoint_id = self.machines[id].endpoint_id;
        let Some(process) = &mut self.machines[id].process else { return };
        if process.declares() {
            return;
        }
        let run = process.run;
        let super::machine::Phase::Running(node) = &process.phase else { return };
        let standing = Registration::standing(node.state(), endpoint_id, process.registration.offer());
        match process.registration.next(now_ms, standing, node.summary()) {
            RegistrationStep::Nothing | RegistrationStep::Refused(_) => {}
            RegistrationStep::Wait { until_ms } => {
                let wait = self.machines[id].true_us((until_ms - now_ms) * 1_000) + 1_000;
                self.queue.after(wait, Event::Register { machine: id, run });
            }
            RegistrationStep::Submit(command) => {
                let request_id = self.new_id();
                let request = Request { id: text_id(&format!("agent-{request_id}")), command };
                self.submit(id, request, DECLARE_MS, Purpose::Declare);
            }
        }
    }

    /// An attempt ended.
    pub(crate) fn registration_ended(&mut self, id: MachineId, end: Result<Outcome, SubmitError>) {
        let now_ms = self.machines[id].mono_ms(self.queue.now_us());
        let Some(process) = &mut self.machines[id].process else { return };
        let ended = match end {
            Ok(Outcome::Done { .. } | Outcome::Admitted { .. }) => Ok(()),
            Ok(Outcome::Refused { refusal }) => Err(refusal.to_string()),
            Err(error) => Err(error.to_string()),
        };
        process.registration.note(now_ms, ended);
        self.register(id);
    }
}
