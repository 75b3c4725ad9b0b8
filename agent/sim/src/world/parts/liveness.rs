//! Whether everything is mended, and who stays cut off all the same.

use super::event::MachineId;

/// The state of the second phase.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    pub(crate) since_us: Option<u64>,
    pub(crate) cut_off: Option<MachineId>,
}

impl Liveness {
    pub(crate) fn is_on(&self) -> bool {
        self.since_us.is_some()
    }

    /// It stays cut off in one direction: nothing is asked of it.
    pub(crate) fn is_cut_off(&self, machine: MachineId) -> bool {
        self.cut_off == Some(machine)
    }
}
