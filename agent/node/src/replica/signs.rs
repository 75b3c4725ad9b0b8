//! Who was heard of and when, who led last, and since when this node leads: whether a member is there.
//!
//! Times are ticks of consensus since this node started.

use std::collections::BTreeMap;

use blixard_core::planner::Signs;
use blixard_model::RaftId;

/// The last signs of life of each member.
#[derive(Debug)]
pub(super) struct LastSigns {
    /// This node's raft id: of itself it needs no sign.
    own: RaftId,
    /// When each member was last heard of.
    heard: BTreeMap<RaftId, u64>,
    /// As leader, when each member was last seen to take what is sent to it: one that only speaks is lost
    /// too.
    answered: BTreeMap<RaftId, u64>,
    /// Who led last, as far as this node knows.
    followed: Option<RaftId>,
    /// When this node began to lead its term.
    leads_since: u64,
}

impl LastSigns {
    pub(super) fn new(own: RaftId) -> Self {
        Self { own, heard: BTreeMap::new(), answered: BTreeMap::new(), followed: None, leads_since: 0 }
    }

    pub(super) fn note_heard(&mut self, member: RaftId, tick: u64) {
        self.heard.insert(member, tick);
    }

    /// Raft's mark of who answered is taken back from all at each check of the quorum: noted while it stands.
    pub(super) fn note_answers(&mut self, progress: &BTreeMap<RaftId, (u64, bool)>, tick: u64) {
        self.answered.retain(|id, _| progress.contains_key(id));
        for (id, _) in progress.iter().filter(|(_, (_, answered))| *answered) {
            self.answered.insert(*id, tick);
        }
    }

    /// Who leads now, if that is known. While nobody is, the last one stays the one that was followed.
    pub(super) fn note_leader(&mut self, leader: Option<RaftId>) {
        self.followed = leader.or(self.followed);
    }

    pub(super) fn begin_to_lead(&mut self, tick: u64) {
        self.leads_since = tick;
    }

    /// What was heard under this raft id was another's word, or an earlier life's.
    pub(super) fn forget(&mut self, member: RaftId) {
        self.heard.remove(&member);
    }

    /// Keeps what was heard of these alone.
    pub(super) fn retain(&mut self, stays: impl Fn(RaftId) -> bool) {
        self.heard.retain(|id, _| stays(*id));
    }

    /// When the members were heard of, as the plans look at it.
    pub(super) fn view(&self, tick: u64) -> Signs<'_> {
        Signs { tick, leads_since: self.leads_since, own: self.own, heard: &self.heard }
    }

    /// Whether a member did not answer for so many ticks, at most since this node leads.
    pub(super) fn is_lost(&self, member: RaftId, tick: u64, lost_ticks: u64) -> bool {
        let last = self.answered.get(&member).copied().unwrap_or(0).max(self.leads_since);
        member != self.own && tick.saturating_sub(last) >= lost_ticks
    }

    /// For how many ticks a member was not heard of, at most since this node leads.
    pub(super) fn silence(&self, member: RaftId, tick: u64) -> u64 {
        if member == self.own {
            return 0;
        }
        let last = self.heard.get(&member).copied().unwrap_or(0).max(self.leads_since);
        tick.saturating_sub(last)
    }

    /// How many ticks ago a member was last heard of, whoever led then.
    pub(super) fn heard_ago(&self, member: RaftId, tick: u64) -> Option<u64> {
        self.heard.get(&member).map(|at| tick.saturating_sub(*at))
    }

    /// Heard of since this node leads.
    pub(super) fn was_heard(&self, member: RaftId) -> bool {
        self.heard.get(&member).is_some_and(|at| *at >= self.leads_since)
    }

    /// The leader that this node follows or, while none is known, followed last; never itself.
    pub(super) fn followed(&self) -> Option<RaftId> {
        self.followed.filter(|id| *id != self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: RaftId = RaftId(1);
    const OTHER: RaftId = RaftId(2);

    #[test]
    fn silence_counts_from_the_last_word_and_at_most_since_this_node_leads() {
        let mut signs = LastSigns::new(OWN);
        assert_eq!(signs.heard_ago(OTHER, 10), None);
        signs.note_heard(OTHER, 4);
        assert_eq!((signs.silence(OTHER, 10), signs.heard_ago(OTHER, 10)), (6, Some(6)));
        signs.begin_to_lead(8);
        assert_eq!((signs.silence(OTHER, 10), signs.heard_ago(OTHER, 10)), (2, Some(6)));
        assert!(!signs.was_heard(OTHER), "it may have been its last word");
        signs.note_heard(OTHER, 8);
        assert!(signs.was_heard(OTHER));
        signs.forget(OTHER);
        assert!(!signs.was_heard(OTHER));
        assert_eq!(signs.silence(OWN, 10), 0, "a node needs no word of itself");
    }

    #[test]
    fn one_that_speaks_and_takes_nothing_is_lost() {
        let mut signs = LastSigns::new(OWN);
        signs.note_answers(&BTreeMap::from([(OWN, (9, false)), (OTHER, (9, true))]), 5);
        signs.note_heard(OTHER, 20);
        assert!(!signs.is_lost(OTHER, 14, 10) && signs.is_lost(OTHER, 15, 10));
        assert!(!signs.is_lost(OWN, 99, 10));
        // The mark is taken back at each check of the quorum: what was noted before stands.
        signs.note_answers(&BTreeMap::from([(OTHER, (9, false))]), 12);
        assert!(!signs.is_lost(OTHER, 14, 10));
        signs.begin_to_lead(12);
        assert!(!signs.is_lost(OTHER, 21, 10) && signs.is_lost(OTHER, 22, 10));
        // Who is no member any more begins anew when it comes back.
        signs.note_answers(&BTreeMap::from([(OTHER, (9, true))]), 20);
        signs.note_answers(&BTreeMap::new(), 21);
        assert!(signs.is_lost(OTHER, 22, 10));
    }

    #[test]
    fn the_last_leader_is_remembered_while_there_is_none() {
        let mut signs = LastSigns::new(OWN);
        signs.note_leader(Some(OTHER));
        signs.note_leader(None);
        assert_eq!(signs.followed(), Some(OTHER));
        signs.note_leader(Some(OWN));
        assert_eq!(signs.followed(), None);
    }
}
