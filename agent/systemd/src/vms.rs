//! The interface through which the agent runs VMs, and its implementation with systemd.
//!
//! The bus may come up later than the agent, or go away. Then every call fails with that reason, and the next
//! call tries again. The agent itself goes on, because consensus needs no D-Bus.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::{Mutex as StdMutex, PoisonError};

use blixard_core::fences::SystemdWatchdogs;
use blixard_core::ports::{ObservedUnit, UnitEnd};
use blixard_model::VmName;
use blixard_model::order::LaunchOrder;
use tokio::sync::{Mutex, Notify};

use crate::bus::BusError;
use crate::journal;
use crate::manager::{ForgetError, ListError, ResetError, StartError, StopError, UnitManager};
use crate::unit::VmUnit;

/// Runs VMs as units of the service manager. Every method except [`VmRuntime::changed`] has a deadline and is
/// idempotent.
pub trait VmRuntime: Send + Sync + 'static {
    /// Why something could not be done.
    type Error: Error + Send + Sync + 'static;

    /// Starts a VM. Returns once its hypervisor reports that the VM runs.
    fn start(&self, order: &LaunchOrder) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Stops a VM gracefully. Returns once its unit is gone or inactive.
    fn stop(&self, name: &VmName) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Resets the failed state of a unit that has ended.
    fn reset_failed(&self, name: &VmName) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Removes the launch order and the limits of a VM that is deleted and whose unit is gone.
    fn forget(&self, name: &VmName) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// All VM units that there are. A unit that ended well or never ran need not be among them.
    fn list(&self) -> impl Future<Output = Result<Vec<ObservedUnit>, Self::Error>> + Send;
    /// The last console lines of a VM's last run.
    fn console(&self, name: &VmName, lines: u32) -> impl Future<Output = Vec<String>> + Send;
    /// Resolves when something may have changed. This is only a hint to list the units again.
    fn changed(&self) -> impl Future<Output = ()> + Send;
}

/// The VMs as units of systemd. Connects when it is first needed.
#[derive(Debug, Default)]
pub struct SystemdVms {
    connection: Mutex<Option<UnitManager>>,
    /// Notified when it is there for the first time.
    connected: Notify,
    /// The invocation id of each VM's last run, by which the journal finds its lines.
    invocations: StdMutex<BTreeMap<VmName, String>>,
}

