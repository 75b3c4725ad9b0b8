//! The steps by which a node's units become what the log wants.

use blixard_model::{VmName, VmStop};

/// One step towards the desired state. Steps for different VMs are independent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the unit.
    Start(VmName),
    /// Stop the unit.
    Stop(VmName),
    /// Forget how the unit failed.
    ResetFailed(VmName),
    /// Tell the cluster that the unit of an absent VM is gone.
    ConfirmGone(VmName),
    /// Tell the cluster that no unit runs by an earlier spec of the VM.
    ConfirmSpec(VmName),
    /// Tell the cluster that a VM that it wants to run stays stopped, and why.
    ConfirmStop(VmName, VmStop),
}

/// The kinds of [`Action`]: each has its own share of what may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActionKind {
    /// [`Action::Start`].
    Start,
    /// [`Action::Stop`].
    Stop,
    /// [`Action::ResetFailed`].
    ResetFailed,
    /// [`Action::ConfirmGone`].
    ConfirmGone,
    /// [`Action::ConfirmSpec`].
    ConfirmSpec,
    /// [`Action::ConfirmStop`].
    ConfirmStop,
}

impl Action {
    /// Its kind.
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::Start(_) => ActionKind::Start,
            Self::Stop(_) => ActionKind::Stop,
            Self::ResetFailed(_) => ActionKind::ResetFailed,
            Self::ConfirmGone(_) => ActionKind::ConfirmGone,
            Self::ConfirmSpec(_) => ActionKind::ConfirmSpec,
            Self::ConfirmStop(..) => ActionKind::ConfirmStop,
        }
    }

    /// The VM it is about.
    pub fn vm(&self) -> &VmName {
        match self {
            Self::Start(name)
            | Self::Stop(name)
            | Self::ResetFailed(name)
            | Self::ConfirmGone(name)
            | Self::ConfirmSpec(name)
            | Self::ConfirmStop(name, _) => name,
        }
    }
}
