//! What a node keeps on disk: who it is, which cluster it belongs to, Raft's log. One redb file, one write at
//! a time.
//!
//! Owns the file `store.redb` in the data directory. Refuses the file of another node or cluster. Takes no
//! decision: it is told what to keep, and keeps it together or not at all. Reaches the file system through
//! [`StoreDisk`] alone.

mod backend;
mod disk;
mod error;
mod file;
mod log_store;
mod tables;

pub use disk::{DirDisk, StoreDisk};
pub use error::{DiskFault, OpenError, ReplaceError, WriteError};
pub use file::{Begin, FILE_NAME, Store, StoreStats};
pub use log_store::LogStore;
pub use tables::ClusterMarker;
