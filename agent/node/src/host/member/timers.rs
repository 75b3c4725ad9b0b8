//! What a member does because its time has come.

use blixard_model::wire::PeerRequest;

use super::submissions::{Attempt, Purpose};
use super::waiters::ReadState;
use super::{MemberCall, MemberHost, Proposer, Reader, identities, registering, reports};
use crate::attempt::AttemptEnd;
use crate::host::effect::{Answer, Effect, HoldEnd};
use crate::host::input::CallError;
use crate::host::moment::Moment;
use crate::notice::Notice;
use crate::registration::RegistrationStep;
use crate::replica::NodeError;
use crate::submission::SubmitError;

/// How often the leader is told of listed nodes that wait, in milliseconds.
const VOUCH_PERIOD_MS: u64 = 2_000;
/// How long the leader may take to admit one, in milliseconds.
const VOUCH_MS: u64 = 4_000;

impl MemberHost {
    /// When this member wants to be woken at the latest.
    pub(in crate::host) fn wake_at_ms(&self) -> u64 {
        let maybe = [
            self.calls.due_ms(),
            self.submissions.due_ms(),
            self.waiters.due_ms(),
            self.reports.due_ms(),
            self.registering.due_ms(),
        ];
        let always = [self.identities.due_ms(), self.vms.due_ms(), self.vouch_due_ms];
        maybe.into_iter().flatten().chain(always).min().unwrap_or(0)
    }

    pub(super) fn look_at_timers(&mut self, now: Moment) -> Result<(), NodeError> {
        let now_ms = now.boot_ms;
        for (call, purpose, to) in self.calls.take_overdue(now_ms) {
            self.out.push(Effect::ForgetCall { call });
            let late = CallError::Unknown("no answer in time".to_owned());
            self.call_ended(now, (purpose, to), Err(late))?;
        }
        for (id, attempt) in self.submissions.due(now_ms) {
            match attempt {
                Some(Attempt::Here) => {
                    self.replica.forget_proposer(|proposer| *proposer == Proposer::Submission(id));
                    let why = "not committed in time".to_owned();
                    self.attempt_ended(now, id, AttemptEnd::Unknown { why });
                }
                Some(Attempt::Call(_)) | None => self.go_on(now, id),
            }
        }
        self.end_overdue_waiters(now);
        self.ask_identities(now_ms);
        self.send_report(now_ms);
        if self.registering.due_ms().is_some_and(|due| due <= now_ms) {
            self.register(now);
        }
        if let Some(look) = self.vms.wants_list(now_ms) {
            self.out.push(Effect::ListUnits { look });
        }
        self.vouch(now);
        self.look_at_leases(now);
        Ok(())
    }

    fn end_overdue_waiters(&mut self, now: Moment) {
        let now_ms = now.boot_ms;
        for (waiter, state) in self.waiters.take_overdue_reads(now_ms) {
            let why = match state {
                ReadState::NoLeader => {
                    "no quorum: no leader is known; `blixard status` shows who can be reached"
                }
                ReadState::Asked => "no quorum confirmed the read; --stale shows what this node knows",
            };
            self.replica.forget_reader(|reader| *reader == Reader::Waiter(waiter));
            self.readable(now, waiter, Err(SubmitError::Unavailable(why.to_owned())));
        }
        for waiter in self.waiters.take_overdue_hand_overs(now_ms) {
            self.answer(waiter, Answer::HandedOver(false));
        }
        for waiter in self.waiters.take_overdue_holds(now_ms) {
            self.answer(waiter, Answer::Held(HoldEnd::NotTaken));
        }
        for call in self.waiters.take_overdue_served(now_ms) {
            self.replica.forget_proposer(|proposer| *proposer == Proposer::Peer(call));
            let why = "not committed in time".to_owned();
            self.answer_proposed(call, AttemptEnd::Unknown { why });
        }
    }

    fn ask_identities(&mut self, now_ms: u64) {
        let asked = self.calls.iter().filter(|(purpose, _)| matches!(purpose, MemberCall::Identify { .. }));
        let asked = asked.map(|(_, to)| to).collect();
        let summary = self.replica.summary();
        let version = summary.membership_version;
        let whom = self.identities.next_round(now_ms, summary, &self.linked, &asked);
        if whom.is_empty() {
            return;
        }
        let me = self.identity(None);
        for to in whom {
            let request = PeerRequest::Identify { me: me.clone() };
            let purpose = MemberCall::Identify { version };
            let (_, effect) = self.calls.ask((purpose, to), request, now_ms, identities::ANSWER_MS);
            self.out.push(effect);
        }
    }

    fn send_report(&mut self, now_ms: u64) {
        let leader = self.replica.summary().leader.as_ref().map(|(_, id)| *id);
        let leader = leader.filter(|id| *id != self.own.node.endpoint_id);
        let Some(to) = self.reports.next(now_ms, leader) else { return };
        if !self.linked.contains(&to) {
            return self.reports.answered(to, now_ms, Err("the link is down".to_owned()));
        }
        let Some((aged, page)) = self.reports.to_send(now_ms) else { return };
        let request = PeerRequest::Report { aged, page };
        let (_, effect) = self.calls.ask((MemberCall::Report, to), request, now_ms, reports::ANSWER_MS);
        self.out.push(effect);
    }

    /// Sees to it that the log says what this node offers.
    pub(super) fn register(&mut self, now: Moment) {
        if self.submissions.has(|purpose| *purpose == Purpose::Register) {
            return;
        }
        match self.registering.next(now.boot_ms, self.replica.state(), self.replica.summary()) {
            RegistrationStep::Nothing | RegistrationStep::Wait { .. } => {}
            RegistrationStep::Refused(refusal) => {
                self.out.push(Effect::Notice(Notice::OfferRefused(refusal)));
            }
            RegistrationStep::Submit(ask) => {
                let Some(request) = self.own_request(ask) else { return };
                self.submit(now, request, registering::ATTEMPT_MS, Purpose::Register);
            }
        }
    }

    /// As follower, tells the leader of nodes on this node's list that wait to be admitted: it may have
    /// another list, or none.
    fn vouch(&mut self, now: Moment) {
        if now.boot_ms < self.vouch_due_ms {
            return;
        }
        self.vouch_due_ms = now.boot_ms.saturating_add(VOUCH_PERIOD_MS);
        if self.submissions.has(|purpose| *purpose == Purpose::Vouch) {
            return;
        }
        for ask in self.replica.vouches() {
            self.submit(now, ask, VOUCH_MS, Purpose::Vouch);
        }
    }
}
