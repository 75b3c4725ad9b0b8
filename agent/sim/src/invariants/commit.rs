//! Commit and applied never go back while an agent runs, and nothing is applied that is not committed.

use std::collections::BTreeMap;

use super::seen::SeenNode;

#[derive(Debug, Default)]
pub(crate) struct CommitMonotonic(BTreeMap<usize, (u64, u64)>);

impl CommitMonotonic {
    pub(crate) fn check(&mut self, seen: &SeenNode<'_>) -> Result<(), String> {
        let now = (seen.raft.commit, seen.raft.applied);
        let before = self.0.insert(seen.machine, now).unwrap_or((0, 0));
        if now.0 < before.0 || now.1 < before.1 || now.1 > now.0 {
            return Err(format!("n{}: (commit, applied) were {before:?} and are {now:?}", seen.machine + 1));
        }
        Ok(())
    }

    pub(crate) fn process_ended(&mut self, machine: usize) {
        self.0.remove(&machine);
    }
}
