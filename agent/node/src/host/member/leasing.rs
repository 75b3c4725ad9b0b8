//! What a member does about leases: it renews its own and, while it leads, grants those of others and finds
//! out who is lost.
//!
//! A renewal that reaches the leader waits for a round of confirmations (a ReadIndex) that begins after it
//! came: a node that a quorum has left behind confirms none. There is one round at a time, for all that
//! waited when it began.

use blixard_core::lease::{Grantor, LeaseStep};
use blixard_model::api::LeaseView;
use blixard_model::wire::{PeerRequest, PeerResponse, ProgressReport};
use blixard_model::{
    ClusterVersion, EndpointId, LeaseDenial, LeaseGrant, LeaseRenewal, NodeName, RenewalAnswer, WriteAsk,
    mutant,
};

use super::leases::{AskedRenewal, LeaseAsker};
use super::submissions::Purpose;
use super::{MemberCall, MemberHost, Proposer, Reader, Replica};
use crate::attempt::AttemptEnd;
use crate::host::effect::{Answer, Effect, HoldEnd};
use crate::host::input::{CallError, PeerCallId, WaiterId};
use crate::host::moment::Moment;
use crate::notice::Notice;

/// How long telling the log that this node obeys leases may take, in milliseconds.
const ENFORCE_MS: u64 = 5_000;
/// A leader has at least this long to answer a renewal, in milliseconds, before it is asked again.
const PATIENCE_MS_MIN: u64 = 1_000;
/// A leader looks this often for nodes that are lost, in milliseconds.
const VERDICT_MS: u64 = 200;
/// That the time is over for which a cluster was disarmed is proposed again after this time, in milliseconds.
const ARM_MS: u64 = 1_000;
/// At every so many of these looks it tries again to place VMs that found no room before.
const AGAIN_LOOKS: u64 = 10;

/// What this node knows when it looks at its lease.
fn step(now: Moment, replica: &Replica, up_to_date: bool) -> LeaseStep<'_> {
    let summary = replica.summary();
    LeaseStep {
        now_ms: now.boot_ms,
        state: replica.state(),
        applied: summary.applied,
        raft_id: summary.raft_id,
        up_to_date,
        wall_ms: now.wall_ms,
    }
}

impl MemberHost {
    /// This node's lease; none while there is no need for one.
    pub fn lease(&self, now: Moment) -> Option<LeaseView> {
        self.leases.view(now.boot_ms, self.replica.state().leases.is_on)
    }

    /// Adds how the members stand with their leases, which this node knows as leader.
    pub(super) fn add_leases(&self, now: Moment, report: &mut ProgressReport) {
        let state = self.replica.state();
        for member in &mut report.members {
            let node = state.nodes.member(member.raft_id).map(|member| member.node.name);
            member.lease = node.and_then(|node| self.leases.standing(now.boot_ms, &state.leases, node));
        }
    }

    /// Who leads may have changed. A leader begins with nothing but the time at which it began.
    pub(super) fn lead_leases(&mut self, now: Moment) {
        let (leads, term) = (self.replica.summary().leads, self.replica.summary().term);
        let grants = self.leases.grantor.as_ref().map(Grantor::term);
        let kept = mutant::lives("grants-outlive-the-term") && grants.is_some();
        if leads && grants != Some(term) && !kept {
            self.leases.grantor = Some(Grantor::new(term, self.leases.usual, now.boot_ms));
            self.forget_renewals();
        } else if !leads && grants.is_some() {
            self.leases.grantor = self.leases.grantor.take().filter(|_| kept);
            self.forget_renewals();
        }
        if self.replica.summary().leader.is_some() {
            self.leases.holder.hurry_once(now.boot_ms, term);
        }
    }

    fn forget_renewals(&mut self) {
        self.leases.verdicts.clear();
        self.leases.round = None;
        self.leases.next.clear();
        self.replica.forget_reader(|reader| matches!(reader, Reader::Leases(_)));
    }

    /// Writes what the supervisors are to know, tells the log that this node obeys leases, renews its own,
    /// and as leader grants those of others and finds out who is lost.
    pub(super) fn look_at_leases(&mut self, now: Moment) {
        let summary = self.replica.summary();
        let (leader, leads) = (summary.leader.as_ref().map(|(_, id)| *id), summary.leads);
        let step = step(now, &self.replica, self.vms.is_up_to_date());
        let raft_id = step.raft_id;
        if let Some(file) = self.leases.holder.look(step) {
            self.out.push(Effect::WriteLease(Box::new(file)));
        }
        let boot_id = now.boot_id;
        let enforces = self.leases.holder.enforces(step);
        let enforces = enforces.map(|epoch| WriteAsk::EnforceLease { raft_id, boot_id, epoch });
        let take = self.leases.holder.hold_to_take(step).map(|hold| WriteAsk::TakeHold { raft_id, hold });
        let end = self.leases.holder.hold_to_end(step);
        let end = end.map(|since| WriteAsk::EndHold { raft_id, boot_id, since });
        let can_ask = leads || leader.is_some_and(|leader| self.linked.contains(&leader));
        let renewal = if can_ask { self.leases.holder.renewal(step) } else { None };
        self.leases.note_terms(self.replica.state());
        if let Some(ask) = enforces {
            self.tell_of_lease(now, ask, Purpose::EnforceLease);
        }
        if let Some(ask) = take.or(end) {
            self.tell_of_lease(now, ask, Purpose::Hold);
        }
        self.end_holds(now);
        match (renewal, leader) {
            (Some(renewal), _) if leads => {
                let asker = LeaseAsker::Own { sent_ms: now.boot_ms };
                let asked = AskedRenewal { asker, raft_id, renewal };
                self.ask_for_lease(now, self.leases.node.clone(), asked);
            }
            (Some(renewal), Some(to)) => {
                let purpose = (MemberCall::RenewLease { sent_ms: now.boot_ms }, to);
                let request = PeerRequest::RenewLease(renewal);
                let patience_ms = (self.leases.terms.renewal_ms() / 2).max(PATIENCE_MS_MIN);
                let (_, effect) = self.calls.ask(purpose, request, now.boot_ms, patience_ms);
                self.out.push(effect);
            }
            (Some(_) | None, _) => {}
        }
        self.begin_lease_round();
        self.give_verdicts(now);
    }

