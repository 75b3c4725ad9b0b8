//! The few facts of a node that change often and many wait for.

use blixard_consensus::{Consensus, RaftRole};
use blixard_model::{EndpointId, NodeName, RaftId};

use crate::machine::StateMachine;

/// A node's place in its cluster at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// This node's raft id.
    pub raft_id: RaftId,
    /// Its role.
    pub role: RaftRole,
    /// It leads and has committed in its term.
    pub leads: bool,
    /// Who leads, if known.
    pub leader: Option<(NodeName, EndpointId)>,
    /// The term.
    pub term: u64,
    /// Highest applied index.
    pub applied: u64,
    /// In the configuration, as far as it is applied here.
    pub is_member: bool,
    /// Grows when members come, go or move, by the log here or by what others told.
    pub membership_version: u64,
    /// There is a ticket by which somebody may be admitted.
    pub joinable: bool,
}

impl Summary {
    /// The place by what consensus knows now.
    pub(crate) fn of(raft: &Consensus<StateMachine>, membership_version: u64, joinable: bool) -> Self {
        let status = raft.status();
        let state = &raft.machine().0;
        let leader = status.leader.and_then(|id| state.nodes.member(id));
        Self {
            raft_id: status.id,
            role: status.role,
            leads: raft.leads(),
            leader: leader.map(|member| (member.node.name.clone(), member.node.endpoint_id)),
            term: status.term,
            applied: status.applied,
            is_member: raft.is_member(),
            membership_version,
            joinable,
        }
    }
}
