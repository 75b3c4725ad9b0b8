//! This node's lease, and those that it grants while it leads; what is done about them is in `leasing.rs`.

use std::collections::BTreeMap;

use blixard_core::ClusterState;
use blixard_core::lease::{Grantor, Holder, LeaseFound};
use blixard_core::state::LeaseTable;
use blixard_model::api::LeaseView;
use blixard_model::{
    AskOutcome, ClusterId, LeaseDenial, LeaseFile, LeaseRenewal, LeaseStanding, LeaseTerms, NodeName, RaftId,
};

use crate::attempt::AttemptEnd;
use crate::host::input::PeerCallId;
use crate::host::moment::Moment;

/// Who asks for a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseAsker {
    /// This node itself, which leads; at this time.
    Own { sent_ms: u64 },
    /// A peer.
    Peer(PeerCallId),
}

/// A renewal that waits for a confirmation.
#[derive(Debug, Clone)]
pub(super) struct AskedRenewal {
    pub(super) asker: LeaseAsker,
    pub(super) raft_id: RaftId,
    pub(super) renewal: LeaseRenewal,
}

/// A node's lease, and those that it grants.
#[derive(Debug)]
pub(super) struct Leases {
    pub(super) node: NodeName,
    /// Those of the cluster unless somebody chose others, and those that hold.
    pub(super) usual: LeaseTerms,
    pub(super) terms: LeaseTerms,
    pub(super) holder: Holder,
    /// The leases that it grants while it leads.
    pub(super) grantor: Option<Grantor>,
    /// The renewals that came before the round under way began, by the node; and the round.
    pub(super) round: Option<(u64, BTreeMap<NodeName, AskedRenewal>)>,
    /// Those that came since.
    pub(super) next: BTreeMap<NodeName, AskedRenewal>,
    pub(super) rounds: u64,
    /// The nodes that were found to be lost and are not yet by the log, by the number of the proposal.
    pub(super) verdicts: BTreeMap<u64, NodeName>,
    pub(super) next_verdict: u64,
    /// When it is looked for nodes that are lost again, and how often it was.
    pub(super) verdict_due_ms: u64,
    pub(super) verdict_looks: u64,
    /// Why its own lease was not renewed the last time.
    pub(super) denied: Option<LeaseDenial>,
}

impl Leases {
    pub(super) fn new(
        node: NodeName,
        cluster_id: ClusterId,
        (terms, found): (LeaseTerms, LeaseFound),
        now: Moment,
    ) -> Self {
        let holder = Holder::new(node.clone(), (now.boot_id, cluster_id), terms, found, now.boot_ms);
        Self {
            node,
            usual: terms,
            terms,
            holder,
            grantor: None,
            round: None,
            next: BTreeMap::new(),
            rounds: 0,
            verdicts: BTreeMap::new(),
            next_verdict: 0,
            verdict_due_ms: now.boot_ms,
            verdict_looks: 0,
            denied: None,
        }
    }

    /// The terms that the log has.
    pub(super) fn note_terms(&mut self, state: &ClusterState) {
        self.terms = self.usual.with(state.leases.terms);
    }

    /// What the supervisors of this node's VMs know.
    pub(super) fn file(&self) -> Option<&LeaseFile> {
        self.holder.file()
    }

    /// This node's lease; none while there is no need for one.
    pub(super) fn view(&self, now_ms: u64, is_on: bool) -> Option<LeaseView> {
        let until_ms = self.holder.file().and_then(|file| file.until_ms);
        let holds_for_ms = until_ms.and_then(|until_ms| until_ms.checked_sub(now_ms)).filter(|ms| *ms > 0);
        is_on.then(|| LeaseView { holds_for_ms, denied: self.denied.map(|why| why.to_string()) })
    }

    /// How a node stands that obeys leases, by what this one granted as leader.
    pub(super) fn standing(&self, now_ms: u64, table: &LeaseTable, node: &NodeName) -> Option<LeaseStanding> {
        let holder = table.holder(node)?;
        let standing = self.grantor.as_ref()?.standing(now_ms, node);
        Some(if holder.is_lost { LeaseStanding::Lost } else { standing })
    }

    /// The log has taken it that a node is lost, or will not. Where that is not known the leadership was
    /// lost, and with it everything that was granted.
    pub(super) fn verdict_ended(&mut self, number: u64, end: &AttemptEnd) -> Option<NodeName> {
        let node = self.verdicts.remove(&number)?;
        if let Some(grantor) = self.grantor.as_mut().filter(|_| !matches!(end, AttemptEnd::Unknown { .. })) {
            grantor.note_verdict_ended(&node);
        }
        let is_done = matches!(end, AttemptEnd::Decided(AskOutcome::Done { unchanged: false, .. }));
        is_done.then_some(node)
    }

    /// Whoever asked does not wait any more.
    pub(super) fn give_up(&mut self, call: PeerCallId) {
        let stays = |_: &NodeName, asked: &mut AskedRenewal| asked.asker != LeaseAsker::Peer(call);
        self.next.retain(stays);
        if let Some((_, asked)) = &mut self.round {
            asked.retain(stays);
        }
    }
}
