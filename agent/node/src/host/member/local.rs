//! What this machine wants of a member: its callers, its units.

use blixard_core::planner::prepare::{earlier_than, too_early};
use blixard_core::ports::ObservedUnit;
use blixard_core::reconciler::Action;
use blixard_model::wire::{AgedReport, PeerRequest, ReportsFrom, ReportsPage};
use blixard_model::{Ask, EndpointId, JoinTicket, MembersAsk, Outcome, Placement, StopNote, WriteAsk};

use super::pages::Collected;
use super::removals::RemovalNext;
use super::submissions::{Purpose, SUBMISSIONS_MAX};
use super::waiters::{READ_MS, ReadState};
use super::{MemberCall, MemberHost, Reader};
use crate::attempt::AttemptEnd;
use crate::host::effect::{Answer, Effect, HoldEnd, JoinRefusal};
use crate::host::input::{WaiterId, Want};
use crate::host::moment::Moment;
use crate::notice::Notice;
use crate::submission::SubmitError;

/// How long telling the cluster what became of a unit may take, in milliseconds.
const CONFIRM_MS: u64 = 10_000;
/// How long the leader may take to tell what it knows, in milliseconds.
const TELL_MS: u64 = 2_000;
/// After the members have decided that this node leaves it learns it within this time, in milliseconds, or is
/// cut off from them.
const LEARN_MS: u64 = 5_000;
/// How many of a VM's last console lines go into the reason why it ended.
const CONSOLE_LINES: u32 = 5;

impl MemberHost {
    pub(super) fn handle_wanted(&mut self, now: Moment, waiter: WaiterId, want: Want, patience_ms: u64) {
        let until_ms = now.boot_ms.saturating_add(patience_ms);
        match want {
            Want::Change(ask) => match self.too_early(&ask) {
                Some(why) => self.answer(waiter, Answer::Changed(Err(SubmitError::Unavailable(why)))),
                None => self.change(now, waiter, *ask, patience_ms),
            },
            Want::RemoveNode(removal) => {
                self.removals.begin(waiter, *removal, until_ms);
                self.read_until(now, waiter, until_ms);
            }
            Want::Read => self.read_until(now, waiter, until_ms),
            Want::Reports => match self.other_leader() {
                Some(to) => {
                    let collected = Collected::new(now.boot_ms.saturating_add(TELL_MS));
                    self.ask_for_reports(now, (waiter, to), collected, ReportsFrom::default());
                }
                None => self.answer_reports(now, waiter, Vec::new()),
            },
            Want::Progress => match self.other_leader() {
                Some(to) => self.ask_leader(now, to, MemberCall::Progress(waiter)),
                None => self.answer(waiter, Answer::Progress(self.progress_report(now))),
            },
            Want::HandOver => {
                let begun = self.replica.transfer_leadership();
                self.dirty = true;
                if begun {
                    self.waiters.add_hand_over(waiter, until_ms);
                } else {
                    self.answer(waiter, Answer::HandedOver(false));
                }
            }
            Want::Hold { for_ms } => self.hold(now, waiter, (for_ms, until_ms)),
            Want::StopHere(name) => self.stop_here(now, waiter, name),
            Want::Join { ticket, .. } => {
                let refusal = self.why_no_ticket(&ticket);
                self.answer(waiter, Answer::TicketTaken(Err(refusal)));
            }
        }
    }

    fn read_until(&mut self, now: Moment, waiter: WaiterId, until_ms: u64) {
        let limit_ms = until_ms.min(now.boot_ms.saturating_add(READ_MS));
        let led = self.replica.summary().leader.is_some();
        let state = if led { ReadState::Asked } else { ReadState::NoLeader };
        self.waiters.add_read(waiter, state, limit_ms);
        if led {
            self.begin_read(now, waiter);
        }
    }

    pub(super) fn begin_reads(&mut self, now: Moment) {
        for waiter in self.waiters.begin_reads() {
            self.begin_read(now, waiter);
        }
    }

