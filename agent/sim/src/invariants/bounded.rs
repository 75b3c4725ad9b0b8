//! Everything that a node keeps has a bound: who waits, by what can be under way at all; the log, by what it
//! is told to keep.

use blixard_consensus::Limits;
use blixard_core::state::{REQUESTS_MAX, VMS_MAX};

use super::seen::SeenNode;

/// Entries that may stand beyond what is cut: not applied, or not worth a snapshot yet.
const SLACK: u64 = 512;

/// The bounds of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Of the log.
    pub(crate) limits: Limits,
    /// Writes and reads that may wait in one node. Who gave up is forgotten with the next tick, so it is a
    /// little more than what can be under way.
    pub(crate) waiting: usize,
}

pub(crate) fn check(seen: &SeenNode<'_>, Bounds { limits, waiting }: Bounds) -> Result<(), String> {
    let node = seen.machine + 1;
    if seen.waiting.0 > waiting || seen.waiting.1 > waiting {
        return Err(format!("n{node}: {:?} proposals and reads wait", seen.waiting));
    }
    if seen.state.requests.len() > REQUESTS_MAX || seen.state.vms.len() > VMS_MAX {
        return Err(format!("n{node}: the state has outgrown its bounds"));
    }
    let kept = seen
        .mirror
        .entries
        .range(seen.mirror.snapshot_index + 1..=seen.raft.applied.max(seen.mirror.snapshot_index + 1))
        .count() as u64;
    let bound = (limits.compact_entries + 2 * limits.keep_entries) as u64 + SLACK;
    if kept > bound {
        return Err(format!("n{node}: {kept} applied entries are kept, {bound} are the most"));
    }
    Ok(())
}
