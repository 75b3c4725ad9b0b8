//! What a node sees when it decides about its units.

use blixard_model::{LeaseFile, StopNote, VmName};

use crate::ports::ObservedUnit;
use crate::state::VmRecord;

/// What a node looks at.
#[derive(Debug)]
pub struct UnitsView<'a> {
    /// The VMs placed on this node, from the log.
    pub placed: &'a [&'a VmRecord],
    /// Its VM units, from the service manager.
    pub units: &'a [ObservedUnit],
    /// Those of its units whose VMs the log does not know at all.
    pub unknown: &'a [VmName],
    /// The look at the units that gave them, as [`Ongoing::note_asked`](super::Ongoing::note_asked) counts
    /// looks.
    pub look: u64,
    /// What the supervisors know of this node's lease.
    pub lease: Option<&'a LeaseFile>,
    /// What was stopped by hand on this node, as far as the log was not told.
    pub stopped: &'a [StopNote],
    /// The log was read up to date at least once since the agent started.
    pub up_to_date: bool,
    /// Milliseconds of a clock that never goes back.
    pub now_ms: u64,
    /// Milliseconds since the Unix epoch by the machine's clock, to tell people.
    pub wall_ms: u64,
}

/// The unit of a VM, if there is one.
pub(super) fn unit_of<'a>(units: &'a [ObservedUnit], name: &VmName) -> Option<&'a ObservedUnit> {
    units.iter().find(|unit| unit.name == *name)
}
