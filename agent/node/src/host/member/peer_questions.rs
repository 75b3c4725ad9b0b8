//! What peers ask this member, and what they answer.

use std::net::SocketAddr;

use blixard_model::wire::{AgedReport, JoinRequest, JoinResponse, PeerRequest, PeerResponse, ReportPage};
use blixard_model::{Ask, AskOutcome, EndpointId, mutant};

use super::submissions::{Attempt, Purpose};
use super::{Joiner, MemberCall, MemberHost, Proposer};
use crate::attempt::AttemptEnd;
use crate::host::effect::{Answer, Effect};
use crate::host::input::{CallError, CallId, PeerCallId};
use crate::host::moment::Moment;
use crate::joining::{answer_to_joiner, ask_for_joiner};
use crate::notice::Notice;
use crate::replica::NodeError;
use crate::submission::SubmitError;

/// Longest time that a forwarded change is waited for here, in milliseconds.
const PROPOSE_MS_MAX: u64 = 600_000;
/// How long the leader may take to decide on a node with a ticket, in milliseconds: less than that node waits
/// for the answer.
pub(crate) const ADMIT_MS: u64 = 11_000;

impl MemberHost {
    pub(super) fn handle_peer_asked(
        &mut self,
        now: Moment,
        (call, from): (PeerCallId, EndpointId),
        request: PeerRequest,
    ) -> Result<(), NodeError> {
        let response = match request {
            PeerRequest::Identify { me } if me.node.endpoint_id != from => {
                PeerResponse::declined("the identity is another endpoint's")
            }
            PeerRequest::Identify { me } => {
                let held_twice = self.held_twice.seen().to_vec();
                let answer = PeerResponse::Identity { me: Box::new(self.identity(Some(&me))), held_twice };
                // Answered in any case: what is noted may end the member.
                self.out.push(Effect::AnswerPeer { call, response: Box::new(answer) });
                self.dirty = true;
                return self.replica.note_identity(me, None);
            }
            PeerRequest::Propose { request, timeout_ms } => {
                self.lead(now, (call, from), request.into(), timeout_ms);
                return Ok(());
            }
            PeerRequest::ChangeMembers { change, timeout_ms } => {
                self.lead(now, (call, from), change.into(), timeout_ms);
                return Ok(());
            }
            PeerRequest::RenewLease(renewal) => {
                self.renew_peer(now, (call, from), renewal);
                return Ok(());
            }
            PeerRequest::Report { aged, page } => self.note_report(now, from, aged, page),
            PeerRequest::Reports { from } => {
                PeerResponse::Reports(self.reports.page(now.boot_ms, from.as_ref()))
            }
            PeerRequest::Progress => match self.progress_report(now) {
                Some(progress) => PeerResponse::Progress { progress },
                None => PeerResponse::declined("this node does not lead"),
            },
            PeerRequest::Logs { .. } => PeerResponse::declined("a console is asked for on a stream"),
        };
        self.out.push(Effect::AnswerPeer { call, response: Box::new(response) });
        Ok(())
    }

    /// A peer takes this node for the leader.
    fn lead(&mut self, now: Moment, (call, from): (PeerCallId, EndpointId), ask: Ask, timeout_ms: u64) {
        let until_ms = now.boot_ms.saturating_add(timeout_ms.min(PROPOSE_MS_MAX));
        self.waiters.add_served(call, until_ms);
        self.replica.ask(ask, from, Proposer::Peer(call));
        self.dirty = true;
    }

    /// A node reports of itself only.
    fn note_report(
        &mut self,
        now: Moment,
        from: EndpointId,
        aged: AgedReport,
        page: Option<ReportPage>,
    ) -> PeerResponse {
        let member = self.replica.state().member_by_endpoint(from);
        let is_own = member.is_some_and(|member| *member.node.name == aged.report.node);
        if !is_own && !mutant::lives("report-of-another-believed") {
            return PeerResponse::declined("the report is of another node");
        }
        match self.reports.note(now.boot_ms, aged, page) {
            Ok(()) => PeerResponse::Noted,
            Err(why) => PeerResponse::declined(why),
        }
    }

    /// What a peer asked of this leader ended.
    pub(super) fn serve_peer(&mut self, call: PeerCallId, end: AttemptEnd) {
        if self.waiters.end_served(call) {
            self.answer_proposed(call, end);
        }
    }

    pub(super) fn answer_proposed(&mut self, call: PeerCallId, end: AttemptEnd) {
        let response = Box::new(PeerResponse::Proposed { result: end.into() });
        self.out.push(Effect::AnswerPeer { call, response });
    }

    pub(super) fn handle_peer_gave_up(&mut self, call: PeerCallId) {
        if self.waiters.end_served(call) && !mutant::lives("who-gave-up-waits-on") {
            self.replica.forget_proposer(|proposer| *proposer == Proposer::Peer(call));
        }
        self.leases.give_up(call);
        if self.joiners.remove(&call).is_some() {
            self.give_up_submission(&Purpose::Join(call));
        }
    }

    /// Nobody waits for this change any more. It may still happen.
    pub(super) fn give_up_submission(&mut self, purpose: &Purpose) {
        match self.submissions.give_up(purpose) {
            Some((id, Some(Attempt::Here))) => {
                self.replica.forget_proposer(|proposer| *proposer == Proposer::Submission(id));
            }
            Some((_, Some(Attempt::Call(call)))) => {
                self.calls.take(call);
                self.out.push(Effect::ForgetCall { call });
            }
            Some((_, None)) | None => {}
        }
    }

