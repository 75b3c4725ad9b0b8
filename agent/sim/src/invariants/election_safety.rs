//! Election safety: at most one leader in a term.

use std::collections::BTreeMap;

use blixard_consensus::RaftRole;
use blixard_model::RaftId;

use super::seen::SeenNode;

#[derive(Debug, Default)]
pub(crate) struct ElectionSafety(BTreeMap<u64, RaftId>);

impl ElectionSafety {
    pub(crate) fn check(&mut self, seen: &SeenNode<'_>) -> Result<(), String> {
        if seen.raft.role != RaftRole::Leader {
            return Ok(());
        }
        let leader = *self.0.entry(seen.raft.term).or_insert(seen.raft.id);
        if leader == seen.raft.id {
            return Ok(());
        }
        Err(format!("term {} has two leaders: raft ids {leader} and {}", seen.raft.term, seen.raft.id))
    }
}