    fn begin_read(&mut self, now: Moment, waiter: WaiterId) {
        if self.replica.read(Reader::Waiter(waiter)) {
            self.dirty = true;
        } else if self.waiters.end_read(waiter) {
            let why = "too many reads wait already".to_owned();
            self.readable(now, waiter, Err(SubmitError::Unavailable(why)));
        }
    }

    /// What an operator asks of the members of this node itself.
    fn is_own_removal(&self, ask: &Ask) -> bool {
        let own = self.replica.summary().raft_id;
        matches!(ask, Ask::Members(MembersAsk::Remove { raft_id, .. }) if *raft_id == own)
    }

    /// A read may be served now, or will not be: it is what somebody waits for, or a step of a removal.
    pub(super) fn readable(&mut self, now: Moment, waiter: WaiterId, read: Result<(), SubmitError>) {
        if !self.removals.has(waiter) {
            return self.answer(waiter, Answer::Readable(read));
        }
        if let Err(error) = read {
            self.removals.end(waiter);
            return self.answer(waiter, Answer::Changed(Err(error)));
        }
        let step = self.removals.looked_up(waiter, self.replica.state(), &self.own.node.name);
        self.go_on_removing(now, waiter, step);
    }

    /// A change that somebody waits for ended: it is all, or a step of a removal.
    pub(super) fn changed(&mut self, now: Moment, waiter: WaiterId, end: Result<Outcome, SubmitError>) {
        match end {
            Ok(outcome) if self.removals.has(waiter) => {
                let step = self.removals.changed(waiter, &outcome);
                self.go_on_removing(now, waiter, step);
            }
            end => {
                self.removals.end(waiter);
                self.answer(waiter, Answer::Changed(end));
            }
        }
    }

    fn go_on_removing(&mut self, now: Moment, waiter: WaiterId, step: Option<RemovalNext>) {
        match step {
            None => {}
            Some(RemovalNext::LookUp(until_ms)) => self.read_until(now, waiter, until_ms),
            Some(RemovalNext::Change(ask, until_ms)) => {
                self.change(now, waiter, ask, until_ms.saturating_sub(now.boot_ms));
            }
            Some(RemovalNext::End(outcome)) => {
                self.removals.end(waiter);
                self.answer(waiter, Answer::Changed(Ok(outcome)));
            }
        }
    }

    fn why_no_ticket(&self, ticket: &JoinTicket) -> JoinRefusal {
        let cluster_id = self.replica.state().cluster_id();
        if cluster_id == ticket.cluster_id {
            JoinRefusal::MemberAlready
        } else {
            JoinRefusal::InAnotherCluster { cluster_id }
        }
    }

    /// A leader of an older release might take it for the word of a liar.
    fn too_early(&self, ask: &Ask) -> Option<String> {
        too_early(self.replica.state(), ask).map(|why| why.to_string())
    }

    fn change(&mut self, now: Moment, waiter: WaiterId, ask: Ask, patience_ms: u64) {
        // Once this node is out nobody talks to it any more: that it is may be learned later than decided.
        let patience_ms = if self.is_own_removal(&ask) { patience_ms + LEARN_MS } else { patience_ms };
        if !self.submit(now, ask, patience_ms, Purpose::Waiter(waiter)) {
            let why = format!("{SUBMISSIONS_MAX} changes are on their way already: try again");
            self.removals.end(waiter);
            self.answer(waiter, Answer::Changed(Err(SubmitError::Unavailable(why))));
        }
    }

    /// Who leads, if it is another node that can be asked.
    fn other_leader(&self) -> Option<EndpointId> {
        let leader = self.replica.summary().leader.as_ref().map(|(_, id)| *id);
        leader.filter(|id| *id != self.own.node.endpoint_id && self.linked.contains(id))
    }

    fn ask_leader(&mut self, now: Moment, to: EndpointId, purpose: MemberCall) {
        let (_, effect) = self.calls.ask((purpose, to), PeerRequest::Progress, now.boot_ms, TELL_MS);
        self.out.push(effect);
    }

