//! The leader's side: to whom it has granted leases, and when each is certainly over.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{
    BootId, GrantId, LeaseDenial, LeaseRenewal, LeaseStanding, LeaseTerms, NodeName, RaftId, mutant,
};

use crate::state::{ClusterState, LeaseHolder, LeaseTable};

/// So long after all of its leases are over, in milliseconds, a node that shows no grant gets one again.
const BEGIN_ANEW_MS: u64 = 5_000;

/// The leases that the leader of one term grants.
#[derive(Debug)]
pub struct Grantor {
    term: u64,
    /// Those of the cluster unless somebody chose others, and those that hold.
    usual: LeaseTerms,
    terms: LeaseTerms,
    /// When it knew that an entry of its term is committed: what leaders before it granted was counted from
    /// before that.
    began_ms: u64,
    nodes: BTreeMap<NodeName, Granted>,
    /// What the log says of each node.
    seen: BTreeMap<NodeName, SeenHolder>,
    /// The entry that disarmed the cluster, by its index, and when this leader saw it first: nobody is found
    /// lost now.
    disarmed: Option<(u64, u64)>,
}

/// What the log says of a node, and since when.
#[derive(Debug, Clone)]
struct SeenHolder {
    holder: LeaseHolder,
    /// Since when it obeys leases in this time of enforcement. It has given itself one before it said so.
    enforces_ms: u64,
    /// Since when it may have a longer one.
    hold_ms: u64,
}

/// What one node was granted in this term.
#[derive(Debug, Clone, Copy, Default)]
struct Granted {
    /// The boot that the grants went to.
    boot: Option<BootId>,
    /// The newest grant.
    number: u64,
    /// When it was given.
    at_ms: Option<u64>,
    /// When all that were given are over.
    over_ms: u64,
    /// The newest grant that the node is known to have received, and when that was given.
    received: Option<(u64, u64)>,
    /// When the first grant was given since the node last showed a newer one than before. For as long as a
    /// lease it may get others; then it may have lost the way back from the leader, and would keep the others
    /// waiting for a lease that it does not know of.
    unquoted_since_ms: Option<u64>,
    /// The newest grant that it has shown.
    quoted: u64,
    /// Its VMs are being given to other nodes.
    verdict: bool,
    /// When it asked last and had to wait for the leases of an earlier boot.
    waits_ms: Option<u64>,
}

