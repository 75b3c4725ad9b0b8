//! Sizes and lengths of a node, for whoever watches it.

use blixard_consensus::LogStats;

use super::Node;
use super::waiting::Waits;

/// Sizes and lengths at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStats {
    /// The log's.
    pub log: LogStats,
    /// Proposals that wait for their outcome.
    pub proposals: usize,
    /// Reads that wait for their index.
    pub reads: usize,
}

impl<P: Waits, R: Waits> Node<P, R> {
    /// Sizes and lengths now.
    pub fn stats(&self) -> NodeStats {
        let (proposals, reads) = self.waiting();
        NodeStats { log: self.raft.log_stats(), proposals, reads }
    }
}