    fn ask_for_reports(
        &mut self,
        now: Moment,
        (waiter, to): (WaiterId, EndpointId),
        collected: Collected,
        from: ReportsFrom,
    ) {
        let patience_ms = collected.until_ms.saturating_sub(now.boot_ms);
        self.collected.insert(waiter, collected);
        let request = PeerRequest::Reports { from: Some(from) };
        let purpose = (MemberCall::Reports(waiter), to);
        let (_, effect) = self.calls.ask(purpose, request, now.boot_ms, patience_ms);
        self.out.push(effect);
    }

    /// The leader told a page of the reports; none when it did not. What is here whole by then is told on.
    pub(super) fn reports_told(
        &mut self,
        now: Moment,
        (waiter, to): (WaiterId, EndpointId),
        page: Option<ReportsPage>,
    ) {
        let Some(mut collected) = self.collected.remove(&waiter) else { return };
        match page.and_then(|page| collected.add(page)).filter(|_| now.boot_ms < collected.until_ms) {
            Some(next) => self.ask_for_reports(now, (waiter, to), collected, next),
            None => self.answer_reports(now, waiter, collected.whole()),
        }
    }

    /// What the leader told, and what this node knows itself of its own VMs in any case.
    fn answer_reports(&mut self, now: Moment, waiter: WaiterId, told: Vec<AgedReport>) {
        let mut reports = told;
        if reports.is_empty() {
            reports = self.reports.all(now.boot_ms);
        }
        let own = self.reports.own(now.boot_ms);
        reports.retain(|aged| aged.report.node != own.report.node);
        reports.push(own);
        self.answer(waiter, Answer::Reports(reports));
    }

    pub(super) fn handle_waiter_gave_up(&mut self, waiter: WaiterId) {
        self.waiters.give_up(waiter);
        self.removals.end(waiter);
        self.collected.remove(&waiter);
        self.replica.forget_reader(|reader| *reader == Reader::Waiter(waiter));
        self.give_up_submission(&Purpose::Waiter(waiter));
    }

    pub(super) fn handle_units(
        &mut self,
        now: Moment,
        look: u64,
        (listed, stopped): (Result<Vec<ObservedUnit>, String>, Vec<StopNote>),
    ) {
        let Some(asked_ms) = self.vms.note_answered(look) else { return };
        let known = (self.replica.state(), self.leases.file());
        let look = self.vms.listed((now, look), known, (listed, stopped));
        for (vm, how) in look.ended {
            self.out.push(Effect::Notice(Notice::VmEnded { vm: vm.clone(), how }));
            self.out.push(Effect::FetchConsole { vm, lines: CONSOLE_LINES });
        }
        for (vm, left_ms) in look.found {
            self.out.push(Effect::Notice(Notice::UnknownVm { vm, left_ms }));
        }
        let speaks_for_all = self.speaks_for_all(now);
        for (action, vm) in look.actions {
            match (action, vm) {
                (action @ (Action::ConfirmGone(_) | Action::ConfirmSpec(_)), Some(vm))
                    if vm.may_run_under_a_lease() && !speaks_for_all =>
                {
                    let why = "an earlier boot of this machine, or another one of its name, may still run it";
                    self.action_done(now, &action, Some(why.to_owned()));
                }
                (Action::ConfirmGone(name), Some(vm)) => {
                    let ask = WriteAsk::ConfirmGone {
                        name: name.clone(),
                        node: vm.placement.node,
                        generation: vm.placement.generation,
                    };
                    self.confirm(now, Action::ConfirmGone(name), ask);
                }
                (Action::ConfirmSpec(name), Some(vm)) => {
                    let order = vm.order_id();
                    let ask = WriteAsk::ConfirmSpec { name: name.clone(), node: vm.placement.node, order };
                    self.confirm(now, Action::ConfirmSpec(name), ask);
                }
                (Action::ConfirmStop(name, stop), Some(vm)) => {
                    let Placement { node, generation } = vm.placement;
                    let ask = WriteAsk::NoteStopped { name: name.clone(), node, generation, stop };
                    self.confirm(now, Action::ConfirmStop(name, stop), ask);
                }
                (action, vm) => {
                    let needs = vm.as_ref().is_some_and(|vm| vm.spec.fails_over());
                    let lease = needs.then(|| self.replica.state().cluster_id());
                    self.out.push(Effect::Act { action, vm: vm.map(Box::new), lease });
                }
            }
        }
        if !look.outdated.is_empty() {
            self.out.push(Effect::ForgetStops(look.outdated));
        }
        self.reports.set_own(asked_ms, look.report);
    }

