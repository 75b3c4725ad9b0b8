//! The head of a backup file.
//!
//! A file is one line of JSON, a [`BackupHeader`], and after the line end the replicated state as a snapshot
//! holds it, tickets left out. Fields are added to the header; what gives an old one another meaning needs a
//! new format. What reads and writes files of it is in `blixard-node`.

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, ClusterName, NodeName};

/// The beginning of every backup file.
pub const BACKUP_MAGIC: &str = "blixard-backup";
/// The format that this version writes, and the newest one it reads.
pub const BACKUP_FORMAT: u32 = 1;
/// Longest header, its line end included, in bytes.
pub const BACKUP_HEADER_LEN_MAX: usize = 4 << 10;
/// Longest body, in bytes.
pub const BACKUP_BODY_LEN_MAX: usize = 256 << 20;
/// Longest backup, in bytes.
pub const BACKUP_LEN_MAX: usize = BACKUP_HEADER_LEN_MAX + BACKUP_BODY_LEN_MAX;

/// The header of a backup. Its field order is the file's: the digest of the header comes last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    /// [`BACKUP_MAGIC`].
    pub magic: String,
    /// [`BACKUP_FORMAT`], or an older one.
    pub format: u32,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Its name.
    pub cluster_name: ClusterName,
    /// The last log index that the state holds.
    pub index: u64,
    /// The term of the node that made it.
    pub term: u64,
    /// A quorum confirmed that everything acknowledged before the backup began is in it.
    pub linearizable: bool,
    /// The node that made it.
    pub node: NodeName,
    /// The version of its agent.
    pub version: String,
    /// When, by that node's clock, in milliseconds since the Unix epoch.
    pub made_at_ms: u64,
    /// Length of the body in bytes.
    pub body_len: u64,
    /// Digest of the body (BLAKE3, in hexadecimal digits).
    pub body_blake3: String,
    /// Digest of the header up to this field.
    pub header_blake3: String,
}
