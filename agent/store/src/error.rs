//! Why a store can not be opened or written.

use std::path::PathBuf;

use blixard_model::EndpointId;
use blixard_model::id::ClusterName;

/// The store can not be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory can not be reached.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process holds it.
    #[error("{path} is in use by another process: is an agent running on this data directory already?")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// It is no store, or it is broken.
    #[error(
        "{path} can not be opened: {source}. It counts as lost: move it away and start again; the cluster \
         admits this node anew, under a new raft id"
    )]
    Broken {
        /// Which.
        path: PathBuf,
        /// Why.
        source: redb::Error,
    },
    /// It was written by a newer version.
    #[error("{path} has format {found}, this version knows {known}: use the newer version that wrote it")]
    Format {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest this version knows.
        known: u32,
    },
    /// It is another node's disk.
    #[error(
        "{path} belongs to endpoint {theirs}, this node's key is {ours}: restore the key, or use its own \
         data_dir"
    )]
    OtherNode {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        theirs: EndpointId,
        /// Who asks.
        ours: EndpointId,
    },
    /// It is another cluster's disk.
    #[error(
        "{path} belongs to cluster {theirs:?}, the configuration says {ours:?}: correct cluster_name or \
         data_dir"
    )]
    OtherCluster {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        theirs: ClusterName,
        /// Which is configured.
        ours: ClusterName,
    },
    /// A record in it can not be read.
    #[error("{path} holds a record that can not be read: {what}")]
    Record {
        /// Which file.
        path: PathBuf,
        /// Which record, and why.
        what: String,
    },
}

/// The disk refused a write. Final: nothing may be written after it.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// redb's own error.
    #[error("the store can not be written: {0}")]
    Redb(#[from] redb::Error),
    /// An earlier write failed.
    #[error("an earlier write failed; the store is closed")]
    Closed,
    /// A record that can not be encoded.
    #[error("a record can not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for WriteError {
            fn from(error: redb::$error) -> Self {
                Self::Redb(error.into())
            }
        })*
    };
}
from_redb!(TransactionError, TableError, StorageError, CommitError, SetDurabilityError);
