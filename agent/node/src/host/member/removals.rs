//! Removals of nodes by name, as an operator asks for them.
//!
//! ```text
//!            the log is read            a member           it had left already
//!   LooksUp ────────────────▶ decide ──────────▶ Removes ───────────────────────▶ LooksUp, the second time
//!                                │ no member                      │ removed
//!                                ▼                                ▼
//!                    refused, or Forgets its VMs                 Done
//! ```

use std::collections::BTreeMap;

use blixard_core::ClusterState;
use blixard_core::state::{Availability, NodeRecord};
use blixard_model::{
    Ask, Desired, MembersAsk, NodeName, Outcome, RaftId, Refusal, VmsFate, WriteAsk, WriteRequest, mutant,
};

use crate::host::input::{NodeRemoval, WaiterId};

/// A removal under way.
#[derive(Debug)]
struct RemovalUnderWay {
    asked: NodeRemoval,
    until_ms: u64,
    /// The node had left when it was to be removed: it is looked up once more.
    had_left: bool,
    /// The last change that this takes is on its way.
    last: bool,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum RemovalNext {
    /// Bring this to the leader.
    Change(Ask, u64),
    /// Read the log up to date, and look again.
    LookUp(u64),
    /// The end.
    End(Outcome),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Removals(BTreeMap<WaiterId, RemovalUnderWay>);

impl Removals {
    pub(super) fn begin(&mut self, waiter: WaiterId, asked: NodeRemoval, until_ms: u64) {
        self.0.insert(waiter, RemovalUnderWay { asked, until_ms, had_left: false, last: false });
    }

    pub(super) fn has(&self, waiter: WaiterId) -> bool {
        self.0.contains_key(&waiter)
    }

    /// It ended, or nobody waits for it any more.
    pub(super) fn end(&mut self, waiter: WaiterId) {
        self.0.remove(&waiter);
    }

    /// The state is up to date: what this removal takes. `own` is this node's name.
    pub(super) fn looked_up(
        &mut self,
        waiter: WaiterId,
        state: &ClusterState,
        own: &NodeName,
    ) -> Option<RemovalNext> {
        let removal = self.0.get_mut(&waiter)?;
        let NodeRemoval { name, force, vms, id } = removal.asked.clone();
        let refused = |refusal: Refusal| Some(RemovalNext::End(refusal.into()));
        match (standing(state, &name), vms) {
            (NamedNode::Member(_), _) if removal.had_left => refused(Refusal::Membership {
                why: format!(
                    "{name} lost its store and was admitted again under a new raft id while this ran; repeat \
                     the command to remove it"
                ),
            }),
            (NamedNode::Member(_), _) if mutant::lives("removal-only-told") => {
                Some(RemovalNext::End(Outcome::unchanged(None)))
            }
            (NamedNode::Member(raft_id), vms) => {
                // Once it is out, a node that leaves hears of it only as a member that is removed does.
                let leaves = vms.is_none() && name == *own;
                removal.last = leaves;
                let ask = MembersAsk::Remove { raft_id, force: force && !leaves, vms };
                Some(RemovalNext::Change(ask.into(), removal.until_ms))
            }
            (NamedNode::Unknown, _) => refused(Refusal::NodeNotFound { node: name }),
            (NamedNode::Gone(Err(refusal)), None) => refused(refusal),
            (NamedNode::Gone(Err(_)), Some(VmsFate::Delete)) => {
                removal.last = true;
                let request = WriteRequest { id, ask: WriteAsk::ForgetVms { node: name } };
                Some(RemovalNext::Change(request.into(), removal.until_ms))
            }
            (NamedNode::Gone(Err(_)), Some(VmsFate::Retire)) if runs_on(state, &name) => {
                let why = format!(
                    "{name} is no member any more and VMs are placed by its name: if you know that the \
                     machine is off, say so with --i-know-it-is-off"
                );
                refused(Refusal::Membership { why })
            }
            (NamedNode::Gone(_), _) => Some(RemovalNext::End(Outcome::unchanged(None))),
        }
    }

    /// A change that it took ended so.
    pub(super) fn changed(&mut self, waiter: WaiterId, outcome: &Outcome) -> Option<RemovalNext> {
        let removal = self.0.get_mut(&waiter)?;
        match outcome {
            // It had left when it was looked at: because an operator said so, or because its store was lost,
            // and then its VMs are still there, or it is back already.
            Outcome::Done { unchanged: true, .. } if !removal.last => {
                removal.had_left = true;
                Some(RemovalNext::LookUp(removal.until_ms))
            }
            other => Some(RemovalNext::End(other.clone())),
        }
    }
}

/// What the log knows of a node's name.
enum NamedNode {
    Member(RaftId),
    /// It is no member any more; which VMs are still placed there.
    Gone(Result<(), Refusal>),
    Unknown,
}

/// Whether a VM by this node's name is not being forgotten.
fn runs_on(state: &ClusterState, name: &NodeName) -> bool {
    state.placed_on(name).any(|vm| vm.desired != Desired::Absent)
}

fn standing(state: &ClusterState, name: &NodeName) -> NamedNode {
    let placed = state.check_no_vms(name);
    // A node that was only given up when a cluster was recovered may come back from the lists.
    let is_removed = |node: &NodeRecord| node.name == *name && node.availability == Availability::Removed;
    let was_removed = state.nodes.departed().any(|(_, node)| is_removed(node));
    match state.member_by_name(name) {
        Some(member) => NamedNode::Member(member.raft_id),
        None if placed.is_err() || was_removed => NamedNode::Gone(placed),
        None => NamedNode::Unknown,
    }
}
