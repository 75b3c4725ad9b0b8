//! What nodes report of their VMs: this node's own report on its way to the leader, and the collection that a
//! leader keeps. Nothing of it is in the log.

use std::collections::{BTreeMap, BTreeSet};

use blixard_core::report::{REPORT_FRESH_MS, is_fresh};
use blixard_model::api::RetryKind;
use blixard_model::backoff::ANNOUNCE;
use blixard_model::fences::Fences;
use blixard_model::report::NodeReport;
use blixard_model::wire::{AgedReport, ReportPage, ReportsFrom, ReportsPage};
use blixard_model::{EndpointId, NodeName};

use super::pages::{Arriving, Sending, page_of_all};
use super::seen::SeenReport;
use crate::host::trouble::{Tries, Trouble};

/// The leader is told at every change, and at least this often, in milliseconds.
const PERIOD_MS: u64 = 1_000;
/// How long the leader may take to note it, in milliseconds.
pub(super) const ANSWER_MS: u64 = 2_000;

/// The own report and those of the others.
#[derive(Debug)]
pub(super) struct Reports {
    own: SeenReport,
    noted: BTreeMap<NodeName, SeenReport>,
    /// Those of which more pages have to come.
    arriving: BTreeMap<NodeName, Arriving>,
    /// The last version given to a report.
    version: u64,
    /// Changed since it was last sent.
    changed: bool,
    next_ms: u64,
    /// The leader that is told.
    leader: Option<EndpointId>,
    tries: Tries,
    under_way: bool,
    /// What the leader is being told.
    sending: Option<Sending>,
    /// The number of the last report that was sent, from a random one on.
    sent: u64,
}

impl Reports {
    pub(super) fn new(name: NodeName, seed: u64, now_ms: u64) -> Self {
        let problem = Some("systemd has not been asked yet".to_owned());
        let report = NodeReport { node: name, vms: Vec::new(), problem, fences: None };
        Self {
            own: SeenReport { at_ms: now_ms, came_ms: now_ms, report, version: 0 },
            noted: BTreeMap::new(),
            arriving: BTreeMap::new(),
            version: 0,
            changed: true,
            next_ms: now_ms,
            leader: None,
            tries: Tries::new(ANNOUNCE, seed),
            under_way: false,
            sending: None,
            sent: seed,
        }
    }

    /// What this node's units looked like at this time.
    pub(super) fn set_own(&mut self, at_ms: u64, mut report: NodeReport) {
        report.cut_reasons();
        // Only what changed is worth a message of its own; the age is kept true in any case.
        if self.own.report != report {
            self.changed = true;
            self.version += 1;
        }
        self.own = SeenReport { at_ms, came_ms: at_ms, report, version: self.version };
    }

