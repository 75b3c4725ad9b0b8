//! The operator: what it has in mind.

use blixard_model::{RaftId, TicketId, TicketSecret};
use blixard_node::host::NodeRemoval;

use super::event::MachineId;

/// What it has in mind.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    pub(crate) task: Option<OperatorTask>,
}

/// What it waits for an answer to, and until when.
#[derive(Debug, Clone)]
pub(crate) struct OperatorTask {
    pub(crate) number: u64,
    pub(crate) what: What,
    pub(crate) until_us: u64,
}

/// What it wants of the cluster.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A ticket for these.
    Give { id: TicketId, secret: TicketSecret, machines: Vec<MachineId> },
    /// A ticket is taken back.
    Revoke,
    /// A node is to leave, by its name.
    Remove { machine: MachineId, raft_id: RaftId, removal: NodeRemoval, tries: u32 },
    /// What a node that has left still holds is to be forgotten.
    Forget,
}
