//! VMs as units of this machine's systemd, behind `blixard-core`'s port.
//!
//! The bus may come later than the agent, or go away: then every call says so and the next one tries again.
//! The agent itself goes on: consensus needs no D-Bus.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex as StdMutex, PoisonError};

use blixard_core::ports::{ObservedUnit, VmRuntime};
use blixard_model::VmName;
use blixard_model::launch::LaunchSpec;
use blixard_systemd::{StartError, SystemdRuntime, VmUnit, journal};
use tokio::sync::Mutex;

/// systemd, once it can be reached.
#[derive(Debug, Default)]
pub(crate) struct SystemdVms {
    connection: Mutex<Option<SystemdRuntime>>,
    /// Names the last run of each VM in the journal.
    invocations: StdMutex<BTreeMap<VmName, String>>,
}

/// Why systemd did not do it, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RuntimeError(String);

fn words(error: impl Display) -> RuntimeError {
    RuntimeError(error.to_string())
}

impl SystemdVms {
    async fn systemd(&self) -> Result<SystemdRuntime, RuntimeError> {
        let mut connection = self.connection.lock().await;
        if let Some(systemd) = &*connection {
            return Ok(systemd.clone());
        }
        let systemd = SystemdRuntime::connect().await.map_err(words)?;
        *connection = Some(systemd.clone());
        Ok(systemd)
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
        main_pid: unit.main_pid,
        ended: (!unit.exit.is_success()).then(|| unit.exit.to_string()),
        name: unit.name,
    }
}

impl VmRuntime for SystemdVms {
    type Error = RuntimeError;

    async fn start(&self, launch: &LaunchSpec) -> Result<(), RuntimeError> {
        let started = self.systemd().await?.start(launch).await;
        if let Err(StartError::Failed { invocation, .. }) = &started {
            self.note_invocation(&launch.vm.name, invocation.as_ref());
        }
        started.map_err(words)
    }

    async fn stop(&self, name: &VmName) -> Result<(), RuntimeError> {
        self.systemd().await?.stop(name).await.map_err(words)
    }

    async fn reset_failed(&self, name: &VmName) -> Result<(), RuntimeError> {
        self.systemd().await?.reset_failed(name).await.map_err(words)
    }

    async fn forget(&self, name: &VmName) -> Result<(), RuntimeError> {
        self.invocations.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.systemd().await?.orders().remove(name).map_err(words)
    }

    async fn list(&self) -> Result<Vec<ObservedUnit>, RuntimeError> {
        let units = self.systemd().await?.list().await.map_err(words)?;
        units.iter().for_each(|unit| self.note_invocation(&unit.name, unit.invocation.as_ref()));
        Ok(units.into_iter().map(observed).collect())
    }

    async fn console(&self, name: &VmName, lines: u32) -> Vec<String> {
        let invocation = {
            let invocations = self.invocations.lock().unwrap_or_else(PoisonError::into_inner);
            invocations.get(name).cloned()
        };
        // The reason is complete without them: a journal that can not be read must not hide it.
        journal::last_lines(name, invocation.as_deref(), lines).await.unwrap_or_default()
    }

    async fn changed(&self) {
        let connection = self.connection.lock().await.clone();
        match connection {
            Some(systemd) => systemd.changed().await,
            None => std::future::pending().await,
        }
    }
}
