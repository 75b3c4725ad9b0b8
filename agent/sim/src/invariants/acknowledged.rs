//! What a client was told: an acknowledged write is in the agreed log with that outcome, no write changes the
//! state twice, and one that was said not to have happened never does.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{Outcome, RequestId, WriteRequest};

use super::canon::AppliedCommand;

#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Where each request was first applied, and with which outcome.
    first: BTreeMap<RequestId, (u64, Outcome)>,
    denied: BTreeSet<RequestId>,
    count: u64,
}

impl Acknowledged {
    /// A command was applied at an index.
    pub(crate) fn applied(&mut self, index: u64, applied: Option<&AppliedCommand>) -> Result<(), String> {
        let Some(AppliedCommand { request, outcome, changed }) = applied else { return Ok(()) };
        let id = &request.id;
        if self.denied.contains(id) {
            return Err(format!(
                "request {id} was said not to have happened, and is applied at index {index}"
            ));
        }
        let Some((first, before)) = self.first.get(id) else {
            self.first.insert(id.clone(), (index, outcome.clone()));
            return Ok(());
        };
        // What agents say of themselves is idempotent and not remembered.
        if !id.as_str().starts_with("agent-") && (*changed || before != outcome) {
            return Err(format!(
                "request {id} was applied at index {first} and again at {index}: {outcome:?}"
            ));
        }
        Ok(())
    }

    /// A client was told an outcome. Returns where it was applied.
    pub(crate) fn acknowledge(&mut self, request: &WriteRequest, outcome: &Outcome) -> Result<u64, String> {
        self.count += 1;
        match self.first.get(&request.id) {
            Some((index, applied)) if applied == outcome => Ok(*index),
            Some((index, applied)) => {
                Err(format!("{} was told {outcome:?}, index {index} gave {applied:?}", request.id))
            }
            None => Err(format!("{} was acknowledged and is nowhere in the log", request.id)),
        }
    }

    pub(crate) fn deny(&mut self, id: &RequestId) -> Result<(), String> {
        self.denied.insert(id.clone());
        match self.first.get(id) {
            Some((index, _)) => Err(format!("{id} was said not to have happened, and was at index {index}")),
            None => Ok(()),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
