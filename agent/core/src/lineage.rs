//! How one node begins a new cluster with the state of another one: after a quorum that is lost for good, and
//! from a backup.
//!
//! The new cluster has an id of its own, because its genesis names what it was made of and a random number:
//! whoever belongs to the old one, or to another one made of the same state, cannot mix with it. Raft ids go
//! on where the old cluster's ended, so that none means two stores.

use blixard_model::formation::{Genesis, Origin};
use blixard_model::id::ClusterName;
use blixard_model::{Member, NodeFacts, NodeName, RaftId, Role, mutant};

use crate::state::ClusterState;
use crate::state::member_check::{MemberError, check_genesis};

/// Raft ids end here: what comes after it, Raft cannot count on.
const RAFT_ID_MAX: u64 = 1 << 62;

/// Who begins the new cluster, and of how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// The node that is alone in it.
    pub me: NodeFacts,
    /// The name of the new cluster.
    pub cluster_name: ClusterName,
    /// The last log index that the state holds.
    pub index: u64,
    /// Random: two clusters that are made of the same state are two.
    pub nonce: u64,
}

/// What the new cluster begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// Its state.
    pub state: ClusterState,
    /// The founder's place in it.
    pub raft_id: RaftId,
    /// The old members that are none any more, the founder's own old place not among them.
    pub given_up: Vec<Member>,
}

/// The reason why a node cannot begin a new cluster with this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineageError {
    /// The state knows this node under another name.
    #[error(
        "this node's key is {theirs}'s in that state, and VMs are placed by name: set node_name to {theirs}"
    )]
    OtherName {
        /// The name it has there.
        theirs: NodeName,
    },
    /// It could be no member.
    #[error("{name} can be no member of a cluster: {error}")]
    NoMember {
        /// The founder's name.
        name: NodeName,
        /// What does not fit.
        error: MemberError,
    },
    /// No state that a cluster of ours comes to.
    #[error("the state has used up all raft ids: it is damaged")]
    NoRaftId,
}

/// The state of a new cluster whose only member is the founder. VMs, their placements and what became of
/// recent requests stay; open tickets do not: whoever holds one was let into another cluster.
///
/// # Errors
/// See [`LineageError`].
pub fn begin(old: ClusterState, founder: Founder) -> Result<Lineage, LineageError> {
    let Founder { me, cluster_name, index, nonce } = founder;
    if let Some(theirs) = old.member_by_endpoint(me.endpoint_id).filter(|member| *member.node.name != me.name)
    {
        return Err(LineageError::OtherName { theirs: theirs.node.name.clone() });
    }
    let origin = Origin { cluster_id: old.cluster_id(), index, nonce };
    // What the state may hold already, the new cluster may too.
    let genesis =
        Genesis { cluster_name, voters: vec![me.clone()], origin: Some(origin), version: old.version };
    check_genesis(&genesis).map_err(|(name, error)| LineageError::NoMember { name, error })?;
    let raft_id = unused_raft_id(&old).ok_or(LineageError::NoRaftId)?;

    let mut state = old;
    let given_up = state.nodes.give_up_all_but(me.endpoint_id);
    state.genesis = genesis;
    state.nodes.admit(Member { raft_id, node: me, role: Role::Voter });
    state.next_raft_id = RaftId(raft_id.0 + 1);
    // What the old members said of leases they said to another cluster: nobody is taken for lost by it, and
    // nobody waits for it. The supervisors of the old cluster obey no lease of the new one.
    (state.leases.is_on, state.leases.ends, state.leases.disarmed) = (false, false, None);
    if !mutant::lives("lineage-keeps-leases") {
        state.leases.holders.clear();
    }
    if !mutant::lives("lineage-keeps-tickets") {
        state.tickets.clear();
    }
    Ok(Lineage { state, raft_id, given_up })
}

/// One that was never given, even when a damaged state does not count right.
fn unused_raft_id(old: &ClusterState) -> Option<RaftId> {
    let departed = old.nodes.departed().map(|(_, node)| node.raft_id.0);
    let used = old.nodes.raft_ids().map(|raft_id| raft_id.0).chain(departed).max().unwrap_or(0);
    let unused = old.next_raft_id.0.max(used.saturating_add(1));
    if mutant::lives("lineage-uses-raft-id-again") {
        return Some(RaftId(used.max(1)));
    }
    (unused < RAFT_ID_MAX).then_some(RaftId(unused))
}