/// Why systemd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum RuntimeError {
    /// The bus could not be reached.
    Bus(#[from] BusError),
    /// A VM was not started.
    Start(#[from] StartError),
    /// A VM was not stopped.
    Stop(#[from] StopError),
    /// The units could not be listed.
    List(#[from] ListError),
    /// A unit's failed state could not be reset.
    Reset(#[from] ResetError),
    /// The rest of a deleted VM could not be removed.
    Forget(#[from] ForgetError),
}

impl SystemdVms {
    async fn systemd(&self) -> Result<UnitManager, RuntimeError> {
        let mut connection = self.connection.lock().await;
        if let Some(systemd) = &*connection {
            return Ok(systemd.clone());
        }
        let systemd = UnitManager::connect().await?;
        *connection = Some(systemd.clone());
        self.connected.notify_waiters();
        Ok(systemd)
    }

    /// What systemd says of its watchdogs, and whether the unit of the last resort runs.
    ///
    /// # Errors
    /// systemd could not be reached.
    pub async fn fence_facts(&self) -> Result<(SystemdWatchdogs, bool), RuntimeError> {
        let systemd = self.systemd().await?;
        Ok((systemd.watchdogs().await?, systemd.last_resort_runs().await?))
    }

    fn note_invocation(&self, name: &VmName, invocation: Option<&String>) {
        if let Some(invocation) = invocation {
            let mut invocations = self.invocations.lock().unwrap_or_else(PoisonError::into_inner);
            invocations.insert(name.clone(), invocation.clone());
        }
    }
}

fn observed(unit: VmUnit) -> ObservedUnit {
    ObservedUnit {
        state: unit.observed(),
        order: unit.order,
        main_pid: unit.main_pid,
        status: unit.status(),
        ended: (!unit.exit.is_success()).then(|| UnitEnd {
            why: unit.exit.to_string(),
            cause: unit.exit.cause(),
            at_unix_ms: unit.changed_unix_us.map(|us| us / 1_000),
        }),
        name: unit.name,
    }
}

impl VmRuntime for SystemdVms {
    type Error = RuntimeError;

    async fn start(&self, order: &LaunchOrder) -> Result<(), RuntimeError> {
        let started = self.systemd().await?.start(order).await;
        if let Err(StartError::Failed { invocation, .. }) = &started {
            self.note_invocation(&order.vm.name, invocation.as_ref());
        }
        Ok(started?)
    }

    async fn stop(&self, name: &VmName) -> Result<(), RuntimeError> {
        Ok(self.systemd().await?.stop(name).await?)
    }

    async fn reset_failed(&self, name: &VmName) -> Result<(), RuntimeError> {
        Ok(self.systemd().await?.reset_failed(name).await?)
    }

    async fn forget(&self, name: &VmName) -> Result<(), RuntimeError> {
        self.invocations.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(self.systemd().await?.forget(name).await?)
    }

    async fn list(&self) -> Result<Vec<ObservedUnit>, RuntimeError> {
        let units = self.systemd().await?.list().await?;
        units.iter().for_each(|unit| self.note_invocation(&unit.name, unit.invocation.as_ref()));
        Ok(units.into_iter().map(observed).collect())
    }

    async fn console(&self, name: &VmName, lines: u32) -> Vec<String> {
        let invocation = {
            let invocations = self.invocations.lock().unwrap_or_else(PoisonError::into_inner);
            invocations.get(name).cloned()
        };
        // The console lines are not needed: a journal that cannot be read must not hide the reason of a
        // failure.
        journal::last_lines(name, invocation.as_deref(), lines).await.unwrap_or_default()
    }

    async fn changed(&self) {
        // Begun before the look: a connection that is made between the two is not missed.
        let connected = self.connected.notified();
        let connection = self.connection.lock().await.clone();
        match connection {
            Some(systemd) => systemd.changed().await,
            None => connected.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use blixard_model::UnitStatus;

    use super::*;
    use crate::fake::{self, FakeUnit};

    #[tokio::test]
    async fn a_vm_whose_unit_is_frozen_is_paused_whatever_its_supervisor_said_last() {
        let seen = async |active, freezer| {
            let unit = FakeUnit { active, freezer, status_text: "running", ..FakeUnit::default() };
            let (systemd, _changed) = UnitManager::on(fake::systemd(unit).await.0);
            let vms = SystemdVms::default();
            *vms.connection.lock().await = Some(systemd);
            let units = vms.list().await.expect("listed");
            units.into_iter().map(|unit| (unit.name.to_string(), unit.status)).collect::<Vec<_>>()
        };
        let web = || "web".to_owned();
        assert_eq!(seen("active", "running").await, [(web(), Some(UnitStatus::Running))]);
        let why = "frozen by `systemctl freeze`: `systemctl thaw blixard-vm@web.service`".to_owned();
        assert_eq!(seen("active", "frozen").await, [(web(), Some(UnitStatus::Paused(why)))]);
        // One that is stopped is thawed by that.
        assert_eq!(seen("deactivating", "frozen").await, [(web(), Some(UnitStatus::Running))]);
    }

    /// The agent waits for changes from its start on, and connects later.
    #[tokio::test]
    async fn who_waits_for_changes_before_there_is_a_connection_hears_of_them_all_the_same() {
        let vms = Arc::new(SystemdVms::default());
        let hears = |vms: &Arc<SystemdVms>| {
            let vms = Arc::clone(vms);
            let hint = async move { tokio::time::timeout(Duration::from_secs(5), vms.changed()).await };
            tokio::spawn(hint)
        };
        let first = hears(&vms);
        tokio::task::yield_now().await;
        let (link, _calls) = fake::systemd(FakeUnit::default()).await;
        let (systemd, changed) = UnitManager::on(link);
        *vms.connection.lock().await = Some(systemd);
        vms.connected.notify_waiters();
        first.await.expect("no panic").expect("it is there: what changed before was not heard");
        let second = hears(&vms);
        changed.notify_one();
        second.await.expect("no panic").expect("a unit changed");
    }
}