    /// Tells the log something of this node's lease, unless that is on its way.
    fn tell_of_lease(&mut self, now: Moment, ask: WriteAsk, purpose: Purpose) {
        if self.submissions.has(|under_way| *under_way == purpose) {
            return;
        }
        let Some(request) = self.own_request(ask) else { return };
        self.submit(now, request, ENFORCE_MS, purpose);
    }

    /// The agent is about to end in order: the VMs here that need a lease are to run on meanwhile.
    pub(super) fn hold(&mut self, now: Moment, waiter: WaiterId, (for_ms, until_ms): (u64, u64)) {
        let step = step(now, &self.replica, self.vms.is_up_to_date());
        let is_known = step.state.version >= ClusterVersion::HOLDS;
        match self.leases.holder.leave(step, for_ms) {
            None => self.answer(waiter, Answer::Held(HoldEnd::NotNeeded)),
            Some(may) if may && is_known => self.waiters.add_hold(waiter, until_ms),
            Some(_) => self.answer(waiter, Answer::Held(HoldEnd::NotTaken)),
        }
    }

    /// Whether this node may say that a VM is gone that needs a lease.
    pub(super) fn speaks_for_all(&self, now: Moment) -> bool {
        self.leases.holder.speaks_for_all(step(now, &self.replica, self.vms.is_up_to_date()))
    }

    /// The supervisors know of what the agent that is about to end was waiting for.
    fn end_holds(&mut self, now: Moment) {
        let step = step(now, &self.replica, self.vms.is_up_to_date());
        if self.waiters.has_holds() && self.leases.holder.is_left(step) {
            for waiter in self.waiters.take_holds() {
                self.answer(waiter, Answer::Held(HoldEnd::Taken));
            }
        }
    }

    pub(super) fn handle_lease_written(&mut self, now: Moment, failure: Option<String>) {
        self.leases.holder.note_written(now.boot_ms, failure.is_none());
        // What waited for it may start.
        self.vms.hurry(now.boot_ms);
        if let Some(why) = failure {
            self.out.push(Effect::Notice(Notice::LeaseNotWritten(why)));
        }
    }

    /// A peer asks for its lease to be renewed.
    pub(super) fn renew_peer(
        &mut self,
        now: Moment,
        (call, from): (PeerCallId, EndpointId),
        renewal: LeaseRenewal,
    ) {
        let member = self.replica.state().member_by_endpoint(from);
        let node = member.map(|member| (member.node.name.clone(), member.raft_id));
        let declined = match (&self.leases.grantor, node) {
            (Some(_), Some((node, raft_id))) => {
                let asked = AskedRenewal { asker: LeaseAsker::Peer(call), raft_id, renewal };
                return self.ask_for_lease(now, node, asked);
            }
            (None, _) => "this node does not lead",
            (Some(_), None) => "the asker is no member",
        };
        let response = Box::new(PeerResponse::declined(declined));
        self.out.push(Effect::AnswerPeer { call, response });
    }

    fn ask_for_lease(&mut self, now: Moment, node: NodeName, asked: AskedRenewal) {
        let own = matches!(asked.asker, LeaseAsker::Own { .. });
        if mutant::lives("lease-without-a-quorum") || own && mutant::lives("leader-grants-itself") {
            return self.grant(now, &node, &asked);
        }
        if mutant::lives("round-joined-late")
            && let Some((_, round)) = &mut self.leases.round
        {
            round.insert(node, asked);
            return;
        }
        let before = self.leases.next.insert(node, asked);
        if let Some(AskedRenewal { asker: LeaseAsker::Peer(call), .. }) = before {
            let response = Box::new(PeerResponse::declined("the node has asked again"));
            self.out.push(Effect::AnswerPeer { call, response });
        }
    }

    fn begin_lease_round(&mut self) {
        if self.leases.round.is_some() || self.leases.next.is_empty() {
            return;
        }
        self.leases.rounds += 1;
        let number = self.leases.rounds;
        // When too many reads wait, the renewals go on waiting here.
        if self.replica.read(Reader::Leases(number)) {
            self.leases.round = Some((number, std::mem::take(&mut self.leases.next)));
            self.dirty = true;
        }
    }

