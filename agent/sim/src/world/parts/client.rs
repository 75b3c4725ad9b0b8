//! A client: who it is and what it does now.

use blixard_model::WriteRequest;

use super::event::MachineId;

/// A client and what it does now.
#[derive(Debug)]
pub(crate) struct SimClient {
    pub(crate) id: usize,
    /// Its last operation: it counts them.
    pub(crate) number: u64,
    pub(crate) op: Option<ClientOp>,
    /// Operations after everything was mended.
    pub(crate) probes: u64,
}

/// An operation that is not decided yet.
#[derive(Debug)]
pub(crate) struct ClientOp {
    /// None for a read.
    pub(crate) request: Option<WriteRequest>,
    /// What had been acknowledged to anybody when it was invoked.
    pub(crate) floor: u64,
    /// The attempt under way, and where.
    pub(crate) attempt: Option<(u64, MachineId)>,
    /// Some attempt's end is not known.
    pub(crate) maybe: bool,
}

impl ClientOp {
    pub(crate) fn new(request: Option<WriteRequest>, floor: u64) -> Self {
        Self { request, floor, attempt: None, maybe: false }
    }
}

impl SimClient {
    pub(crate) fn new(id: usize) -> Self {
        Self { id, number: 0, op: None, probes: 0 }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.op.is_none()
    }
}
