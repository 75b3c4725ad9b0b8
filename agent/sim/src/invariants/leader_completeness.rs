//! Leader completeness: what was committed in an earlier term is in the log of every leader.

use std::collections::BTreeMap;

use blixard_consensus::RaftRole;

use super::canon::Canon;
use super::seen::SeenNode;

#[derive(Debug, Default)]
pub(crate) struct LeaderCompleteness {
    /// The run and term in which each machine was last seen to lead.
    led: BTreeMap<usize, (u64, u64)>,
}

impl LeaderCompleteness {
    pub(crate) fn check(&mut self, seen: &SeenNode<'_>, canon: &Canon) -> Result<(), String> {
        let now = (seen.run, seen.raft.term);
        if seen.raft.role != RaftRole::Leader || self.led.get(&seen.machine) == Some(&now) {
            return Ok(());
        }
        self.led.insert(seen.machine, now);
        let first = seen.mirror.snapshot_index + 1;
        for index in first.max(2)..=canon.last() {
            let Some(agreed) = canon.get(index) else { continue };
            // Known to be committed only in a term that is not below this one: this leader is an old one.
            if agreed.seen_in_term >= seen.raft.term {
                continue;
            }
            let held = seen.mirror.entries.get(&index).is_some_and(|entry| entry.term == agreed.term);
            if !held {
                let (leader, term) = (seen.machine + 1, seen.raft.term);
                return Err(format!("n{leader} leads term {term} without the committed entry {index}"));
            }
        }
        Ok(())
    }
}
