//! An operator who disarms the cluster for a while, arms it again, and chooses other terms of leases.

use blixard_model::{ClusterVersion, LeaseTermsChoice, Outcome, RequestId, WriteAsk, WriteRequest};
use blixard_node::SubmitError;
use blixard_node::host::Want;

use super::World;
use super::parts::event::{Event, MachineId};
use super::parts::machine::Waiter;
use super::parts::names::text_id;
use crate::options::below;

/// How long an agent may try, in ms.
const PATIENCE_MS: u64 = 6_000;

/// What the operator chooses from: shorter and longer than most leases begin with.
const CHOICES: [LeaseTermsChoice; 4] = [
    LeaseTermsChoice { lease_ms: 3_000, stop_ms: 3_000, margin_ms: 500 },
    LeaseTermsChoice { lease_ms: 5_000, stop_ms: 3_000, margin_ms: 1_000 },
    LeaseTermsChoice { lease_ms: 10_000, stop_ms: 5_000, margin_ms: 2_000 },
    LeaseTermsChoice { lease_ms: 14_000, stop_ms: 3_000, margin_ms: 500 },
];

impl World {
    pub(crate) fn handle_lease_operator(&mut self) {
        if self.liveness.is_on() {
            return;
        }
        let wait = 1_000_000 + self.supervisors.below(10_000_000);
        self.queue.after(wait, Event::LeaseOperator);
        // Before that it waits for the last upgrade.
        if self.checker.state().is_none_or(|state| state.version < ClusterVersion::HOLDS) {
            return;
        }
        let in_cluster: Vec<MachineId> =
            (0..self.machines.len()).filter(|id| self.machines[*id].node().is_some()).collect();
        let chosen = below(&mut self.supervisors, in_cluster.len().max(1));
        let Some(at) = in_cluster.get(chosen).copied() else { return };
        let ask = match self.supervisors.below(8) {
            0..=3 => WriteAsk::Disarm { for_ms: 10_000 + self.supervisors.below(10_000) },
            4 => WriteAsk::Arm,
            _ => WriteAsk::SetLeaseTerms { terms: CHOICES[below(&mut self.supervisors, CHOICES.len())] },
        };
        let number = self.new_id();
        let id: RequestId = text_id(&format!("leases-{number}"));
        let want = Want::Change(Box::new(WriteRequest { id, ask: ask.clone() }.into()));
        self.want(at, Waiter::LeaseOperator(ask), want, PATIENCE_MS);
    }

    pub(crate) fn lease_operator_answered(&mut self, ask: &WriteAsk, end: Result<Outcome, SubmitError>) {
        self.trace.line(self.queue.now_us(), || format!("for {ask:?} the operator hears {end:?}"));
        if !matches!(end, Ok(Outcome::Done { .. })) {
            return;
        }
        match ask {
            WriteAsk::Disarm { .. } => self.counts.disarms += 1,
            WriteAsk::Arm => self.counts.arms += 1,
            _ => self.counts.terms_chosen += 1,
        }
    }
}
