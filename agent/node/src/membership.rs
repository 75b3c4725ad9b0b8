//! As leader: who becomes a member, who votes, who may be given a VM.

use std::collections::BTreeMap;

use blixard_consensus::{RaftRole, RaftStatus};
use blixard_core::formation::DeclaredMember;
use blixard_core::planner::membership::{Claim, MembershipView, Progress, plan_membership};
use blixard_model::formation::{Identity, Phase};
use blixard_model::member::MEMBERS_MAX;
use blixard_model::removal::RemovedFrom;
use blixard_model::wire::MembersAsk;
use blixard_model::{EndpointId, Member, NodeName, RaftId, mutant};

use crate::node::{Node, Told};
use crate::notice::Notice;
use crate::turn::NodeError;
use crate::waiting::Waits;

/// What a peer said of itself counts for this long.
const IDENTITY_TICKS: u64 = 60;
/// A member that was not heard of for this long is not reachable, whatever its link says: links end later.
const HEARD_TICKS: u64 = 15;
/// A new leader waits this long for the first word of each linked member: a live one answers the first
/// heartbeat.
const FIRST_WORD_TICKS: u64 = 5;
/// Most endpoints whose words are kept.
const CLAIMS_MAX: usize = 512;

/// What an endpoint said of itself, and when.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) identity: Identity,
    at_tick: u64,
    /// The version of the membership that this node knew when it last asked and was told this store.
    asked: Option<u64>,
}

/// What the leader knows of the members, beside the state.
#[derive(Debug)]
pub(crate) struct Facts {
    status: RaftStatus,
    claims: BTreeMap<EndpointId, Claim>,
    progress: BTreeMap<RaftId, Progress>,
}

impl Facts {
    /// Only who was heard of after this tick counts as there.
    pub(crate) fn heard_after<P: Waits, R: Waits>(mut self, since: u64, node: &Node<P, R>) -> Self {
        for (id, progress) in &mut self.progress {
            progress.heard = node.heard.get(id).is_some_and(|at| *at > since);
            progress.recent_active = progress.heard;
        }
        self
    }

    /// Whether a member, or this node itself, counts as there.
    pub(crate) fn has_heard(&self, raft_id: RaftId) -> bool {
        raft_id == self.status.id || self.progress.get(&raft_id).is_some_and(|progress| progress.heard)
    }

    pub(crate) fn view<'a, P: Waits, R: Waits>(&'a self, node: &'a Node<P, R>) -> MembershipView<'a> {
        MembershipView {
            state: &node.raft.machine().0,
            leader: self.status.id,
            voters: &self.status.voters,
            learners: &self.status.learners,
            declared: &node.config.declared,
            claims: &self.claims,
            progress: &self.progress,
            commit: self.status.commit,
        }
    }
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// What a peer said of itself: unasked, or as the answer to a question that was asked when this node's
    /// [`Summary::membership_version`](crate::Summary::membership_version) was `asked`. An answer is no older
    /// than its question, a word that came unasked may be as old as any.
    ///
    /// # Errors
    /// [`NodeError::Left`]: it knows for certain that this node's raft id has left the cluster.
    pub fn note_identity(&mut self, identity: Identity, asked: Option<u64>) -> Result<(), NodeError> {
        if let Phase::Formed { cluster_id, you_left: true, you_were_removed, .. } = identity.phase
            && cluster_id == self.config.cluster_id
            && !mutant::lives("left-store-not-recognised")
        {
            let raft_id = self.summary.raft_id;
            let removed = you_were_removed;
            return Err(if removed { NodeError::Removed { raft_id } } else { NodeError::Left { raft_id } });
        }
        self.note_told(&identity);
        let now = self.tick;
        if self.claims.len() >= CLAIMS_MAX && !self.claims.contains_key(&identity.endpoint_id) {
            return Ok(());
        }
        let known = self.claims.get(&identity.endpoint_id);
        let same = known.filter(|known| known.identity.store_id == identity.store_id);
        let asked = asked.max(same.and_then(|known| known.asked));
        self.claims.insert(identity.endpoint_id, Heard { identity, at_tick: now, asked });
        Ok(())
    }

    /// While the log here is behind, whoever leads may be somebody of whom only the others know.
    fn note_told(&mut self, identity: &Identity) {
        let Phase::Formed { cluster_id, applied, members, .. } = &identity.phase else { return };
        let newer = *applied > self.config.told.applied.max(self.summary.applied);
        let ours = *cluster_id == self.config.cluster_id;
        if ours && newer && !members.is_empty() && members.len() <= MEMBERS_MAX {
            self.config.told = Told { applied: *applied, members: members.clone() };
            self.membership_version += 1;
        }
    }

    /// A member says that an operator removed this node.
    ///
    /// # Errors
    /// [`NodeError::Removed`], unless that was from another cluster, or under an earlier raft id.
    pub fn note_removed(&mut self, removed: RemovedFrom) -> Result<(), NodeError> {
        let own = self.summary.raft_id;
        let ours = removed.cluster_id == self.config.cluster_id;
        if ours && removed.raft_id >= own { Err(NodeError::Removed { raft_id: own }) } else { Ok(()) }
    }