    /// Another node's report or a page of it, and how old it was when it arrived.
    ///
    /// # Errors
    /// The pages before this one are not here, or there are too many.
    pub(super) fn note(
        &mut self,
        now_ms: u64,
        mut aged: AgedReport,
        page: Option<ReportPage>,
    ) -> Result<(), &'static str> {
        // A page of the collection has to hold it, whatever its node wrote.
        aged.report.cut_reasons();
        let (at_ms, node) = (now_ms.saturating_sub(aged.age_ms), aged.report.node.clone());
        self.version += 1;
        let mut seen = SeenReport { at_ms, came_ms: now_ms, report: aged.report, version: self.version };
        let before = self.arriving.remove(&node);
        if let Some(page) = page {
            let added = match before {
                Some(before) => before.add(seen, page),
                None => Err(seen),
            };
            let arriving = added.or_else(|seen| Arriving::begin(seen, page))?;
            match arriving.whole() {
                Ok(whole) => seen = whole,
                Err(arriving) => {
                    self.arriving.insert(node, arriving);
                    return Ok(());
                }
            }
        }
        self.noted.insert(node, seen);
        Ok(())
    }

    /// Forgets the reports of nodes that are no members any more.
    pub(super) fn retain(&mut self, is_member: impl Fn(&NodeName) -> bool) {
        self.noted.retain(|name, _| is_member(name));
        self.arriving.retain(|name, _| is_member(name));
    }

    /// This node's own report.
    pub(super) fn own(&self, now_ms: u64) -> AgedReport {
        self.own.aged(now_ms)
    }

    /// What this node's units looked like the last time.
    pub(super) fn own_report(&self) -> &NodeReport {
        &self.own.report
    }

    /// All reports that are known here, this node's own among them.
    pub(super) fn all(&self, now_ms: u64) -> Vec<AgedReport> {
        let others = self.noted.values().filter(|seen| seen.report.node != self.own.report.node);
        others.chain([&self.own]).map(|seen| seen.aged(now_ms)).collect()
    }

    /// The nodes that report and do not see their units: systemd cannot be asked there, or has not answered
    /// for a while. About one that does not report this says nothing.
    pub(super) fn blind(&self, now_ms: u64) -> BTreeSet<NodeName> {
        let reports = |seen: &&SeenReport| now_ms.saturating_sub(seen.came_ms) <= REPORT_FRESH_MS;
        let seen = self.noted.values().filter(reports).chain([&self.own]);
        let blind = seen.filter(|seen| !is_fresh(&seen.aged(now_ms)));
        blind.map(|seen| seen.report.node.clone()).collect()
    }

    /// What ends the VMs of each node, as far as it lately reported that.
    pub(super) fn fences(&self, now_ms: u64) -> BTreeMap<NodeName, Fences> {
        let fresh = |seen: &&SeenReport| now_ms.saturating_sub(seen.at_ms) <= REPORT_FRESH_MS;
        let seen = self.noted.values().filter(fresh).chain([&self.own]);
        seen.filter_map(|seen| Some((seen.report.node.clone(), seen.report.fences.as_deref()?.clone())))
            .collect()
    }

    /// The same of this node.
    pub(super) fn own_fences(&self) -> Option<(NodeName, Fences)> {
        Some((self.own.report.node.clone(), self.own.report.fences.as_deref()?.clone()))
    }

    /// All of them, or the page of them that begins there.
    pub(super) fn page(&self, now_ms: u64, from: Option<&ReportsFrom>) -> ReportsPage {
        let Some(from) = from else {
            return ReportsPage { reports: self.all(now_ms), ..ReportsPage::default() };
        };
        let mut all: BTreeMap<&NodeName, &SeenReport> = self.noted.iter().collect();
        all.insert(&self.own.report.node, &self.own);
        page_of_all(&all, from, now_ms)
    }

    /// What [`Reports::next`] said to send.
    pub(super) fn to_send(&self, now_ms: u64) -> Option<(AgedReport, Option<ReportPage>)> {
        self.sending.as_ref().map(|sending| sending.page(now_ms))
    }

    /// Whom to send the own report to now, or the next page of it, if it is due.
    pub(super) fn next(&mut self, now_ms: u64, leader: Option<EndpointId>) -> Option<EndpointId> {
        if self.leader != leader {
            self.leader = leader;
            self.tries.reset();
            self.changed = true;
            self.sending = None;
        }
        let is_due = self.sending.is_some() || self.changed || now_ms >= self.next_ms;
        if self.under_way || !is_due {
            return None;
        }
        let to = leader.filter(|_| self.tries.is_due(now_ms));
        if to.is_some() {
            self.under_way = true;
            if self.sending.is_none() {
                self.changed = false;
                self.sent = self.sent.wrapping_add(1);
                self.sending = Some(Sending::new(self.own.clone(), self.sent));
            }
        }
        self.next_ms = now_ms.saturating_add(PERIOD_MS);
        to
    }

    /// When to look again.
    pub(super) fn due_ms(&self) -> Option<u64> {
        let waits = self.leader.is_some() && !self.under_way;
        let goes_on = self.changed || self.sending.is_some();
        waits.then(|| if goes_on { self.tries.at_ms() } else { self.next_ms.max(self.tries.at_ms()) })
    }

    /// The leader noted it, or why it did not. What another one than the present leader says is old.
    pub(super) fn answered(&mut self, by: EndpointId, now_ms: u64, result: Result<(), String>) {
        self.under_way = false;
        if self.leader != Some(by) {
            return;
        }
        match result {
            Ok(()) if self.sending.as_mut().is_some_and(Sending::go_on) => {}
            Ok(()) => {
                self.sending = None;
                self.tries.reset();
            }
            Err(why) => {
                // Again from the first page on.
                self.sending = None;
                self.tries.failed(now_ms, why);
                self.changed = true;
            }
        }
    }

    pub(super) fn trouble(&self, now_ms: u64) -> Option<Trouble> {
        self.tries.trouble(RetryKind::Report, self.leader, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use blixard_core::state::VMS_MAX;
    use blixard_model::report::REASON_LEN_MAX;
    use blixard_model::report::{ObservedState, VmReport};
    use blixard_model::wire::FRAME_LEN_MAX;

    use super::super::pages::Collected;
    use super::*;

    const VMS: usize = 2_300;

    fn node(n: &str) -> NodeName {
        n.parse().expect("a name")
    }

    fn failing(count: usize, why: &str) -> NodeReport {
        let vm = |n: usize| VmReport {
            name: format!("vm{n:04}").parse().expect("a name"),
            state: ObservedState::Failed,
            main_pid: None,
            revision: 0,
            reason: Some(format!("{why:\"<400}")),
            last_end: None,
        };
        NodeReport { node: node("n1"), vms: (0..count).map(vm).collect(), problem: None, fences: None }
    }

    fn short(sent: &impl serde::Serialize) {
        let len = serde_json::to_vec(sent).expect("JSON").len();
        assert!(len <= FRAME_LEN_MAX, "{len}");
    }

    /// Sends what is due until nothing more is; the pages for which `lost` holds are not noted.
    fn send(from: &mut Reports, to: &mut Reports, now_ms: u64, lost: impl Fn(u32) -> bool) -> usize {
        let leader = EndpointId::from_bytes([2; 32]);
        let mut pages = 0;
        while from.next(now_ms, Some(leader)).is_some() {
            let (aged, page) = from.to_send(now_ms).expect("a page");
            short(&(&aged, page));
            pages += 1;
            let noted = match page {
                Some(page) if lost(page.number) => Err("lost".to_owned()),
                page => to.note(now_ms, aged, page).map_err(str::to_owned),
            };
            from.answered(leader, now_ms, noted);
        }
        pages
    }

    /// What the others are told, page after page.
    fn collect(leader: &mut Reports, mut between: impl FnMut(&mut Reports)) -> Vec<AgedReport> {
        let (mut collected, mut next) = (Collected::new(0), Some(ReportsFrom::default()));
        while let Some(from) = next {
            let page = leader.page(100, Some(&from));
            short(&page);
            next = collected.add(page);
            between(leader);
        }
        collected.whole()
    }

    #[test]
    fn a_report_that_is_longer_than_a_frame_is_sent_in_pages_and_counts_once_it_is_whole() {
        let (mut own, mut leader) = (Reports::new(node("n1"), 1, 0), Reports::new(node("n2"), 2, 0));
        own.set_own(0, failing(3, "short"));
        assert_eq!(send(&mut own, &mut leader, 0, |_| false), 1);
        own.set_own(10, failing(VMS, "first"));
        assert!(send(&mut own, &mut leader, 10, |_| false) >= 3);
        let noted = |leader: &Reports| leader.noted[&node("n1")].report.clone();
        assert_eq!(noted(&leader), failing(VMS, "first"));
        own.set_own(20, failing(VMS, "second"));
        assert_eq!(send(&mut own, &mut leader, 20, |page| page == 1), 2, "it pauses");
        assert_eq!(noted(&leader), failing(VMS, "first"), "no mix");
        own.set_own(90_000, failing(VMS, "third"));
        send(&mut own, &mut leader, 90_000, |_| false);
        assert_eq!(noted(&leader), failing(VMS, "third"), "from the first page on");
        assert!(leader.arriving.is_empty());
    }

    #[test]
    fn a_reason_of_another_node_is_kept_no_longer_than_one_of_this() {
        let mut leader = Reports::new(node("n2"), 2, 0);
        let mut report = failing(1, "");
        let long = || Some("a".repeat(FRAME_LEN_MAX / 3));
        (report.problem, report.vms[0].reason) = (long(), long());
        leader.note(0, AgedReport { report, age_ms: 0 }, None).expect("noted");
        let kept = &leader.noted[&node("n1")].report;
        let reasons = [&kept.problem, &kept.vms[0].reason];
        let lens = reasons.map(|reason| reason.as_ref().map(|text| (text.len(), text.capacity())));
        assert_eq!(lens, [Some((REASON_LEN_MAX, REASON_LEN_MAX)); 2], "also in memory");
    }

    #[test]
    fn all_reports_are_told_in_pages_and_one_that_changes_meanwhile_begins_anew() {
        let mut leader = Reports::new(node("n2"), 2, 0);
        for n in ["n1", "n3", "n4"] {
            let report = NodeReport { node: node(n), ..failing(VMS, "first") };
            leader.note(0, AgedReport { report, age_ms: 0 }, None).expect("noted");
        }
        let told = collect(&mut leader, |_| {});
        let vms = |told: &[AgedReport]| -> Vec<(String, usize)> {
            told.iter().map(|aged| (aged.report.node.to_string(), aged.report.vms.len())).collect()
        };
        let all = [("n1", VMS), ("n2", 0), ("n3", VMS), ("n4", VMS)];
        assert_eq!(vms(&told), all.map(|(name, count)| (name.to_owned(), count)));
        let mut changes = [failing(VMS, "second")].into_iter();
        let told = collect(&mut leader, |leader| {
            if let Some(report) = changes.next() {
                leader.note(0, AgedReport { report, age_ms: 0 }, None).expect("noted");
            }
        });
        assert_eq!(vms(&told), all.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(told[0].report, failing(VMS, "second"), "no mix");
    }

    #[test]
    fn the_pages_of_a_report_hold_no_more_than_all_vms_of_a_cluster() {
        let mut leader = Reports::new(node("n2"), 2, 0);
        let page = failing(VMS_MAX / 4, "x");
        let mut note = |number: u32| {
            let aged = AgedReport { report: page.clone(), age_ms: 0 };
            leader.note(0, aged, Some(ReportPage { report: 1, number, of: 64 })).is_ok()
        };
        assert!((0..4).all(&mut note), "as many as there may be");
        assert!(!note(4));
        assert!(leader.arriving.is_empty(), "nothing of it is kept");
    }

    #[test]
    fn pages_that_do_not_follow_each_other_are_not_taken() {
        let mut leader = Reports::new(node("n2"), 2, 0);
        let mut note = |report: u64, number: u32, of: u32| {
            let aged = AgedReport { report: failing(1, "x"), age_ms: 0 };
            leader.note(0, aged, Some(ReportPage { report, number, of })).is_ok()
        };
        assert!(!note(1, 1, 2) && !note(1, 0, 1) && !note(1, 0, 65) && !note(1, 0, 0));
        assert!(note(1, 0, 3) && !note(2, 1, 3) && !note(1, 1, 3), "the first page is not here any more");
        assert!(note(1, 0, 3) && !note(1, 1, 4));
        assert!(note(1, 0, 2) && note(1, 0, 2) && note(1, 1, 2), "begun anew");
    }
}
