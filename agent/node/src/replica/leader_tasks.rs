//! What this node has under way as leader.

use std::collections::BTreeMap;

use blixard_core::planner::Raising;
use blixard_core::planner::removal::SIGN_TICKS;
use blixard_model::{ClusterVersion, MembershipChange, RaftId};

/// What was proposed or is waited for. `P` waits for the end of a change.
#[derive(Debug)]
pub(super) struct LeaderTasks<P> {
    /// The change of the members that somebody asked for and waits for; there is one at a time.
    asked_change: Option<AskedChange<P>>,
    /// The members whose removal was asked for lately, and when it was first.
    removals_asked: BTreeMap<RaftId, u64>,
    /// When expired tickets were proposed last.
    expiry_proposed: Option<u64>,
    /// The version that it is raising the cluster to; forgotten with the leadership.
    raising: Option<Raising>,
    /// How many commands it has proposed that nobody asked for.
    unasked: u64,
}

/// A change that somebody waits for.
#[derive(Debug)]
struct AskedChange<P> {
    change: MembershipChange,
    waiter: P,
}

impl<P> Default for LeaderTasks<P> {
    fn default() -> Self {
        Self {
            asked_change: None,
            removals_asked: BTreeMap::new(),
            expiry_proposed: None,
            raising: None,
            unasked: 0,
        }
    }
}

impl<P> LeaderTasks<P> {
    /// A change was proposed, and this one waits for its end.
    pub(super) fn await_change(&mut self, change: MembershipChange, waiter: P) {
        self.asked_change = Some(AskedChange { change, waiter });
    }

    /// Somebody waits for a change.
    pub(super) fn has_asked_change(&self) -> bool {
        self.asked_change.is_some()
    }

    /// The change that somebody waits for, and whether it is among the `applied`, once that is decided: it is
    /// applied, or none `is_pending` any more, so that another one came before it.
    pub(super) fn take_ended_change(
        &mut self,
        applied: &[MembershipChange],
        is_pending: bool,
    ) -> Option<(MembershipChange, bool, P)> {
        let is_applied = applied.contains(&self.asked_change.as_ref()?.change);
        if !is_applied && is_pending {
            return None;
        }
        self.asked_change.take().map(|asked| (asked.change, is_applied, asked.waiter))
    }

    /// This node does not lead: what it proposed is the next leader's business. Returns who waits for a
    /// change.
    pub(super) fn give_up(&mut self) -> Option<P> {
        self.raising = None;
        self.asked_change.take().map(|asked| asked.waiter)
    }

    /// The number of a command that nobody asked for; no two in one term have the same.
    pub(super) fn next_unasked(&mut self) -> u64 {
        self.unasked += 1;
        self.unasked
    }

    /// The removal of a member was asked for, and signs of life are awaited.
    pub(super) fn note_removal_asked(&mut self, member: RaftId, tick: u64) {
        self.removals_asked.retain(|_, at| tick.saturating_sub(*at) < SIGN_TICKS);
        self.removals_asked.insert(member, tick);
    }

    /// The members whose removal was asked for lately, and when it was first.
    pub(super) fn removals_asked(&self) -> &BTreeMap<RaftId, u64> {
        &self.removals_asked
    }

    pub(super) fn note_expiry_proposed(&mut self, tick: u64) {
        self.expiry_proposed = Some(tick);
    }

    /// When expired tickets were proposed last.
    pub(super) fn expiry_proposed(&self) -> Option<u64> {
        self.expiry_proposed
    }

    pub(super) fn note_raising(&mut self, raising: Raising) {
        self.raising = Some(raising);
    }

    /// The version that it is raising the cluster to.
    pub(super) fn raising(&self) -> Option<Raising> {
        self.raising
    }

    /// What a node has to support to become a member of a cluster of this version. Between a version's
    /// proposal and its end nobody is let in who does not support it: both are entries of one log, and the
    /// later one counts.
    pub(super) fn required_version(&self, version: ClusterVersion) -> ClusterVersion {
        self.raising.map_or(version, |raising| version.max(raising.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: MembershipChange = MembershipChange::Promote { raft_id: RaftId(2) };
    const OTHER: MembershipChange = MembershipChange::Demote { raft_id: RaftId(2) };

    #[test]
    fn a_change_that_is_asked_for_ends_once() {
        let mut tasks = LeaderTasks::default();
        assert_eq!(tasks.take_ended_change(&[MINE], false), None);
        tasks.await_change(MINE, 'a');
        assert_eq!(tasks.take_ended_change(&[OTHER], true), None);
        assert!(tasks.has_asked_change());
        assert_eq!(tasks.take_ended_change(&[OTHER, MINE], true), Some((MINE, true, 'a')));
        assert_eq!(tasks.take_ended_change(&[MINE], false), None);
        tasks.await_change(MINE, 'b');
        assert_eq!(tasks.take_ended_change(&[OTHER], false), Some((MINE, false, 'b')));
    }

    #[test]
    fn what_is_under_way_ends_with_the_leadership() {
        let mut tasks = LeaderTasks::default();
        tasks.await_change(MINE, 'a');
        tasks.note_raising(Raising { to: ClusterVersion::NEWEST, at_tick: 3 });
        assert_eq!(tasks.required_version(ClusterVersion::FIRST), ClusterVersion::NEWEST);
        assert_eq!((tasks.give_up(), tasks.give_up()), (Some('a'), None));
        assert_eq!(tasks.required_version(ClusterVersion::FIRST), ClusterVersion::FIRST);
        assert!(tasks.raising().is_none() && !tasks.has_asked_change());
    }

    #[test]
    fn a_removal_that_was_asked_for_long_ago_is_forgotten() {
        let mut tasks: LeaderTasks<()> = LeaderTasks::default();
        tasks.note_removal_asked(RaftId(2), 1);
        tasks.note_removal_asked(RaftId(3), SIGN_TICKS);
        assert_eq!(tasks.removals_asked().len(), 2);
        tasks.note_removal_asked(RaftId(4), 1 + SIGN_TICKS);
        assert!(!tasks.removals_asked().contains_key(&RaftId(2)));
    }
}
