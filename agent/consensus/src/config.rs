//! The configuration of a node at its start, and the settings of Raft.

use blixard_model::{RaftId, mutant};
use raft::ReadOnlyOption;

use crate::limits::Limits;

/// The period of [`crate::Consensus::tick`], in milliseconds.
pub const TICK_MS: u64 = 100;
/// Election timeouts lie between this many ticks and twice as many.
pub(crate) const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;

/// The configuration of a node at its start.
#[derive(Debug, Clone, Copy)]
pub struct ConsensusConfig {
    /// This node's raft id.
    pub raft_id: RaftId,
    /// Differs in every run of the agent, so that names of reads and proposals are never used twice.
    pub incarnation: u64,
    /// Election timeouts are a hash of this, the id and the term: a run can be repeated.
    pub seed: u64,
    /// When the log is cut.
    pub limits: Limits,
}

impl ConsensusConfig {
    /// The election timeout in this term, in ticks.
    pub(crate) fn election_timeout(&self, term: u64) -> usize {
        let mut x = self.seed ^ self.raft_id.0.rotate_left(32) ^ term;
        // splitmix64's finaliser: every input bit moves every output bit.
        for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
            x = (x ^ (x >> 30)).wrapping_mul(multiplier).rotate_left(17);
        }
        ELECTION_TICKS + usize::try_from(x % ELECTION_TICKS as u64).unwrap_or(0)
    }

    /// Raft's settings for a node whose state holds the log up to `applied`.
    pub(crate) fn raft(&self, applied: u64) -> raft::Config {
        raft::Config {
            id: self.raft_id.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: !mutant::lives("no-pre-vote-no-check-quorum"),
            pre_vote: !mutant::lives("no-pre-vote-no-check-quorum"),
            read_only_option: if mutant::lives("read-by-lease") {
                ReadOnlyOption::LeaseBased
            } else {
                ReadOnlyOption::Safe
            },
            max_uncommitted_size: 16 << 20,
            max_committed_size_per_ready: 4 << 20,
            ..raft::Config::default()
        }
    }
}
