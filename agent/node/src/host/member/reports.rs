//! What nodes report of their VMs: this node's own report on its way to the leader, and the collection that a
//! leader keeps. Nothing of it is in the log.

use std::collections::BTreeMap;

use blixard_model::api::RetryKind;
use blixard_model::backoff::ANNOUNCE;
use blixard_model::report::NodeReport;
use blixard_model::wire::AgedReport;
use blixard_model::{EndpointId, NodeName};

use crate::host::trouble::{Tries, Trouble};

/// The leader is told at every change, and at least this often, in milliseconds.
const PERIOD_MS: u64 = 1_000;
/// How long the leader may take to note it, in milliseconds.
pub(super) const ANSWER_MS: u64 = 2_000;

/// A report, and when its node looked: on this node's clock.
#[derive(Debug, Clone)]
struct Seen {
    at_ms: u64,
    report: NodeReport,
}

impl Seen {
    fn aged(&self, now_ms: u64) -> AgedReport {
        AgedReport { report: self.report.clone(), age_ms: now_ms.saturating_sub(self.at_ms) }
    }
}

/// The own report and those of the others.
#[derive(Debug)]
pub(super) struct Reports {
    own: Seen,
    noted: BTreeMap<NodeName, Seen>,
    /// Changed since it was last sent.
    changed: bool,
    next_ms: u64,
    /// The leader that is told.
    leader: Option<EndpointId>,
    tries: Tries,
    under_way: bool,
}

impl Reports {
    pub(super) fn new(name: NodeName, seed: u64, now_ms: u64) -> Self {
        let problem = Some("systemd has not been asked yet".to_owned());
        let report = NodeReport { node: name, vms: Vec::new(), problem };
        Self {
            own: Seen { at_ms: now_ms, report },
            noted: BTreeMap::new(),
            changed: true,
            next_ms: now_ms,
            leader: None,
            tries: Tries::new(ANNOUNCE, seed),
            under_way: false,
        }
    }

    /// What this node's units looked like at this time.
    pub(super) fn set_own(&mut self, at_ms: u64, report: NodeReport) {
        // Only what changed is worth a message of its own; the age is kept true in any case.
        self.changed |= self.own.report != report;
        self.own = Seen { at_ms, report };
    }

    /// Another node's report, and how old it was when it arrived.
    pub(super) fn note(&mut self, now_ms: u64, aged: AgedReport) {
        let at_ms = now_ms.saturating_sub(aged.age_ms);
        self.noted.insert(aged.report.node.clone(), Seen { at_ms, report: aged.report });
    }

    /// Forgets the reports of nodes that are no members any more.
    pub(super) fn retain(&mut self, is_member: impl Fn(&NodeName) -> bool) {
        self.noted.retain(|name, _| is_member(name));
    }

    /// This node's own report.
    pub(super) fn own(&self, now_ms: u64) -> AgedReport {
        self.own.aged(now_ms)
    }

    /// How many VMs the own report holds.
    pub(super) fn own_len(&self) -> usize {
        self.own.report.vms.len()
    }

    /// All reports that are known here, this node's own among them.
    pub(super) fn all(&self, now_ms: u64) -> Vec<AgedReport> {
        let others = self.noted.values().filter(|seen| seen.report.node != self.own.report.node);
        others.chain([&self.own]).map(|seen| seen.aged(now_ms)).collect()
    }

    /// Whom to send the own report to now, if it is due.
    pub(super) fn next(&mut self, now_ms: u64, leader: Option<EndpointId>) -> Option<EndpointId> {
        if self.leader != leader {
            self.leader = leader;
            self.tries.reset();
            self.changed = true;
        }
        let is_due = self.changed || now_ms >= self.next_ms;
        if self.under_way || !is_due {
            return None;
        }
        let to = leader.filter(|_| self.tries.is_due(now_ms));
        if to.is_some() {
            self.changed = false;
            self.under_way = true;
        }
        self.next_ms = now_ms.saturating_add(PERIOD_MS);
        to
    }

    /// When to look again.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let waits = self.leader.is_some() && !self.under_way;
        waits.then(|| if self.changed { self.tries.at_ms() } else { self.next_ms.max(self.tries.at_ms()) })
    }

    /// The leader noted it, or why it did not. What another one than the present leader says is old.
    pub(super) fn answered(&mut self, by: EndpointId, now_ms: u64, result: Result<(), String>) {
        self.under_way = false;
        if self.leader != Some(by) {
            return;
        }
        match result {
            Ok(()) => self.tries.reset(),
            Err(why) => {
                self.tries.failed(now_ms, why);
                self.changed = true;
            }
        }
    }

    pub(super) fn trouble(&self, now_ms: u64) -> Option<Trouble> {
        self.tries.trouble(RetryKind::Report, self.leader, now_ms)
    }
}
