//! When the version of the cluster is raised: once every member has said that it supports the next one.

use blixard_model::{ClusterVersion, NodeName, mutant};

use super::membership::MembershipView;
use crate::state::MemberRef;

/// A version that a leader proposed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raising {
    /// The version.
    pub to: ClusterVersion,
    /// The tick of consensus at which it was proposed.
    pub at_tick: u64,
}

/// The version to raise the cluster to, if every member supports a newer one. What a member said counts only
/// if it said so with the store that it is a member with: then it was this node, in a run not long ago.
pub fn plan_version(view: &MembershipView<'_>) -> Option<ClusterVersion> {
    let members = view.state.nodes.members();
    let silent = if mutant::lives("version-raised-unasked") { view.supports } else { ClusterVersion::FIRST };
    let supported = members.map(|member| supported_by(view, member).unwrap_or(silent)).min()?;
    (supported > view.state.version).then_some(supported)
}

/// The members that keep the cluster from the version that the leader supports: those that support less, and
/// those that have not said what they support.
pub(super) fn held_back_by(view: &MembershipView<'_>) -> Vec<(NodeName, Option<ClusterVersion>)> {
    let members = view.state.nodes.members();
    let said = members.map(|member| (member.node.name.clone(), supported_by(view, member)));
    said.filter(|(_, supported)| supported.unwrap_or_default() < view.supports).collect()
}

fn supported_by(view: &MembershipView<'_>, member: MemberRef<'_>) -> Option<ClusterVersion> {
    if member.raft_id == view.leader {
        return Some(view.supports);
    }
    let claim = view.claims.get(&member.node.endpoint_id)?;
    (claim.identity.node.store_id == member.node.store_id).then_some(claim.identity.supports)
}