    /// A quorum has confirmed, since this round began, that this node leads.
    pub(super) fn leases_confirmed(&mut self, now: Moment, number: u64) {
        let Some((_, asked)) = self.leases.round.take_if(|(round, _)| *round == number) else { return };
        for (node, asked) in asked {
            self.grant(now, &node, &asked);
        }
    }

    fn grant(&mut self, now: Moment, node: &NodeName, asked: &AskedRenewal) {
        let (summary, index) = (self.replica.summary(), self.replica.raft_status().applied);
        let (leads, term) = (summary.leads, summary.term);
        let table = &self.replica.state().leases;
        let grantor = self.leases.grantor.as_mut().filter(|grantor| leads && grantor.term() == term);
        let answer = grantor.map(|grantor| {
            grantor.note_holders(now.boot_ms, table);
            match grantor.renew(now.boot_ms, table, (node, asked.raft_id), (&asked.renewal, index)) {
                Ok((grant, length_ms)) => RenewalAnswer::Granted(LeaseGrant { grant, length_ms }),
                Err(why) => RenewalAnswer::Denied { why },
            }
        });
        match asked.asker {
            LeaseAsker::Own { sent_ms } => self.lease_answered(now, sent_ms, answer),
            LeaseAsker::Peer(call) => {
                let leads_not = || PeerResponse::declined("this node does not lead any more");
                let response = Box::new(answer.map_or_else(leads_not, PeerResponse::Lease));
                self.out.push(Effect::AnswerPeer { call, response });
            }
        }
    }

    /// The leader answered the renewal that was sent at this time.
    pub(super) fn renewal_answered(
        &mut self,
        now: Moment,
        sent_ms: u64,
        answer: Result<Box<PeerResponse>, CallError>,
    ) {
        match answer.map(|response| *response) {
            Ok(PeerResponse::Lease(answer)) => self.lease_answered(now, sent_ms, Some(answer)),
            Ok(_) | Err(_) => self.lease_answered(now, sent_ms, None),
        }
    }

    fn lease_answered(&mut self, now: Moment, sent_ms: u64, answer: Option<RenewalAnswer>) {
        match answer {
            Some(RenewalAnswer::Granted(granted)) => {
                let late = mutant::lives("lease-counted-from-the-answer");
                self.leases.holder.note_granted(if late { now.boot_ms } else { sent_ms }, granted);
                self.leases.denied = None;
            }
            Some(RenewalAnswer::Denied { why }) => {
                self.leases.denied = Some(why);
                if let LeaseDenial::EarlierBoot { wait_ms } = why {
                    self.leases.holder.retry(now.boot_ms, Some(wait_ms));
                }
            }
            None => self.leases.holder.retry(now.boot_ms, None),
        }
    }

    /// The log has taken it that a node is lost, or will not.
    pub(super) fn verdict_ended(&mut self, number: u64, end: &AttemptEnd) {
        if let Some(node) = self.leases.verdict_ended(number, end) {
            self.out.push(Effect::Notice(Notice::NodeLost(node)));
        }
    }

    /// As leader, has the VMs of nodes that are lost given to others.
    fn give_verdicts(&mut self, now: Moment) {
        let summary = self.replica.summary();
        let (leads, term) = (summary.leads, summary.term);
        if !leads || now.boot_ms < self.leases.verdict_due_ms {
            return;
        }
        // What was not taken is proposed again then, and no sooner.
        self.leases.verdict_due_ms = now.boot_ms.saturating_add(VERDICT_MS);
        self.leases.verdict_looks += 1;
        let again = self.leases.verdict_looks.is_multiple_of(AGAIN_LOOKS);
        let Some(grantor) = self.leases.grantor.as_mut() else { return };
        grantor.note_holders(now.boot_ms, &self.replica.state().leases);
        let state = self.replica.state();
        let names = state.nodes.members().map(|member| member.node.name);
        let leased = names.filter(|node| grantor.holds(now.boot_ms, node)).cloned().collect();
        let over = grantor.disarm_that_is_over(now.boot_ms, now.wall_ms, &state.leases);
        let blind = self.reports.blind(now.boot_ms);
        self.replica.note_leased(leased);
        self.replica.note_blind(blind.clone());
        if let Some(since) = over {
            self.leases.verdict_due_ms = now.boot_ms.saturating_add(ARM_MS);
            self.dirty |= self.replica.propose_arm(since);
            return;
        }
        let decided = grantor.term();
        if decided != term && !mutant::lives("grants-outlive-the-term") {
            return;
        }
        for (node, eligible) in grantor.verdicts(now.boot_ms, (self.replica.state(), again), &blind) {
            grantor.note_verdict(&node);
            self.leases.next_verdict += 1;
            let number = self.leases.next_verdict;
            self.leases.verdicts.insert(number, node.clone());
            self.replica.propose_lost(decided, &node, eligible, Proposer::Verdict(number));
            self.dirty = true;
        }
    }
}
