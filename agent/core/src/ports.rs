//! What the decisions need done by the world; implemented at the edges.

use std::fmt;
use std::future::Future;

use blixard_model::VmName;
use blixard_model::launch::LaunchSpec;
use blixard_model::report::ObservedState;

/// A VM unit as the service manager lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedUnit {
    /// The VM.
    pub name: VmName,
    /// What the unit does. Only starting, running, stopping, stopped and failed occur.
    pub state: ObservedState,
    /// The unit's main process.
    pub main_pid: Option<u32>,
    /// How the last run ended, in words, when it did not end well: `exited 1`, `killed by signal 9`.
    pub ended: Option<String>,
}

/// Runs VMs as units of the service manager. Every method has a deadline of its own and is idempotent.
pub trait VmRuntime: Send + Sync + 'static {
    /// Why something could not be done.
    type Error: fmt::Display + Send;

    /// Starts a VM and returns once its hypervisor says running.
    fn start(&self, launch: &LaunchSpec) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Stops a VM gracefully and returns once its unit is gone or inactive.
    fn stop(&self, name: &VmName) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Forgets how a unit that has ended failed.
    fn reset_failed(&self, name: &VmName) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Forgets the launch order of a VM that is deleted.
    fn forget(&self, name: &VmName) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// All VM units there are, the truth. A unit that ended well or never ran need not be among them.
    fn list(&self) -> impl Future<Output = Result<Vec<ObservedUnit>, Self::Error>> + Send;
    /// The last console lines of a VM's last run.
    fn console(&self, name: &VmName, lines: u32) -> impl Future<Output = Vec<String>> + Send;
    /// Resolves when something may have changed: a hint to list again.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}
