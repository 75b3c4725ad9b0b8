//! `vm-child`: becomes the hypervisor under the supervisor of the VM.

use std::convert::Infallible;
use std::ffi::OsString;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getppid};

use crate::exec::{LaunchError, become_hypervisor};

/// Why the hypervisor was not run.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The supervisor has ended meanwhile.
    #[error("vm-child is run by `blixard vm-run` only, which has ended")]
    Orphan,
    /// The kernel refused to end this process together with its supervisor, or to let it hear signals.
    #[error("the hypervisor cannot be tied to its supervisor")]
    Tie(#[source] nix::Error),
    /// The program could not be run.
    #[error(transparent)]
    Exec(#[from] LaunchError),
}

/// Replaces this process, a child of the supervisor with this process id, by the hypervisor. The kernel ends
/// it when the supervisor ends, whatever ended that: an exec keeps this, and QEMU leaves it as it is.
///
/// # Errors
/// [`ChildError`]: why it was not run. The function returns only in this case.
pub fn vm_child(supervisor: i32, program: &str, arguments: &[OsString]) -> Result<Infallible, ChildError> {
    set_pdeathsig(Signal::SIGKILL).map_err(ChildError::Tie)?;
    // It may have ended before that.
    if getppid() != Pid::from_raw(supervisor) {
        return Err(ChildError::Orphan);
    }
    // The supervisor waits for its signals and has blocked them, and an exec keeps that as well.
    SigSet::empty().thread_set_mask().map_err(ChildError::Tie)?;
    Err(become_hypervisor(program, arguments).into())
}
