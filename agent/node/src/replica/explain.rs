//! As leader: how far the members are and what is being changed, for people who look. Decides nothing.

use std::collections::BTreeMap;

use blixard_consensus::{RaftRole, TICK_MS};
use blixard_core::planner::explain::{ExplainView, explain_changes};
use blixard_model::RaftId;
use blixard_model::wire::{MemberProgress, ProgressReport};

use super::Node;
use super::waiting::Waits;

impl<P: Waits, R: Waits> Node<P, R> {
    /// What this node knows of the members as leader; `None` when it does not lead.
    pub fn progress_report(&self) -> Option<ProgressReport> {
        if self.raft_status().role != RaftRole::Leader {
            return None;
        }
        let facts = self.leader_facts();
        let plan = facts.view(self).members;
        let under_way = self.raft.under_way();
        let silence = |id: RaftId| self.signs.silence(id, self.tick);
        let silence_ms: BTreeMap<RaftId, u64> =
            plan.progress.keys().map(|id| (*id, silence(*id).saturating_mul(TICK_MS))).collect();
        let view = ExplainView {
            plan: &plan,
            pending: under_way.change.as_ref(),
            hands_over_to: under_way.hands_over_to,
            snapshots: &under_way.snapshots,
            silence_ms: &silence_ms,
            lost_after_ms: self.config.voter_lost_ticks.saturating_mul(TICK_MS),
        };
        let members = plan.progress.iter().map(|(id, progress)| {
            let itself = *id == plan.leader;
            // Raft forgets at each election what it knew, until the first answer.
            let unknown = progress.matched == 0 && !itself && !self.signs.was_heard(*id);
            MemberProgress {
                raft_id: *id,
                behind: (!unknown).then(|| plan.commit.saturating_sub(progress.matched)),
                snapshot: under_way.snapshots.contains(id),
                heard: itself || progress.recent_active,
                lost: progress.lost,
                silent_ms: self.heard_ms_ago(*id).filter(|_| !itself),
                lease: None,
            }
        });
        let (members, changes) = (members.collect(), explain_changes(&view));
        let report = ProgressReport { members, changes, held_twice: Vec::new(), fences: BTreeMap::new() };
        Some(report.bounded())
    }

    /// How long ago a member was last heard of, in milliseconds.
    fn heard_ms_ago(&self, member: RaftId) -> Option<u64> {
        self.signs.heard_ago(member, self.tick).map(|ticks| ticks.saturating_mul(TICK_MS))
    }

    /// The leader that this node follows or, while none is known, followed last; and how long ago it was
    /// heard of, in milliseconds.
    pub fn leader_heard_ms_ago(&self) -> Option<(RaftId, u64)> {
        let leader = self.signs.followed()?;
        Some((leader, self.heard_ms_ago(leader)?))
    }
}