impl Grantor {
    /// The grants of a leader that has just applied the first entry of its term.
    pub fn new(term: u64, terms: LeaseTerms, now_ms: u64) -> Self {
        let (nodes, seen) = (BTreeMap::new(), BTreeMap::new());
        Self { term, usual: terms, terms, began_ms: now_ms, nodes, seen, disarmed: None }
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// What the log says now of leases and of who obeys them. To be told before anything is granted or
    /// anybody found lost.
    pub fn note_holders(&mut self, now_ms: u64, table: &LeaseTable) {
        self.terms = self.usual.with(table.terms);
        let known = |since: u64| self.disarmed.filter(|(before, _)| *before == since);
        self.disarmed = table.disarmed.map(|it| known(it.since).unwrap_or((it.since, now_ms)));
        self.seen.retain(|node, _| table.holders.contains_key(node));
        for (node, holder) in &table.holders {
            let before = self.seen.get(node);
            if before.is_some_and(|before| before.holder == *holder) {
                continue;
            }
            // Another boot of the same time of enforcement has given itself nothing.
            let same = before.filter(|before| before.holder.epoch == holder.epoch);
            let enforces_ms = same.map_or(now_ms, |before| before.enforces_ms);
            let held = before.filter(|before| before.holder.hold == holder.hold);
            let hold_ms = held.map_or(now_ms, |before| before.hold_ms);
            self.seen.insert(node.clone(), SeenHolder { holder: holder.clone(), enforces_ms, hold_ms });
        }
    }

    /// Renews a node's lease. A quorum has confirmed, after the renewal arrived, that this node leads.
    ///
    /// # Errors
    /// Why the node gets none.
    pub fn renew(
        &mut self,
        now_ms: u64,
        table: &LeaseTable,
        (node, raft_id): (&NodeName, RaftId),
        (renewal, index): (&LeaseRenewal, u64),
    ) -> Result<(GrantId, u64), LeaseDenial> {
        let boot = renewal.boot_id;
        let any_boot = mutant::lives("lease-boot-ignored");
        let holder = match table.may_hold(node, raft_id, boot) {
            Some(holder) => Some(holder),
            None if any_boot && table.holder(node).is_some_and(|holder| !holder.is_lost) => None,
            None => return Err(LeaseDenial::NotEnforced),
        };
        let over_ms = self.over_ms(node);
        let mut granted = self.nodes.get(node).copied().unwrap_or_default();
        if granted.verdict && !mutant::lives("lost-node-granted-again") {
            return Err(LeaseDenial::Lost);
        }
        // A quote is of this boot, whoever granted it. If the log said so already then, that leader has
        // waited for the boot before.
        let waited = |holder: &LeaseHolder| renewal.quote.is_some_and(|quote| quote.index >= holder.since);
        let known = match granted.boot {
            Some(same) => same == boot,
            None => holder.is_none_or(|holder| holder.is_first || waited(holder)),
        };
        if !known && now_ms < over_ms && !any_boot {
            granted.waits_ms = Some(now_ms);
            self.nodes.insert(node.clone(), granted);
            return Err(LeaseDenial::EarlierBoot { wait_ms: over_ms - now_ms });
        }
        if !known {
            granted = Granted::default();
        }
        let quoted = renewal.quote.filter(|quote| quote.term == self.term).map(|quote| quote.number);
        if quoted.is_some_and(|quoted| quoted > granted.quoted && quoted <= granted.number) {
            granted.quoted = quoted.unwrap_or(granted.quoted);
            granted.unquoted_since_ms = None;
        }
        if quoted == Some(granted.number) {
            granted.received = granted.at_ms.map(|at_ms| (granted.number, at_ms));
        }
        // Long after all that was granted is over it may begin anew; by then it was found to be lost, if
        // anybody waits for it. While one waits for a hold, others keep nobody waiting.
        let is_over = now_ms >= granted.over_ms.saturating_add(BEGIN_ANEW_MS);
        let since_ms = granted.unquoted_since_ms.unwrap_or(now_ms);
        let is_silent = now_ms.saturating_sub(since_ms) >= self.terms.lease_ms;
        if is_silent && !is_over && !mutant::lives("lease-quote-ignored") {
            self.nodes.insert(node.clone(), granted);
            return Err(LeaseDenial::NotReceived);
        }
        granted.boot = Some(boot);
        granted.number += 1;
        granted.at_ms = Some(now_ms);
        granted.waits_ms = None;
        granted.over_ms = granted.over_ms.max(now_ms.saturating_add(self.wait_after_ms(self.terms.lease_ms)));
        granted.unquoted_since_ms = if is_silent { Some(now_ms) } else { Some(since_ms) };
        self.nodes.insert(node.clone(), granted);
        Ok((GrantId { term: self.term, number: granted.number, index }, self.terms.lease_ms))
    }

    fn wait_after_ms(&self, lease_ms: u64) -> u64 {
        match mutant::lives("lost-after-the-lease-alone") {
            true => lease_ms,
            false => self.terms.wait_after_ms(lease_ms),
        }
    }

    /// When all leases of a node are certainly over, those of earlier leaders included, and those that it
    /// gave itself or announced.
    pub fn over_ms(&self, node: &NodeName) -> u64 {
        let seen = self.seen.get(node);
        let own = mutant::lives("own-lease-not-waited-out");
        let enforces_ms = seen.filter(|_| !own).map_or(0, |seen| seen.enforces_ms);
        let began_ms = if mutant::lives("wait-skipped-after-election") { 0 } else { self.began_ms };
        let hold = seen.filter(|_| !mutant::lives("hold-not-waited-out"));
        let hold = hold.and_then(|seen| seen.holder.hold.map(|hold| (seen.hold_ms, hold.length_ms)));
        let (hold_ms, length_ms) = hold.unwrap_or((0, 0));
        let usual_ms = enforces_ms.max(began_ms).saturating_add(self.wait_after_ms(self.terms.lease_ms));
        let held_ms = hold_ms.saturating_add(self.wait_after_ms(length_ms));
        let granted_ms = self.nodes.get(node).map_or(0, |granted| granted.over_ms);
        granted_ms.max(usual_ms).max(if length_ms == 0 { 0 } else { held_ms })
    }

    /// How a node stands that obeys leases.
    pub fn standing(&self, now_ms: u64, node: &NodeName) -> LeaseStanding {
        let over_ms = self.over_ms(node);
        let granted = self.nodes.get(node).and_then(|granted| granted.at_ms).unwrap_or(0);
        let seen = self.seen.get(node).map_or(0, |seen| seen.enforces_ms);
        let at_ms = granted.max(self.began_ms).max(seen);
        if now_ms >= over_ms {
            LeaseStanding::Lost
        } else if now_ms.saturating_sub(at_ms) <= self.terms.lease_ms * 2 / 3 {
            // It counts on a hold while the cluster is disarmed.
            let seen = self.seen.get(node).filter(|_| self.disarmed.is_some());
            let held = |seen: &SeenHolder| Some(seen.hold_ms.saturating_add(seen.holder.hold?.length_ms));
            let hold = seen.and_then(held);
            let until_ms = at_ms.saturating_add(self.terms.lease_ms).max(hold.unwrap_or(0));
            LeaseStanding::Holds { left_ms: until_ms.saturating_sub(now_ms) }
        } else {
            LeaseStanding::Suspect { lost_in_ms: over_ms - now_ms }
        }
    }

    /// Whether a node is known to have a lease that holds for a while: it can start what is given to it.
    pub fn holds(&self, now_ms: u64, node: &NodeName) -> bool {
        let granted = self.nodes.get(node).filter(|granted| !granted.verdict);
        let received = granted.and_then(|granted| granted.received);
        received.is_some_and(|(_, at_ms)| now_ms.saturating_sub(at_ms) < self.terms.lease_ms)
    }

    /// The entry, by its index, that disarmed the cluster for a time that is over: by the clock on the wall,
    /// or since this leader saw it, whichever comes first.
    pub fn disarm_that_is_over(&self, now_ms: u64, wall_ms: u64, table: &LeaseTable) -> Option<u64> {
        let (disarmed, (_, seen_ms)) = (table.disarmed?, self.disarmed?);
        let is_over = wall_ms >= disarmed.until_unix_ms || now_ms.saturating_sub(seen_ms) >= disarmed.for_ms;
        is_over.then_some(disarmed.since)
    }

    /// A machine that has booted again asks for a lease until those of the boot before are over, and then
    /// runs its VMs itself: it is not found lost in the moment in which it would be granted one.
    fn patience_ms(&self, now_ms: u64, granted: Option<&Granted>) -> u64 {
        let period_ms = self.terms.renewal_ms().saturating_add(self.terms.margin_ms);
        let asked = granted.and_then(|granted| granted.waits_ms);
        let is_there = asked.is_some_and(|asked_ms| now_ms.saturating_sub(asked_ms) <= period_ms);
        if is_there { period_ms } else { 0 }
    }

    /// The leader proposed that a node's VMs go to other nodes: nothing more is granted to it before that is
    /// applied.
    pub fn note_verdict(&mut self, node: &NodeName) {
        self.nodes.entry(node.clone()).or_default().verdict = true;
    }

    /// That was applied, or never proposed. By the log the node is lost now, and gets nothing until it has
    /// said anew that it obeys leases.
    pub fn note_verdict_ended(&mut self, node: &NodeName) {
        if let Some(granted) = self.nodes.get_mut(node) {
            granted.verdict = false;
            granted.unquoted_since_ms = None;
        }
    }

    /// The nodes that are lost and whose VMs could go to other nodes now, each with those. One is left out
    /// while a proposal about it is under way; those that are lost by the log already, whose VMs found no
    /// room then, are looked at only `again`. What fits on no other node goes to `blind` ones, which do not
    /// see their units and start nothing before they do.
    pub fn verdicts(
        &self,
        now_ms: u64,
        (state, again): (&ClusterState, bool),
        blind: &BTreeSet<NodeName>,
    ) -> Vec<(NodeName, Vec<NodeName>)> {
        if self.disarmed.is_some() {
            return Vec::new();
        }
        let waits = |node: &&NodeName| {
            let granted = self.nodes.get(*node);
            let verdict = granted.is_some_and(|granted| granted.verdict);
            !verdict && now_ms >= self.over_ms(node).saturating_add(self.patience_ms(now_ms, granted))
        };
        let is_due = |node: &&NodeName| state.leases.holder(node).is_some_and(|it| again || !it.is_lost);
        let lost = state.leases.holders.keys().filter(is_due);
        let of = |node: &NodeName| {
            let others = state.nodes.members().map(|member| member.node.name);
            let others = others.filter(|other| *other != node && self.holds(now_ms, other));
            let (blind, mut eligible): (Vec<NodeName>, Vec<NodeName>) =
                others.cloned().partition(|other| blind.contains(other));
            if !state.would_move(node, &eligible) {
                eligible.extend(blind);
            }
            state.would_move(node, &eligible).then(|| (node.clone(), eligible))
        };
        lost.filter(waits).filter_map(of).collect()
    }
}
