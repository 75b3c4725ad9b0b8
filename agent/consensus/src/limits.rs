//! Limits of the log and of what waits for it.

/// Largest Raft message accepted from a peer, in bytes (snapshots come by another way and may be larger).
pub(crate) const MESSAGE_LEN_MAX: usize = 8 << 20;
/// Largest command, in bytes.
pub(crate) const COMMAND_LEN_MAX: usize = 256 << 10;
/// Most proposals waiting to be applied.
pub(crate) const PROPOSALS_MAX: usize = 4_096;
/// Most reads waiting for their index.
pub(crate) const READS_MAX: usize = 4_096;

/// When a snapshot is taken and the log cut behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Once it holds more entries than this, beside those that are kept anyway ...
    pub compact_entries: usize,
    /// ... or more bytes than this.
    pub compact_bytes: usize,
    /// Entries kept in memory behind the snapshot, for members a little behind.
    pub keep_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { compact_entries: 8_192, compact_bytes: 32 << 20, keep_entries: 1_024 }
    }
}