    fn confirm(&mut self, now: Moment, action: Action, ask: WriteAsk) {
        if let Some(why) = earlier_than(self.replica.state(), ask.needs()) {
            return self.action_done(now, &action, Some(why.to_string()));
        }
        let taken = match self.own_request(ask) {
            Some(request) => self.submit(now, request, CONFIRM_MS, Purpose::Confirm(action.clone())),
            None => false,
        };
        if !taken {
            let why = format!("{SUBMISSIONS_MAX} changes are on their way already");
            self.action_done(now, &action, Some(why));
        }
    }

    pub(super) fn handle_action_done(&mut self, now: Moment, action: &Action, failure: Option<String>) {
        if let (Action::Start(vm), Some(_)) = (action, &failure) {
            self.out.push(Effect::FetchConsole { vm: vm.clone(), lines: CONSOLE_LINES });
        }
        self.action_done(now, action, failure);
    }

    /// An action ended. A failure is told once, until it fails otherwise.
    pub(super) fn action_done(&mut self, now: Moment, action: &Action, failure: Option<String>) {
        let is_new = self.vms.action_done(now.boot_ms, action, failure.as_deref());
        if let Some(why) = failure.filter(|_| is_new) {
            self.out.push(Effect::Notice(Notice::ActionFailed { action: action.clone(), why }));
        }
    }

    /// Answers everybody who waits, because this node goes on no more. Whoever asked for its own removal has
    /// got it, if it was removed.
    pub(in crate::host) fn abandon(&mut self, why: &str, removed: bool) {
        let own = self.replica.summary().raft_id;
        for (purpose, ask, error) in self.submissions.abandon(why) {
            let is_own = matches!(&ask, Ask::Members(MembersAsk::Remove { raft_id, .. })
                if *raft_id == own);
            match purpose {
                Purpose::Waiter(waiter) => {
                    let end = if removed && is_own { Ok(Outcome::done(None)) } else { Err(error) };
                    self.answer(waiter, Answer::Changed(end));
                }
                Purpose::Join(call) => self.join_decided(call, Err(error)),
                Purpose::Register
                | Purpose::Confirm(_)
                | Purpose::Vouch
                | Purpose::EnforceLease
                | Purpose::Hold => {}
            }
        }
        let (reads, hand_overs, served) = self.waiters.abandon();
        for waiter in reads {
            let error = SubmitError::Unavailable(why.to_owned());
            let removes = self.removals.has(waiter);
            let answer = if removes { Answer::Changed(Err(error)) } else { Answer::Readable(Err(error)) };
            self.answer(waiter, answer);
        }
        for waiter in hand_overs {
            self.answer(waiter, Answer::HandedOver(false));
        }
        for waiter in self.waiters.take_holds() {
            self.answer(waiter, Answer::Held(HoldEnd::NotTaken));
        }
        for call in served {
            let why = why.to_owned();
            self.answer_proposed(call, AttemptEnd::Unknown { why });
        }
        for (call, purpose) in self.calls.clear() {
            self.out.push(Effect::ForgetCall { call });
            match purpose {
                MemberCall::Reports(waiter) => self.answer(waiter, Answer::Reports(Vec::new())),
                MemberCall::Progress(waiter) => self.answer(waiter, Answer::Progress(None)),
                MemberCall::Forward(_)
                | MemberCall::Identify { .. }
                | MemberCall::Report
                | MemberCall::RenewLease { .. } => {}
            }
        }
    }
}
