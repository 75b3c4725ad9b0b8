//! Why a node that is on this node's list is no member yet.

use blixard_core::ClusterState;
use blixard_core::declared::DeclaredMember;
use blixard_core::state::member_check::MemberError;

use crate::replica::Stranger;

/// What keeps a listed node from being a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// A member has its name and another key.
    OtherKey,
    /// Its store is of another cluster.
    Strange,
    /// An operator removed it.
    Removed,
    /// As it is listed it cannot be one.
    Unfit(MemberError),
    /// Nothing: the leader admits it once it can be reached.
    Comes,
}

/// The listed nodes that are no members, each with the first thing that is in its way.
pub fn missing<'a>(
    state: &'a ClusterState,
    declared: &'a [DeclaredMember],
    strangers: &'a [Stranger],
) -> impl Iterator<Item = (&'a DeclaredMember, Missing)> {
    let unknown = declared.iter().filter(|listed| state.member_by_endpoint(listed.endpoint_id).is_none());
    unknown.map(|listed| {
        let is_strange = strangers.iter().any(|stranger| stranger.endpoint_id == listed.endpoint_id);
        let why = if is_strange {
            Missing::Strange
        } else if state.member_by_name(&listed.name).is_some() {
            Missing::OtherKey
        } else if state.is_kept_out(listed.endpoint_id) {
            Missing::Removed
        } else {
            state.check_declared(listed).map_or(Missing::Comes, Missing::Unfit)
        };
        (listed, why)
    })
}
