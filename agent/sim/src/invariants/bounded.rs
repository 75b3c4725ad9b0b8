//! Everything that a node keeps has a bound.

use blixard_consensus::Limits;
use blixard_core::state::{REQUESTS_MAX, VMS_MAX};

use super::Seen;

/// What may wait in one node: the bounds of the consensus crate.
const WAITING_MAX: usize = 4_096;
/// Entries that may stand beyond what is cut: not applied, or not worth a snapshot yet.
const SLACK: u64 = 512;

pub(crate) fn check(seen: &Seen<'_>, limits: Limits) -> Result<(), String> {
    let node = seen.machine + 1;
    if seen.waiting.0 > WAITING_MAX || seen.waiting.1 > WAITING_MAX {
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