    pub(crate) fn forget_old_claims(&mut self) {
        let now = self.tick;
        self.claims.retain(|_, heard| now.saturating_sub(heard.at_tick) < IDENTITY_TICKS);
    }

    /// Plans the next membership change and proposes it. One at a time: Raft drops others silently.
    pub(crate) fn propose_membership(&mut self) {
        self.note_answers();
        if self.raft.membership_pending() {
            return;
        }
        let facts = self.membership_facts();
        let Some(change) = plan_membership(&facts.view(self)) else { return };
        // Not taken: planned again when it still fits.
        if self.raft.propose_membership(&change).is_ok() {
            self.notices.push(Notice::MembershipProposed(change));
        }
    }

    /// Raft's mark of who answered is taken back from all at each check of the quorum: noted while it stands.
    fn note_answers(&mut self) {
        let (tick, progress) = (self.tick, self.raft.status().progress);
        self.answered.retain(|id, _| progress.contains_key(id));
        for (id, _) in progress.into_iter().filter(|(_, (_, answered))| *answered) {
            self.answered.insert(id, tick);
        }
    }

    /// What the leader knows of the members.
    pub(crate) fn membership_facts(&self) -> Facts {
        let status = self.raft.status();
        let leads_for = self.tick.saturating_sub(self.leads_since);
        let claim = |heard: &Heard| Claim {
            identity: heard.identity.clone(),
            settled: heard.asked == Some(self.membership_version),
        };
        let claims: BTreeMap<_, _> = self.claims.iter().map(|(id, heard)| (*id, claim(heard))).collect();
        let progress: BTreeMap<_, _> = status
            .progress
            .iter()
            // Not Raft's own word for it: that one is taken back from everybody at each election and at each
            // check of the quorum, until the next answer.
            .map(|(id, (matched, _))| {
                let heard = self.is_heard(*id);
                let recent_active = leads_for < HEARD_TICKS || heard;
                let last = self.answered.get(id).copied().unwrap_or(0).max(self.leads_since);
                let missed =
                    *id != status.id && self.tick.saturating_sub(last) >= self.config.voter_lost_ticks;
                (*id, Progress { matched: *matched, heard, recent_active, lost: missed })
            })
            .collect();
        Facts { status, claims, progress }
    }

    /// This node itself, or one that it has heard of or had the time to.
    pub(crate) fn knows_whether_heard(&self, member: RaftId) -> bool {
        let leads_for = self.tick.saturating_sub(self.leads_since);
        member == self.summary.raft_id || self.is_heard(member) || leads_for >= HEARD_TICKS
    }

    /// The nodes on this node's list that are there with an empty store and no members yet: whoever leads may
    /// have another list, or none, and has to be told.
    pub fn vouches(&self) -> Vec<MembersAsk> {
        let state = self.state();
        let waits = |declared: &&DeclaredMember| {
            let id = declared.endpoint_id;
            state.member_by_endpoint(id).is_none() && !state.is_kept_out(id)
        };
        let vouch = |declared: &DeclaredMember| {
            let heard = &self.claims.get(&declared.endpoint_id)?.identity;
            let fits = heard.name == declared.name && matches!(heard.phase, Phase::Empty { .. });
            let node = Identity { addresses: declared.addresses.clone(), ..heard.clone() };
            fits.then_some(MembersAsk::Vouch { node: Box::new(node) })
        };
        let led = self.summary.leader.is_some() && !self.raft.leads();
        let listed = self.config.declared.iter().filter(waits);
        if led { listed.filter_map(vouch).collect() } else { Vec::new() }
    }

    /// The members with a link that were heard of lately, and this node itself.
    pub(crate) fn reachable(&self) -> Vec<NodeName> {
        let members = self.raft.machine().0.members.values();
        let reachable =
            members.filter(|m| m.name == self.config.name || self.is_linked(m) && self.is_heard(m.raft_id));
        reachable.map(|member| member.name.clone()).collect()
    }

    /// A new leader has heard of those who voted for it; the others answer its first heartbeats, or are gone
    /// although their link still stands. Before it has committed in its term, and before the turn in which it
    /// began to lead has ended, it has not even begun to listen.
    pub(crate) fn is_unsettled(&self) -> bool {
        let begun = self.raft.leads() && self.summary.role == RaftRole::Leader;
        let leads_for = self.tick.saturating_sub(self.leads_since);
        let unheard =
            |m: &Member| m.name != self.config.name && self.is_linked(m) && !self.is_heard(m.raft_id);
        let mut members = self.raft.machine().0.members.values();
        let leads = self.raft.status().role == RaftRole::Leader;
        leads && (!begun || leads_for < FIRST_WORD_TICKS && members.any(unheard))
    }

    fn is_linked(&self, member: &Member) -> bool {
        self.linked.contains(&member.endpoint_id)
    }

    /// Heard of lately, and since this node leads: what was heard before may have been the last word.
    pub(crate) fn is_heard(&self, member: RaftId) -> bool {
        let heard = self.heard.get(&member);
        heard.is_some_and(|at| *at >= self.leads_since && self.tick.saturating_sub(*at) < HEARD_TICKS)
    }
}
