//! What a host makes durable: plain words for the shell, and the one function that carries them out on a
//! store.

use blixard_consensus::LogWrite;
use blixard_model::formation::Genesis;
use blixard_model::{EndpointId, NodeName};
use blixard_store::{DiskFault, LogStore as _, OpenError, Store, WriteError};

pub use crate::birth::Kept;
use crate::birth::{self, BindError};
use crate::forming::Birth;

/// One durable write. All of it is on disk when it returns, or the process ends.
#[derive(Debug)]
pub enum Write {
    /// The promise to form this cluster and no other.
    Promise(Box<Genesis>),
    /// The store belongs to a cluster from now on.
    Bind(Box<Birth>),
    /// Entries, hard state and snapshot of the log.
    Log(Box<LogWrite>),
    /// This node was removed from its cluster: it says so also after a restart.
    Removed,
}

/// What is durable now.
#[derive(Debug, Clone)]
pub enum Written {
    /// [`Write::Promise`].
    Promise,
    /// [`Write::Bind`]: what the store holds.
    Bound(Box<Kept>),
    /// [`Write::Log`].
    Log,
    /// [`Write::Removed`].
    Removed,
}

/// Why a write was not done. Final: nothing more may be written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The write failed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store cannot be bound to the cluster.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What was just written cannot be read.
    #[error("the store cannot be read back")]
    Open(#[from] OpenError),
}

impl DiskError {
    /// What is wrong with the disk, if it is to blame.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        match self {
            Self::Write(error) | Self::Bind(BindError::Store(error)) => error.disk_fault(),
            Self::Bind(BindError::NotInGenesis) => None,
            Self::Open(error) => error.disk_fault(),
        }
    }
}

/// Carries out a write. Blocks until it is durable.
///
/// # Errors
/// See [`DiskError`].
pub fn carry_out(
    store: &mut Store,
    me: (EndpointId, &NodeName),
    write: &Write,
) -> Result<Written, DiskError> {
    match write {
        Write::Promise(genesis) => {
            store.set_promise(genesis)?;
            Ok(Written::Promise)
        }
        Write::Bind(birth) => {
            let (endpoint_id, name) = me;
            birth::bind(store, endpoint_id, name, Birth::clone(birth))?;
            let kept = Kept::load(store)?.ok_or(BindError::NotInGenesis)?;
            Ok(Written::Bound(Box::new(kept)))
        }
        Write::Log(write) => {
            store.write(write)?;
            Ok(Written::Log)
        }
        Write::Removed => {
            store.set_removed()?;
            Ok(Written::Removed)
        }
    }
}
