//! What this node has heard of whom, and as leader knows of the members.

use std::collections::BTreeMap;

use blixard_consensus::{RaftRole, RaftStatus};
use blixard_core::declared::DeclaredMember;
use blixard_core::planner::membership::{Claim, MembershipView, Progress};
use blixard_core::planner::{HEARD_TICKS, LeaderView, Signs};
use blixard_core::ticket::TicketClock;
use blixard_model::formation::{Identity, Phase};
use blixard_model::member::MEMBERS_MAX;
use blixard_model::removal::RemovedFrom;
use blixard_model::{EndpointId, MembersAsk, RaftId, TicketId, mutant};

use crate::claims::Heard;
use crate::node::{Node, Told};
use crate::turn::NodeError;
use crate::waiting::Waits;

/// What a peer said of itself counts for this long.
const IDENTITY_TICKS: u64 = 60;
/// Most endpoints whose words are kept.
const CLAIMS_MAX: usize = 512;

/// What the leader knows beside the state, where the node itself keeps it in another form.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    status: RaftStatus,
    claims: BTreeMap<EndpointId, Claim<'a>>,
    progress: BTreeMap<RaftId, Progress>,
    ticket_clocks: BTreeMap<TicketId, TicketClock>,
}

impl Facts<'_> {
    /// All that the leader decides on. The node is the one whose facts these are.
    pub(crate) fn view<'a, P: Waits, R: Waits>(&'a self, node: &'a Node<P, R>) -> LeaderView<'a> {
        LeaderView {
            members: MembershipView {
                state: &node.raft.machine().0,
                leader: self.status.id,
                voters: &self.status.voters,
                learners: &self.status.learners,
                declared: &node.config.declared,
                claims: &self.claims,
                progress: &self.progress,
                commit: self.status.commit,
                supports: node.config.supports,
                required: node.required_version(),
            },
            signs: node.signs(),
            linked: &node.linked,
            is_begun: node.raft.leads() && node.summary.role == RaftRole::Leader,
            is_changing: node.raft.membership_pending() || node.asked_change.is_some(),
            removals_asked: &node.removals_asked,
            wall_ms: node.wall_ms,
            ticket_clocks: &self.ticket_clocks,
            expiry_proposed: node.expiry_proposed,
            raising: node.raising,
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
        if self.claims.len() >= CLAIMS_MAX && !self.claims.contains_key(&identity.node.endpoint_id) {
            return Ok(());
        }
        let known = self.claims.get(&identity.node.endpoint_id);
        let same = known.filter(|known| known.identity.node.store_id == identity.node.store_id);
        let asked = asked.max(same.and_then(|known| known.asked));
        self.claims.insert(identity.node.endpoint_id, Heard { identity, at_tick: now, asked });
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

    /// Raft's mark of who answered is taken back from all at each check of the quorum: noted while it stands.
    pub(crate) fn note_answers(&mut self) {
        let (tick, progress) = (self.tick, self.raft.status().progress);
        self.answered.retain(|id, _| progress.contains_key(id));
        for (id, _) in progress.into_iter().filter(|(_, (_, answered))| *answered) {
            self.answered.insert(id, tick);
        }
    }

    /// When the members were heard of.
    pub(crate) fn signs(&self) -> Signs<'_> {
        let (tick, leads_since, own) = (self.tick, self.leads_since, self.summary.raft_id);
        Signs { tick, leads_since, own, heard: &self.heard }
    }

    /// What the leader knows beside the state.
    pub(crate) fn leader_facts(&self) -> Facts<'_> {
        let (status, signs) = (self.raft.status(), self.signs());
        let claims = self.claims.iter().map(|(id, heard)| {
            let settled = heard.asked == Some(self.membership_version);
            (*id, Claim { identity: &heard.identity, settled })
        });
        let progress = status.progress.iter().map(|(id, (matched, _))| {
            // Not Raft's own word for it: that one is taken back from everybody at each election and at each
            // check of the quorum, until the next answer.
            let heard = signs.is_heard(*id);
            let recent_active = signs.leads_for() < HEARD_TICKS || heard;
            let last = self.answered.get(id).copied().unwrap_or(0).max(self.leads_since);
            let lost = *id != status.id && self.tick.saturating_sub(last) >= self.config.voter_lost_ticks;
            (*id, Progress { matched: *matched, heard, recent_active, lost })
        });
        let tickets = self.state().tickets.values().filter(|ticket| ticket.is_open());
        let ticket_clocks = tickets.map(|ticket| (ticket.id, self.ticket_clock(ticket)));
        Facts {
            claims: claims.collect(),
            progress: progress.collect(),
            ticket_clocks: ticket_clocks.collect(),
            status,
        }
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
            let fits = heard.node.name == declared.name && matches!(heard.phase, Phase::Empty { .. });
            let node = Identity { node: declared.let_in(&heard.node), ..heard.clone() };
            fits.then_some(MembersAsk::Vouch { node: Box::new(node) })
        };
        let led = self.summary.leader.is_some() && !self.raft.leads();
        let listed = self.config.declared.iter().filter(waits);
        if led { listed.filter_map(vouch).collect() } else { Vec::new() }
    }
}
