//! What a node resumes from: what the store holds, decoded, and refused when its parts contradict each other.

use blixard_model::{RaftId, mutant};
use raft::eraftpb::{Entry, HardState, Snapshot};

use crate::accept;
use crate::stored_form::{self, Durable};

/// The content of a store in Raft's types.
pub(crate) struct Resumed {
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) hard_state: HardState,
}

impl Resumed {
    /// Reads what the store holds.
    ///
    /// # Errors
    /// It cannot be understood, or no log is like this.
    pub(crate) fn read(raft_id: RaftId, durable: &Durable) -> Result<Self, String> {
        let mut snapshot = durable.snapshot.as_ref().map(stored_form::decode_snapshot).transpose()?;
        if mutant::lives("conf-state-of-self") && durable.hard_state.term > 1 {
            let known = snapshot.get_or_insert_default().mut_metadata().mut_conf_state();
            known.voters = vec![raft_id.0];
        }
        let entries = durable.entries.iter().map(stored_form::decode_entry).collect::<Result<Vec<_>, _>>()?;
        check(snapshot.as_ref(), &entries, &durable.hard_state)?;
        let stored_form::HardState { mut term, mut vote, mut commit } = durable.hard_state;
        if mutant::lives("restart-resets-term") {
            let meta = snapshot.as_ref().map(|snapshot| snapshot.get_metadata().clone()).unwrap_or_default();
            (term, vote, commit) = (meta.term, 0, meta.index);
        }
        let hard_state = HardState { term, vote, commit, ..HardState::default() };
        Ok(Self { snapshot, entries, hard_state })
    }
}

/// A store whose parts contradict each other would make Raft panic later, or worse, go on.
fn check(
    snapshot: Option<&Snapshot>,
    entries: &[Entry],
    hard_state: &stored_form::HardState,
) -> Result<(), String> {
    let stored_form::HardState { term: last_term, commit, .. } = *hard_state;
    accept::check_numbers(&[last_term, commit])?;
    let base = snapshot.map_or((0, 0), |s| (s.get_metadata().index, s.get_metadata().term));
    if let Some(snapshot) = snapshot {
        accept::check_snapshot(snapshot, last_term)?;
    }
    let mut term = base.1;
    for (expected, entry) in (base.0 + 1..).zip(entries) {
        if entry.index != expected {
            return Err(format!("entry {expected} is missing, {} follows", entry.index));
        }
        if entry.term == 0 || entry.term < term {
            return Err(format!("the term goes backwards at entry {expected}: {term}, then {}", entry.term));
        }
        term = entry.term;
    }
    if term > last_term {
        return Err(format!("an entry has term {term}, later than the node's own, {last_term}"));
    }
    let last = base.0 + entries.len() as u64;
    if commit < base.0 || commit > last {
        let base = base.0;
        return Err(format!(
            "commit {commit} is not between the snapshot at {base} and the last entry {last}"
        ));
    }
    Ok(())
}
