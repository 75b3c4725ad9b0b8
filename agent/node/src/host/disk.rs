//! What a host makes durable: plain words for the shell, and the one function that carries them out on a
//! store. What a bound store holds, and how it comes to be bound.

use blixard_consensus::{Durable, LogWrite, genesis_snapshot};
use blixard_core::ClusterState;
use blixard_core::genesis::cluster_id;
use blixard_model::formation::Genesis;
use blixard_model::words::with_causes;
use blixard_model::{EndpointId, NodeName, RaftId};
use blixard_store::{ClusterMarker, DiskFault, LogStore as _, OpenError, Store, WriteError};

use crate::forming::Birth;
use crate::machine::encode_state;

/// One durable write. All of it is on disk when it returns, or the process ends.
#[derive(Debug)]
pub enum Write {
    /// The promise to form this cluster and no other.
    Promise(Box<Genesis>),
    /// The store belongs to a cluster from now on.
    Bind(Box<Birth>),
    /// Entries, hard state and snapshot of the log.
    Log(Box<LogWrite>),
    /// This node was removed from its cluster: it says so also after a restart, if this can be written down.
    Removed,
}

/// What a store that is bound to a cluster holds.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its cluster and this node's place in it.
    pub marker: ClusterMarker,
    /// The log.
    pub durable: Durable,
}

impl Kept {
    /// What this store holds; none while it is bound to no cluster.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: &Store) -> Result<Option<Self>, OpenError> {
        let Some(marker) = store.cluster().cloned() else { return Ok(None) };
        Ok(Some(Self { marker, durable: store.load()? }))
    }
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
    Removed {
        /// Why it could not be written down, in words. The host goes on to say that it was removed all the
        /// same, and writes nothing more.
        failure: Option<String>,
    },
}

/// Why a store cannot be bound to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The genesis is of other nodes, or of another store of this one.
    #[error("the genesis does not hold this node")]
    NotInGenesis,
    /// The disk's; final.
    #[error("the store cannot be bound to the cluster")]
    Store(#[from] WriteError),
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
            bind(store, endpoint_id, name, Birth::clone(birth))?;
            let kept = Kept::load(store)?.ok_or(BindError::NotInGenesis)?;
            Ok(Written::Bound(Box::new(kept)))
        }
        Write::Log(write) => {
            store.write(write)?;
            Ok(Written::Log)
        }
        Write::Removed => {
            let failure = store.set_removed().err().map(|error| with_causes(&error));
            Ok(Written::Removed { failure })
        }
    }
}

/// Binds an empty store to the cluster it was found to be in. One transaction: a crash leaves it empty or
/// bound.
///
/// # Errors
/// See [`BindError`].
pub fn bind(
    store: &mut Store,
    endpoint_id: EndpointId,
    name: &NodeName,
    birth: Birth,
) -> Result<(), BindError> {
    match birth {
        Birth::Formed(genesis) => {
            let state = ClusterState::new(genesis.clone());
            // One that was made of another cluster began with that one's state, and not with this.
            let member = state
                .member_by_endpoint(endpoint_id)
                .filter(|member| member.node.store_id == store.store_id() && genesis.origin.is_none())
                .ok_or(BindError::NotInGenesis)?;
            let voters: Vec<RaftId> = state.nodes.raft_ids().collect();
            let begin = genesis_snapshot(&voters, encode_state(&state));
            let marker = ClusterMarker {
                cluster_id: cluster_id(&genesis),
                genesis,
                raft_id: member.raft_id,
                node_name: name.clone(),
                contacts: Vec::new(),
            };
            store.bind(&marker, Some(begin))?;
        }
        Birth::Joined { cluster_id, genesis, raft_id, contacts } => {
            let node_name = name.clone();
            let marker = ClusterMarker { cluster_id, genesis, raft_id, node_name, contacts };
            store.bind(&marker, None)?;
        }
    }
    Ok(())
}
