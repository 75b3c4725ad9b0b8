//! The same entries and the same state at the same index, on every node: whether it applied them one by one,
//! replayed them after a crash, or began from a snapshot.

use std::collections::BTreeMap;

use super::canon::{Canon, state_hash};
use super::seen::SeenNode;

#[derive(Debug, Default)]
pub(crate) struct StateEqual {
    /// What each run has been compared up to.
    compared: BTreeMap<(usize, u64), u64>,
}

impl StateEqual {
    pub(crate) fn check(&mut self, seen: &SeenNode<'_>, canon: &Canon) -> Result<(), String> {
        let applied = seen.raft.applied;
        let from = self.compared.get(&(seen.machine, seen.run)).copied();
        if from == Some(applied) {
            return Ok(());
        }
        self.compared.insert((seen.machine, seen.run), applied);
        let node = seen.machine + 1;
        for index in from.unwrap_or(0) + 1..=applied {
            let (Some(agreed), Some(entry)) = (canon.get(index), seen.mirror.entries.get(&index)) else {
                continue;
            };
            if (agreed.term, agreed.hash) != (entry.term, entry.hash) {
                return Err(format!("n{node} has applied another entry {index} than the first that did"));
            }
        }
        // A node that was admitted and has no state yet stands at 0.
        if applied > 0 && canon.state_at(applied) != Some(state_hash(seen.state)) {
            return Err(format!("n{node} has another state at index {applied} than a replay from the birth"));
        }
        Ok(())
    }
}
