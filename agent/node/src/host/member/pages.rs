//! Reports that are too long for one frame: how they are cut into pages, and put together again.
//!
//! A report counts once all of its pages are here, and then replaces the one before whole. One that lacks a
//! page is dropped.

use std::collections::BTreeMap;
use std::ops::Range;

use blixard_core::state::VMS_MAX;
use blixard_model::report::{NodeReport, VmReport};
use blixard_model::wire::{AgedReport, REPORT_PAGES_MAX, ReportPage, ReportsFrom, ReportsPage};

use super::seen::SeenReport;

/// Most bytes of JSON that VMs fill in one page: half a frame, which leaves room for all that is around them.
const PAGE_LEN_MAX: usize = blixard_model::wire::FRAME_LEN_MAX / 2;
/// What a report adds to its VMs in a page, in bytes, at most: names, ages and what went wrong.
const REPORT_LEN: usize = 4 << 10;
/// Most pages that a leader is asked for at once.
const COLLECTED_MAX: u32 = 256;

fn encoded_len(vm: &VmReport) -> usize {
    // Our own types always encode.
    serde_json::to_vec(vm).map_or(PAGE_LEN_MAX, |text| text.len() + 1)
}

/// How many of these VMs fit into so many bytes.
fn fitting(vms: &[VmReport], mut room: usize) -> usize {
    let fits = |vm: &&VmReport| {
        let len = encoded_len(vm);
        let fits = len <= room;
        room = room.saturating_sub(len);
        fits
    };
    vms.iter().take_while(fits).count()
}

/// The own report on its way to the leader, page after page.
#[derive(Debug)]
pub(super) struct Sending {
    seen: SeenReport,
    report: u64,
    cuts: Vec<Range<usize>>,
    /// The page that is sent now.
    at: usize,
}

impl Sending {
    /// All of this report, under a number that this node gives to no other.
    pub(super) fn new(seen: SeenReport, report: u64) -> Self {
        let (vms, mut cuts, mut begin) = (&seen.report.vms, Vec::new(), 0);
        while begin < vms.len() || cuts.is_empty() {
            let end = begin + fitting(&vms[begin..], PAGE_LEN_MAX).max(1).min(vms.len() - begin);
            cuts.push(begin..end);
            begin = end;
        }
        Self { seen, report, cuts, at: 0 }
    }

    /// The page that is to be sent now.
    pub(super) fn page(&self, now_ms: u64) -> (AgedReport, Option<ReportPage>) {
        let NodeReport { vms, .. } = &self.seen.report;
        let vms = self.cuts.get(self.at).map_or_else(Vec::new, |cut| vms[cut.clone()].to_vec());
        let report = self.seen.report.with_vms(vms);
        let aged = AgedReport { report, age_ms: now_ms.saturating_sub(self.seen.at_ms) };
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let page = ReportPage { report: self.report, number: number(self.at), of: number(self.cuts.len()) };
        (aged, (page.of > 1).then_some(page))
    }

    /// The page was noted. False: it was the last one.
    pub(super) fn go_on(&mut self) -> bool {
        self.at += 1;
        self.at < self.cuts.len()
    }
}

/// A report of which the first pages are here.
#[derive(Debug)]
pub(super) struct Arriving {
    seen: SeenReport,
    report: u64,
    next: u32,
    of: u32,
}

impl Arriving {
    /// The first page of a report that has more.
    pub(super) fn begin(seen: SeenReport, page: ReportPage) -> Result<Self, &'static str> {
        match page {
            ReportPage { of, .. } if !(2..=REPORT_PAGES_MAX).contains(&of) => {
                Err("a report does not have so many pages")
            }
            ReportPage { number: 0, report, of } => Ok(Self { seen, report, next: 1, of }),
            ReportPage { .. } => Err("the first pages of this report are not here"),
        }
    }

    /// The page after those that are here. Gives them back if it is another, or if there are more VMs than a
    /// cluster may have: what is here of a report is no larger than the report of all of them.
    pub(super) fn add(mut self, seen: SeenReport, page: ReportPage) -> Result<Self, SeenReport> {
        if self.seen.report.vms.len() + seen.report.vms.len() > VMS_MAX {
            return Err(seen);
        }
        if page != (ReportPage { report: self.report, number: self.next, of: self.of }) {
            return Err(seen);
        }
        self.seen.report.vms.extend(seen.report.vms);
        self.next += 1;
        Ok(self)
    }

    /// The whole report, once all of it is here.
    pub(super) fn whole(self) -> Result<SeenReport, Self> {
        if self.next == self.of { Ok(self.seen) } else { Err(self) }
    }
}

/// The page of all reports that begins there.
pub(super) fn page_of_all(
    all: &BTreeMap<&blixard_model::NodeName, &SeenReport>,
    from: &ReportsFrom,
    now_ms: u64,
) -> ReportsPage {
    let mut page = ReportsPage::default();
    let mut room = PAGE_LEN_MAX;
    let wanted = all.iter().filter(|(name, _)| from.node.as_ref().is_none_or(|node| node <= **name));
    for (name, seen) in wanted {
        let goes_on = from.node.as_ref() == Some(*name) && from.report == seen.version;
        let begin = if goes_on { (from.vm as usize).min(seen.report.vms.len()) } else { 0 };
        let vms = &seen.report.vms[begin..];
        room = room.saturating_sub(REPORT_LEN);
        let mut count = fitting(vms, room);
        if page.reports.is_empty() {
            // Each page brings something.
            count = count.max(1).min(vms.len());
            page.goes_on = begin > 0;
        } else if room == 0 {
            page.next = Some(ReportsFrom { node: Some((*name).clone()), report: seen.version, vm: 0 });
            break;
        }
        room = room.saturating_sub(vms[..count].iter().map(encoded_len).sum());
        let report = seen.report.with_vms(vms[..count].to_vec());
        page.reports.push(AgedReport { report, age_ms: now_ms.saturating_sub(seen.at_ms) });
        if count < vms.len() {
            let vm = u32::try_from(begin + count).unwrap_or(u32::MAX);
            page.next = Some(ReportsFrom { node: Some((*name).clone()), report: seen.version, vm });
            break;
        }
    }
    page
}

/// The reports that a leader has told so far.
#[derive(Debug)]
pub(super) struct Collected {
    whole: Vec<AgedReport>,
    /// The last one, of which there is more to come.
    open: Option<AgedReport>,
    pages: u32,
    /// When it has to be done.
    pub(super) until_ms: u64,
}

impl Collected {
    pub(super) fn new(until_ms: u64) -> Self {
        Self { whole: Vec::new(), open: None, pages: 0, until_ms }
    }

    /// A page came. What to ask for next, if there is more.
    pub(super) fn add(&mut self, page: ReportsPage) -> Option<ReportsFrom> {
        let ReportsPage { reports, next, goes_on } = page;
        let mut reports = reports.into_iter();
        let open = self.open.take();
        if goes_on {
            let (mut open, more) = (open?, reports.next()?);
            if open.report.node != more.report.node {
                return None;
            }
            open.report.vms.extend(more.report.vms);
            open.age_ms = open.age_ms.max(more.age_ms);
            self.whole.push(open);
        }
        self.whole.extend(reports);
        if next.as_ref().is_some_and(|next| next.vm > 0) {
            self.open = self.whole.pop();
        }
        self.pages += 1;
        next.filter(|_| self.pages < COLLECTED_MAX)
    }

    /// Those that are here whole.
    pub(super) fn whole(self) -> Vec<AgedReport> {
        self.whole
    }
}
