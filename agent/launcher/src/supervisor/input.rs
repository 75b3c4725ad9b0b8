//! Everything that happens to a supervisor, and everything that it has done.

use blixard_model::UnitStatus;

use super::end::{ProcessEnd, VmEnd};
use crate::qemu::message::{QmpCommand, QmpMessage};

/// What happens to a supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SupervisorInput {
    /// The hypervisor's process could not be started, for this reason.
    NotSpawned(String),
    /// The hypervisor opened its control connection.
    Connected,
    /// The hypervisor said this on it.
    Said(QmpMessage),
    /// The control connection is of no use any more, for this reason. The hypervisor may still run.
    ConnectionLost(String),
    /// The hypervisor's process has ended.
    Ended(ProcessEnd),
    /// systemd asks for the end of the VM.
    Stop,
    /// Some time has passed.
    Wake,
}

/// What a supervisor has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SupervisorEffect {
    /// Start the hypervisor's process, with a guest that does not run yet.
    Spawn,
    /// Tell the hypervisor this, with this id.
    Send {
        /// The command.
        command: QmpCommand,
        /// The id, which the answer repeats.
        id: u64,
    },
    /// Ask the hypervisor's process to end (SIGTERM).
    Terminate,
    /// End the hypervisor's process (SIGKILL).
    Kill,
    /// Tell systemd how the VM is, and with `ready` that it has started.
    Notify {
        /// It runs for the first time.
        ready: bool,
        /// How it is.
        status: UnitStatus,
    },
    /// Say this in the unit's journal.
    Say(String),
    /// The supervisor's own end.
    End(VmEnd),
}
