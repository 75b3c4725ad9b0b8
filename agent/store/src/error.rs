//! Errors of opening and writing a store.

use std::io;
use std::path::PathBuf;

use blixard_model::EndpointId;
use blixard_model::id::ClusterName;

/// What is wrong with the disk itself. A process that meets it ends, and another one may go on when it is
/// mended: nothing acknowledged is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// There is no space left, or the quota is used up.
    Full,
    /// It reports input and output errors, or was set read-only because of them.
    Failed,
}

impl DiskFault {
    /// What an error of the file system says about the disk; `None` if it is about a name or a right.
    pub fn of(error: &io::Error) -> Option<Self> {
        /// errno of an input/output error: the standard library has no kind for it.
        const EIO: i32 = 5;
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::Failed),
            _ => (error.raw_os_error() == Some(EIO)).then_some(Self::Failed),
        }
    }
}

/// The store cannot be used. Causes are in the chain of sources, not in these texts.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its directory cannot be reached.
    #[error("{path} cannot be used")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// Another process holds it.
    #[error("{path} is in use by another process: is an agent running on this data directory already?")]
    InUse {
        /// The store file.
        path: PathBuf,
    },
    /// It is no store, or it is broken.
    #[error(
        "{path} cannot be opened and counts as lost: move it away and start again; the cluster admits this \
         node anew, under a new raft id"
    )]
    Broken {
        /// The store file.
        path: PathBuf,
        /// The error of redb.
        source: redb::Error,
    },
    /// It was written by a newer version.
    #[error("{path} has format {found}, this version knows {known}: use the newer version that wrote it")]
    Format {
        /// The store file.
        path: PathBuf,
        /// The format that was found.
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
        /// The store file.
        path: PathBuf,
        /// The node that the store belongs to.
        theirs: EndpointId,
        /// The node that opens it.
        ours: EndpointId,
    },
    /// It is another cluster's disk.
    #[error(
        "{path} belongs to cluster {theirs:?}, the configuration says {ours:?}: correct cluster_name or \
         data_dir"
    )]
    OtherCluster {
        /// The store file.
        path: PathBuf,
        /// The cluster that the store belongs to.
        theirs: ClusterName,
        /// The cluster in the configuration.
        ours: ClusterName,
    },
    /// A record in it cannot be read.
    #[error("{path} holds a record that cannot be read: {what}")]
    Record {
        /// The store file.
        path: PathBuf,
        /// The record, and what is wrong with it.
        what: String,
    },
}

impl OpenError {
    /// Whether the disk is to blame, and how.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        match self {
            Self::Io { source, .. } => DiskFault::of(source),
            _ => None,
        }
    }
}

/// Another store was not put in the place of one, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The old one is in its place.
    #[error("the new store cannot be made; the old one is as it was")]
    Undone(#[source] OpenError),
    /// The old one is in its place or the new one, whole.
    #[error("it is not known whether the new store is in its place, or the old one still is")]
    Unknown(#[source] OpenError),
}

/// The disk refused a write. Final: nothing may be written after it.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// redb's own error.
    #[error("the store cannot be written")]
    Redb(#[from] redb::Error),
    /// An earlier write failed.
    #[error("an earlier write failed; the store is closed")]
    Closed,
    /// A record that cannot be encoded.
    #[error("a record cannot be encoded")]
    Encode(#[from] serde_json::Error),
}

impl WriteError {
    /// Whether the disk is to blame, and how. A write that the system refused for any other reason counts as
    /// a failed disk: the file was open and written before.
    pub fn disk_fault(&self) -> Option<DiskFault> {
        match self {
            Self::Redb(redb::Error::Io(error)) => Some(DiskFault::of(error).unwrap_or(DiskFault::Failed)),
            Self::Redb(redb::Error::PreviousIo) => Some(DiskFault::Failed),
            _ => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    /// An error with its causes, as the last line of an agent has it.
    fn line(error: &dyn Error) -> String {
        let (mut text, mut cause) = (error.to_string(), error.source());
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = || io::Error::from(io::ErrorKind::PermissionDenied);
        let path = || PathBuf::from("/d/store.redb");
        let unreachable = OpenError::Io { path: path(), source: cause() };
        assert_eq!(line(&unreachable), "/d/store.redb cannot be used: permission denied");
        let broken = OpenError::Broken { path: path(), source: redb::Error::Io(cause()) };
        let said = line(&broken);
        assert!(said.starts_with("/d/store.redb cannot be opened and counts as lost: move it"), "{said}");
        assert_eq!(said.matches("permission denied").count(), 1, "{said}");
        let written = line(&WriteError::Redb(redb::Error::Io(cause())));
        assert_eq!(written.matches("permission denied").count(), 1, "{written}");
    }
}
