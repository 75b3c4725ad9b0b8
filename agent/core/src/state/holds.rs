//! Leases that are longer than those which are granted: what nodes announce, and what makes them do so.

use blixard_model::lease::{DISARM_MS_MIN, HOLD_MS_MAX};
use blixard_model::{
    BootId, FieldRefused, HoldAsk, LeaseTerms, LeaseTermsChoice, Outcome, RaftId, Reason, Refusal, mutant,
};

use super::lease_table::{DisarmedCluster, LeaseHold, LeaseHolder};
use super::{ClusterState, LeaseTable};

impl LeaseTable {
    /// The length of leases by these terms, in milliseconds.
    fn lease_ms(&self) -> u64 {
        self.terms.map_or(LeaseTerms::DEFAULT.lease_ms, |terms| terms.lease_ms)
    }

    /// What is known of the leases of a node that says that it obeys them. Nobody knows by which terms it
    /// gave itself one before it said so. What an earlier boot may have goes on; what this boot had does not,
    /// if it has obeyed no lease since.
    pub(super) fn hold_of(
        &self,
        before: Option<&LeaseHolder>,
        (index, boot_id): (u64, BootId),
    ) -> Option<LeaseHold> {
        let goes_on = |hold: &LeaseHold| {
            hold.boot_id != boot_id || before.is_some_and(|before| before.epoch == self.epoch)
        };
        let kept = before.and_then(|before| before.hold).filter(goes_on);
        let was_longer = self.longest_ms > self.lease_ms() && before.is_none_or(|it| it.epoch != self.epoch);
        let own = LeaseHold { since: index, boot_id, length_ms: self.longest_ms, begins_ms: None };
        match kept {
            None => was_longer.then_some(own),
            Some(kept) => Some(LeaseHold { length_ms: kept.length_ms.max(self.longest_ms), ..kept }),
        }
    }
}

impl ClusterState {
    /// The node of this store obeys leases in this boot.
    fn holder_of(&mut self, raft_id: RaftId, boot_id: BootId) -> Option<&mut LeaseHolder> {
        let name = self.nodes.member(raft_id)?.node.name.clone();
        self.leases.may_hold(&name, raft_id, boot_id)?;
        self.leases.holders.get_mut(&name)
    }

    /// A node announces a long lease. It holds from when the node asked, and whoever leads waits for its end
    /// from when the log has it.
    pub(super) fn take_hold(
        &mut self,
        index: u64,
        raft_id: RaftId,
        hold: HoldAsk,
    ) -> Result<Outcome, Refusal> {
        if !hold.is_valid() {
            return Ok(Outcome::unchanged(None));
        }
        let Some(holder) = self.holder_of(raft_id, hold.boot_id) else {
            return Ok(Outcome::unchanged(None));
        };
        let mut length_ms = hold.length_ms;
        match holder.hold {
            // The node may count on the one before, so the new one ends no earlier.
            Some(LeaseHold { boot_id, length_ms: before_ms, begins_ms: Some(at_ms), .. })
                if boot_id == hold.boot_id =>
            {
                let until_ms = at_ms.saturating_add(before_ms);
                length_ms = length_ms.max(until_ms.saturating_sub(hold.begins_ms));
            }
            // Of another boot's nobody here knows the end: whoever leads waits anew for at least as long.
            Some(before) => length_ms = length_ms.max(before.length_ms),
            None => {}
        }
        let length_ms = if mutant::lives("hold-of-any-length") { 1 } else { length_ms };
        let HoldAsk { boot_id, begins_ms, .. } = hold;
        holder.hold = Some(LeaseHold { since: index, boot_id, length_ms, begins_ms: Some(begins_ms) });
        Ok(Outcome::done(None))
    }

    /// A node says that none of its supervisors counts on its long lease any more. While the cluster is
    /// disarmed it counts on it again, so what it said before does not stand.
    pub(super) fn end_hold(&mut self, raft_id: RaftId, boot_id: BootId, since: u64) -> Outcome {
        let is_disarmed = self.leases.disarmed.is_some() && !mutant::lives("hold-ended-while-disarmed");
        let Some(holder) = self.holder_of(raft_id, boot_id).filter(|_| !is_disarmed) else {
            return Outcome::unchanged(None);
        };
        match holder.hold.take_if(|hold| hold.since == since) {
            Some(_) => Outcome::done(None),
            None => Outcome::unchanged(None),
        }
    }

    /// For so long no VM is started elsewhere because its node is lost. Asked for again it begins anew.
    pub(super) fn disarm(&mut self, index: u64, for_ms: u64, at_ms: u64) -> Result<Outcome, Refusal> {
        if !(DISARM_MS_MIN..=HOLD_MS_MAX).contains(&for_ms) {
            let why = FieldRefused::DisarmTime { min_s: DISARM_MS_MIN / 1_000, max_s: HOLD_MS_MAX / 1_000 };
            return Err(Refusal::Invalid { why: Reason::Code(why) });
        }
        let until_unix_ms = at_ms.saturating_add(for_ms);
        self.leases.disarmed = Some(DisarmedCluster { since: index, for_ms, until_unix_ms });
        // A node may count on what it has from now on: what it said of that before does not stand any more.
        for hold in self.leases.holders.values_mut().filter_map(|holder| holder.hold.as_mut()) {
            hold.since = index;
        }
        Ok(Outcome::done(None))
    }

    /// VMs of lost nodes are started elsewhere again, once their long leases are over.
    pub(super) fn arm(&mut self, since: Option<u64>) -> Outcome {
        let is_meant = |it: &mut DisarmedCluster| since.is_none_or(|since| it.since == since);
        match self.leases.disarmed.take_if(is_meant) {
            Some(_) => Outcome::done(None),
            None => Outcome::unchanged(None),
        }
    }

    /// Gives leases other terms. Where leases were longer before, each node may still have one of then, until
    /// it says that it has not.
    pub(super) fn set_lease_terms(
        &mut self,
        index: u64,
        terms: LeaseTermsChoice,
    ) -> Result<Outcome, Refusal> {
        if let Err(why) = terms.check() {
            return Err(Refusal::Invalid { why: Reason::Code(FieldRefused::LeaseTerms(why)) });
        }
        if self.leases.terms == Some(terms) {
            return Ok(Outcome::unchanged(None));
        }
        let before_ms = self.leases.lease_ms();
        self.leases.terms = Some(terms);
        self.leases.longest_ms = self.leases.longest_ms.max(before_ms);
        if terms.lease_ms < before_ms && !mutant::lives("longer-terms-forgotten") {
            for holder in self.leases.holders.values_mut() {
                let new = LeaseHold {
                    since: index,
                    boot_id: holder.boot_id,
                    length_ms: before_ms,
                    begins_ms: None,
                };
                let mut hold = holder.hold.unwrap_or(new);
                hold.length_ms = hold.length_ms.max(before_ms);
                hold.since = index;
                holder.hold = Some(hold);
            }
        }
        Ok(Outcome::done(None))
    }
}
