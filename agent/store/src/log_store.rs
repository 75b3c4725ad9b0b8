//! What a node asks of whatever keeps its log.

use blixard_consensus::LogWrite;

/// Keeps the log. Any error is final: the owner ends the process, and nothing is ever written again after one
/// (an fsync that failed once may lie when repeated).
pub trait LogStore {
    /// Why a write failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Writes all of it in one transaction.
    ///
    /// # Errors
    /// The disk's. Nothing of the batch may be taken as written.
    fn write(&mut self, batch: &LogWrite) -> Result<(), Self::Error>;
}
