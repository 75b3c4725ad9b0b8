//! What the cluster has agreed on: every committed entry, and the state it gives, replayed from the birth.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use blixard_consensus::EntryContent;
use blixard_core::ClusterState;
use blixard_model::formation::Genesis;
use blixard_model::{
    EndpointId, Member, MembershipChange, Outcome, RaftId, Removal, Request, StoreId, TicketUse,
};
use blixard_node::decode_request;
use rustc_hash::FxHasher;

use super::seen::SeenNode;

/// An agreed entry.
#[derive(Debug)]
pub(crate) struct Agreed {
    pub(crate) term: u64,
    pub(crate) hash: u64,
    pub(crate) content: Rc<EntryContent>,
    /// Hash of the state after it.
    pub(crate) state: u64,
    /// Term of the first node that applied it: not below the one it was committed in.
    pub(crate) seen_in_term: u64,
}

/// A command that was applied, and whether the state changed by it.
#[derive(Debug)]
pub(crate) struct AppliedCommand {
    pub(crate) request: Request,
    pub(crate) outcome: Outcome,
    pub(crate) changed: bool,
}

/// What an entry did.
#[derive(Debug)]
pub(crate) enum AgreedEntry {
    /// A command, whatever came of it.
    Command(AppliedCommand),
    /// This member has left.
    Removed(Member, Removal),
    /// This one has come, with this ticket if it had one.
    Admitted(Member, Option<TicketUse>),
    /// Anything else.
    Nothing,
}

/// The agreed log from index 2 on (1 is the birth), and the state at its end.
#[derive(Debug)]
pub(crate) struct Canon {
    genesis: Genesis,
    entries: Vec<Agreed>,
    state: ClusterState,
    voters: Vec<RaftId>,
    /// Every raft id that a member was ever given.
    given: BTreeSet<RaftId>,
    birth_hash: u64,
}

/// Hash of a replicated state.
pub(crate) fn state_hash(state: &ClusterState) -> u64 {
    let mut hasher = FxHasher::default();
    state.hash(&mut hasher);
    hasher.finish()
}

impl Canon {
    pub(crate) fn new(genesis: Genesis) -> Self {
        let state = ClusterState::new(genesis.clone());
        let voters: Vec<RaftId> = state.nodes.raft_ids().collect();
        let given = voters.iter().copied().collect();
        let birth_hash = state_hash(&state);
        Self { genesis, entries: Vec::new(), state, voters, given, birth_hash }
    }

    pub(crate) fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    pub(crate) fn entries(&self) -> &[Agreed] {
        &self.entries
    }

    pub(crate) fn last(&self) -> u64 {
        self.entries.len() as u64 + 1
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Agreed> {
        self.entries.get(usize::try_from(index.checked_sub(2)?).ok()?)
    }

    pub(crate) fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Hash of the state at an index.
    pub(crate) fn state_at(&self, index: u64) -> Option<u64> {
        if index == 1 { Some(self.birth_hash) } else { self.get(index).map(|agreed| agreed.state) }
    }

    /// Whether this endpoint is a member with this store.
    pub(crate) fn belongs(&self, endpoint_id: EndpointId, store_id: StoreId) -> bool {
        let member = self.state.member_by_endpoint(endpoint_id);
        member.is_some_and(|member| member.node.store_id == store_id)
    }

    pub(crate) fn voters(&self) -> &[RaftId] {
        &self.voters
    }

    /// Applies the next entry as this node has it.
    pub(crate) fn apply(&mut self, seen: &SeenNode<'_>) -> Result<AgreedEntry, String> {
        let index = self.last() + 1;
        let entry = seen.mirror.entries.get(&index).ok_or_else(|| {
            format!("n{} has applied index {index}, which nobody had, without its entry", seen.machine + 1)
        })?;
        let content = Rc::clone(&entry.content);
        let mut applied = AgreedEntry::Nothing;
        let before = self.entries.last().map_or(self.birth_hash, |last| last.state);
        let mut state = before;
        match &*content {
            EntryContent::Empty => {}
            EntryContent::Command(bytes) => {
                let request = decode_request(bytes)?;
                let outcome = self.state.apply_entry((index, entry.term), &request);
                state = state_hash(&self.state);
                applied = AgreedEntry::Command(AppliedCommand { request, outcome, changed: state != before });
            }
            EntryContent::Membership(change) => {
                let is_new = |id: &RaftId| !self.state.nodes.has_member(*id);
                let admits = match change {
                    MembershipChange::AddLearner { member, ticket } if is_new(&member.raft_id) => {
                        Some((member.clone(), ticket.clone()))
                    }
                    _ => None,
                };
                let leaves = match change {
                    MembershipChange::Remove { raft_id, why } => {
                        self.state.nodes.member(*raft_id).map(|member| (member.to_member(), *why))
                    }
                    _ => None,
                };
                apply_membership(&mut self.state, &mut self.voters, change);
                let is_member = |member: &Member| self.state.nodes.has_member(member.raft_id);
                if let Some((member, why)) = leaves.filter(|(member, _)| !is_member(member)) {
                    applied = AgreedEntry::Removed(member, why);
                }
                if let Some((member, ticket)) = admits.filter(|(member, _)| is_member(member)) {
                    let raft_id = member.raft_id;
                    if !self.given.insert(raft_id) {
                        return Err(format!(
                            "raft id {raft_id} was given before, and again at index {index}"
                        ));
                    }
                    applied = AgreedEntry::Admitted(member, ticket);
                }
                state = state_hash(&self.state);
            }
        }
        let (term, hash) = (entry.term, entry.hash);
        self.entries.push(Agreed { term, hash, content, state, seen_in_term: seen.raft.term });
        Ok(applied)
    }
}

/// As the consensus crate does: what does not fit is a no-op.
pub(crate) fn apply_membership(
    state: &mut ClusterState,
    voters: &mut Vec<RaftId>,
    change: &MembershipChange,
) {
    if state.check_membership(change, voters).is_err() {
        return;
    }
    match change {
        MembershipChange::AddLearner { .. } => {}
        MembershipChange::Promote { raft_id } => voters.push(*raft_id),
        MembershipChange::Demote { raft_id } | MembershipChange::Remove { raft_id, .. } => {
            voters.retain(|voter| voter != raft_id)
        }
    }
    state.apply_membership(change);
}
