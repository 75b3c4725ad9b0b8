//! Everything that happens to a supervisor, and everything that it has done.

use blixard_model::UnitStatus;

use super::end::{ProcessEnd, VmEnd};
use crate::lease::LeasePermission;
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
    /// What the agent's lease allows the VM now: handed over at the start, whenever it may have changed, and
    /// before each [`Wake`](Self::Wake) at or after
    /// [`lease_deadline_ms`](super::Supervisor::lease_deadline_ms). It means nothing to a VM that needs no
    /// lease.
    Lease(LeasePermission),
    /// systemd has taken what [`Arm`](SupervisorEffect::Arm) told it.
    Armed,
    /// systemd could not be told that, for this reason.
    NotArmed(String),
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
    /// Tell systemd that the unit has started and is to be killed a moment after this time, in milliseconds
    /// of CLOCK_BOOTTIME, and ask it to confirm: [`Armed`](SupervisorInput::Armed) or
    /// [`NotArmed`](SupervisorInput::NotArmed) follows.
    Arm {
        /// The end of the lease; where it has none, a time soon after the last look at it.
        until_ms: u64,
    },
    /// Tell systemd that the unit is to be killed a moment after another time.
    Feed {
        /// As in [`Arm`](SupervisorEffect::Arm).
        until_ms: u64,
        /// The unit is being stopped, which is to have as much time.
        stopping: bool,
    },
    /// Say this in the unit's journal.
    Say(String),
    /// The supervisor's own end.
    End(VmEnd),
}