    pub(super) fn handle_peer_answered(
        &mut self,
        now: Moment,
        call: CallId,
        answer: Result<Box<PeerResponse>, CallError>,
    ) -> Result<(), NodeError> {
        match self.calls.take(call) {
            Some((purpose, to)) => self.call_ended(now, (purpose, to), answer),
            None => Ok(()),
        }
    }

    /// A question was answered, or will not be.
    pub(super) fn call_ended(
        &mut self,
        now: Moment,
        (purpose, to): (MemberCall, EndpointId),
        answer: Result<Box<PeerResponse>, CallError>,
    ) -> Result<(), NodeError> {
        match purpose {
            MemberCall::Forward(id) => self.attempt_ended(now, id, proposed(answer)),
            MemberCall::RenewLease { sent_ms } => self.renewal_answered(now, sent_ms, answer),
            MemberCall::Identify { version } => self.identified(now, to, version, answer)?,
            MemberCall::Report => {
                let noted = match answer.map(|response| *response) {
                    Ok(PeerResponse::Noted) => Ok(()),
                    Ok(PeerResponse::Declined { why }) => Err(why),
                    Ok(_) => Err("the answer is of something else".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
                self.reports.answered(to, now.boot_ms, noted);
            }
            MemberCall::Reports(waiter) => {
                let page = match answer.map(|response| *response) {
                    Ok(PeerResponse::Reports(page)) => Some(page),
                    Ok(_) | Err(_) => None,
                };
                self.reports_told(now, (waiter, to), page);
            }
            MemberCall::Progress(waiter) => {
                let progress = match answer.map(|response| *response) {
                    Ok(PeerResponse::Progress { progress }) => Some(progress.bounded()),
                    // One that leads no more: the others are told of later.
                    Ok(_) | Err(_) => None,
                };
                self.answer(waiter, Answer::Progress(progress));
            }
        }
        Ok(())
    }

    fn identified(
        &mut self,
        now: Moment,
        peer: EndpointId,
        version: u64,
        answer: Result<Box<PeerResponse>, CallError>,
    ) -> Result<(), NodeError> {
        let why = match answer.map(|response| *response) {
            Ok(PeerResponse::Identity { me, held_twice }) if me.node.endpoint_id == peer => {
                self.identities.answered(peer);
                self.held_twice.note_told(peer, held_twice);
                self.dirty = true;
                return self.replica.note_identity(*me, Some(version));
            }
            Ok(PeerResponse::Declined { why }) => why,
            Ok(_) => "the answer is of something else".to_owned(),
            Err(error) => error.to_string(),
        };
        self.identities.failed(peer, now.boot_ms, why);
        Ok(())
    }

    /// A node that has a ticket is at the door: the leader decides.
    pub(super) fn handle_join_asked(
        &mut self,
        now: Moment,
        (call, from): (PeerCallId, EndpointId),
        source: Option<SocketAddr>,
        request: JoinRequest,
    ) {
        let later = |why: &str| JoinResponse::Later { why: why.to_owned(), known_as: None };
        if request.node.node.endpoint_id != from {
            return self.answer_join(call, later("the identity is another endpoint's"));
        }
        if !self.replica.summary().joinable {
            return self.answer_join(call, later("no ticket is open here"));
        }
        let place = source.map_or_else(|| "an unknown address".to_owned(), |source| source.to_string());
        let (name, ticket) = (request.node.node.name.clone(), request.ticket);
        let joiner = Joiner { endpoint_id: from, name, place, ticket };
        self.out.push(Effect::Notice(Notice::AsksToJoin {
            endpoint_id: from,
            name: joiner.name.clone(),
            place: joiner.place.clone(),
            ticket,
        }));
        match ask_for_joiner(self.replica.state(), request) {
            Ok(ask) => {
                self.joiners.insert(call, joiner);
                if !self.submit(now, ask, ADMIT_MS, Purpose::Join(call)) {
                    self.joiners.remove(&call);
                    self.answer_join(call, later("too much is under way here"));
                }
            }
            Err(at_once) => self.answer_join(call, *at_once),
        }
    }

    pub(super) fn join_decided(&mut self, call: PeerCallId, end: Result<AskOutcome, SubmitError>) {
        let Some(joiner) = self.joiners.remove(&call) else { return };
        let response = answer_to_joiner(self.replica.state(), joiner.endpoint_id, end);
        let Joiner { endpoint_id, name, place, ticket } = joiner;
        match &response {
            JoinResponse::Admitted { raft_id, .. } => {
                let raft_id = *raft_id;
                self.out.push(Effect::Notice(Notice::Admitted { endpoint_id, name, ticket, raft_id }));
            }
            JoinResponse::Refused { refusal } => {
                let refusal = refusal.clone();
                self.out.push(Effect::Notice(Notice::NotAdmitted { endpoint_id, name, place, refusal }));
            }
            JoinResponse::Later { .. } => {}
        }
        self.answer_join(call, response);
    }

    fn answer_join(&mut self, call: PeerCallId, response: JoinResponse) {
        self.out.push(Effect::AnswerJoin { call, response: Box::new(response) });
    }
}

/// How a forwarded change ended.
fn proposed(answer: Result<Box<PeerResponse>, CallError>) -> AttemptEnd {
    match answer.map(|response| *response) {
        Ok(PeerResponse::Proposed { result }) => result.into(),
        Ok(PeerResponse::Declined { why }) => AttemptEnd::NotTaken { why },
        Ok(_) => AttemptEnd::Unknown { why: "the answer is of something else".to_owned() },
        Err(CallError::NotSent(why)) => AttemptEnd::NotTaken { why },
        Err(CallError::Unknown(why)) => AttemptEnd::Unknown { why },
    }
}
