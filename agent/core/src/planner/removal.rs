//! Which change removes a node that an operator wants to be gone, and what has to be known before.

use std::collections::BTreeMap;

use blixard_model::{MembershipChange, Outcome, RaftId, Refusal, Removal, VmsFate};

use super::membership::{MembershipView, Progress, quorum_without};
use super::prepared::{NotNow, Prepared};
use super::view::LeaderView;

/// Signs of life count for so many ticks after a removal was asked for; then it is asked for anew.
pub const SIGN_TICKS: u64 = 50;
/// A member that lives has answered a heartbeat by then.
const FIRST_SIGN_TICKS: u64 = 15;
/// The link of a dead node falls within this time: one that stands is of a node whose disk may be slow.
const LINK_SIGN_TICKS: u64 = 35;

/// What a leader is to do about a node that is to leave. Who is left must be a quorum now, and not by a word
/// that may have been the last.
pub(super) fn prepare_removal(view: &LeaderView<'_>, ask: RemovalAsk) -> Prepared {
    let (signs, raft_id) = (&view.signs, ask.raft_id);
    if !signs.knows_whether_heard(raft_id) {
        return NotNow::NewLeader.into();
    }
    let member = view.members.state.nodes.member(raft_id);
    let counts = |at: &&u64| signs.tick.saturating_sub(**at) < SIGN_TICKS;
    let since = match (view.removals_asked.get(&raft_id).filter(counts), member) {
        (Some(at), _) => *at,
        (None, None) => signs.tick,
        (None, Some(_)) => return Prepared::AwaitSigns(raft_id),
    };
    let waited = signs.tick.saturating_sub(since);
    let waits = waited < FIRST_SIGN_TICKS;
    let has_link = member.is_some_and(|member| view.has_link(member));
    let waits_for_it = waits || has_link && waited < LINK_SIGN_TICKS;
    let progress = heard_after(view, since);
    let is_heard = raft_id == signs.own || progress.get(&raft_id).is_some_and(|progress| progress.heard);
    // What is about to be given up for dead gets the time to show that it is not.
    if waits_for_it && member.is_some() && ask.force && !is_heard {
        return NotNow::OwnSignMissing.into();
    }
    match plan_removal(&MembershipView { progress: &progress, ..view.members }, ask) {
        Ok(RemovalStep::Propose(change)) => Prepared::Change(change),
        Ok(RemovalStep::Gone) => Prepared::Answer(Outcome::unchanged(None).into()),
        Ok(RemovalStep::HandOver) => Prepared::HandOver,
        Err(Refusal::QuorumAtRisk { .. } | Refusal::NodeUnreachable { .. }) if waits => {
            NotNow::SignsMissing.into()
        }
        Err(refusal) => refusal.into(),
    }
}

/// What is known of the members, when only who was heard of after this tick counts as there.
fn heard_after(view: &LeaderView<'_>, tick: u64) -> BTreeMap<RaftId, Progress> {
    let known = view.members.progress.iter().map(|(id, progress)| {
        let heard = view.signs.is_heard_after(*id, tick);
        (*id, Progress { heard, recent_active: heard, ..*progress })
    });
    known.collect()
}

/// The next step of a leader for a node that is to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovalStep {
    /// It has left.
    Gone,
    /// It is the leader itself: another one has to lead first.
    HandOver,
    /// This change removes it.
    Propose(MembershipChange),
}

/// A removal as an operator asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovalAsk {
    /// The raft id to remove.
    pub raft_id: RaftId,
    /// It does not answer and will not come back.
    pub force: bool,
    /// What becomes of its VMs.
    pub vms: Option<VmsFate>,
}

/// Decides the next step for a node that is to leave.
///
/// # Errors
/// The cause and the way out.
pub fn plan_removal(view: &MembershipView<'_>, ask: RemovalAsk) -> Result<RemovalStep, Refusal> {
    let RemovalAsk { raft_id, force, vms } = ask;
    let Some(member) = view.state.nodes.member(raft_id) else {
        let gone = view.state.has_left(raft_id);
        return if gone { Ok(RemovalStep::Gone) } else { Err(Refusal::NodeLeft { raft_id }) };
    };
    let node = || member.node.name.clone();
    let is_heard = raft_id == view.leader || view.progress.get(&raft_id).is_some_and(|p| p.heard);
    if !is_heard && !force {
        return Err(Refusal::NodeUnreachable { node: node() });
    }
    if vms.is_some() && is_heard {
        let why = format!("{} answers: its VMs run on, so delete them while it can stop them", node());
        return Err(Refusal::Invalid { why: why.into() });
    }
    if vms.is_none() {
        view.state.check_no_vms(member.node.name)?;
    }
    if view.state.nodes.member_count() == 1 {
        let why = format!("{} is the only member: to give the cluster up, switch its agent off", node());
        return Err(Refusal::Membership { why });
    }
    if view.voters.contains(&raft_id) {
        quorum_without(view, raft_id).map_err(|why| Refusal::QuorumAtRisk { node: node(), why })?;
    }
    let change = MembershipChange::Remove { raft_id, why: Removal::Operator { vms } };
    view.state.check_membership(&change, view.voters)?;
    if raft_id == view.leader {
        return Ok(RemovalStep::HandOver);
    }
    Ok(RemovalStep::Propose(change))
}
