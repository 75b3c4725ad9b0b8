//! Whom this node asks who they are, and when.
//!
//! As leader it asks every member and listed node it has a link with: that is how a lost store and a new
//! node are noticed. Without a leader it asks as well: the others may know that its store has left the
//! cluster. One that does not answer is asked less and less often.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::EndpointId;
use blixard_model::api::RetryKind;
use blixard_model::backoff::ANNOUNCE;

use crate::host::trouble::{Tries, Trouble};
use crate::summary::Summary;

/// The others are asked this often, in milliseconds.
const PERIOD_MS: u64 = 1_000;
/// How long an answer may take, in milliseconds.
pub(super) const ANSWER_MS: u64 = 2_000;

/// Who was asked, and who does not answer.
#[derive(Debug)]
pub(super) struct Identities {
    seed: u64,
    next_round_ms: u64,
    failing: BTreeMap<EndpointId, Tries>,
}

impl Identities {
    pub(super) fn new(seed: u64, now_ms: u64) -> Self {
        Self { seed, next_round_ms: now_ms, failing: BTreeMap::new() }
    }

    /// When the next round is due.
    pub(super) fn due_ms(&self) -> u64 {
        self.next_round_ms
    }

    /// Whom to ask now; `asked` are those whose answer is still awaited.
    pub(super) fn next_round(
        &mut self,
        now_ms: u64,
        summary: &Summary,
        linked: &BTreeSet<EndpointId>,
        asked: &BTreeSet<EndpointId>,
    ) -> Vec<EndpointId> {
        if now_ms < self.next_round_ms {
            return Vec::new();
        }
        self.next_round_ms = now_ms.saturating_add(PERIOD_MS);
        let asks = summary.leads || summary.leader.is_none();
        // A new link is a new beginning.
        self.failing.retain(|peer, _| asks && linked.contains(peer));
        let is_due = |peer: &EndpointId| self.failing.get(peer).is_none_or(|tries| tries.is_due(now_ms));
        let due = linked.iter().filter(|peer| asks && !asked.contains(*peer) && is_due(peer));
        due.copied().collect()
    }

    /// The peer said who it is.
    pub(super) fn answered(&mut self, peer: EndpointId) {
        self.failing.remove(&peer);
    }

    /// It did not.
    pub(super) fn failed(&mut self, peer: EndpointId, now_ms: u64, why: String) {
        let seed = self.seed;
        let tries = self.failing.entry(peer).or_insert_with(|| Tries::new(ANNOUNCE, seed));
        tries.failed(now_ms, why);
    }

    pub(super) fn trouble(&self, now_ms: u64) -> impl Iterator<Item = Trouble> {
        self.failing
            .iter()
            .filter_map(move |(peer, tries)| tries.trouble(RetryKind::Identify, Some(*peer), now_ms))
    }
}
