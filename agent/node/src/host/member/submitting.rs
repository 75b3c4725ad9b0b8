//! How a member brings changes to whoever leads, and what it does with their ends. Which change is due, and
//! when it is tried again, its `submissions` say.

use blixard_core::reconciler::Action;
use blixard_model::wire::PeerRequest;
use blixard_model::{Ask, AskOutcome, EndpointId, Outcome};

use super::submissions::{Purpose, SubmissionId, SubmissionNext};
use super::{MemberCall, MemberHost, Proposer};
use crate::attempt::AttemptEnd;
use crate::host::effect::Effect;
use crate::host::moment::Moment;
use crate::notice::Notice;
use crate::submission::{Submission, SubmitError};

/// Added to the time that a leader gets for a forwarded change, in milliseconds, so that its own answer
/// arrives before ours ends.
const FORWARD_MARGIN_MS: u64 = 300;

impl MemberHost {
    /// Begins to bring a change to whoever leads. False: too many are on their way.
    pub(super) fn submit(
        &mut self,
        now: Moment,
        ask: impl Into<Ask>,
        patience_ms: u64,
        purpose: Purpose,
    ) -> bool {
        let deadline_ms = now.boot_ms.saturating_add(patience_ms);
        self.next_request += 1;
        let seed = self.own.incarnation ^ self.next_request.rotate_left(32);
        let submission = Submission::new(ask, deadline_ms, seed);
        let Some(id) = self.submissions.begin(submission, purpose) else { return false };
        self.go_on(now, id);
        true
    }

    /// All of them look again: the summary or the links changed.
    pub(super) fn go_on_all(&mut self, now: Moment) {
        for id in self.submissions.ids() {
            self.go_on(now, id);
        }
    }

    /// Does what a submission says next.
    pub(super) fn go_on(&mut self, now: Moment, id: SubmissionId) {
        let (me, summary) = (self.own.node.endpoint_id, self.replica.summary());
        let (given_up, next) = self.submissions.go_on(id, now.boot_ms, me, summary);
        if let Some(call) = given_up {
            self.calls.take(call);
            self.out.push(Effect::ForgetCall { call });
        }
        match next {
            SubmissionNext::Wait => {}
            SubmissionNext::Propose(ask) => {
                self.replica.ask(ask, me, Proposer::Submission(id));
                self.dirty = true;
            }
            SubmissionNext::Forward { to, ask, patience_ms } => self.forward(now, id, to, &ask, patience_ms),
            SubmissionNext::Done(purpose, end) => self.submission_ended(now, purpose, end),
        }
    }

    fn forward(&mut self, now: Moment, id: SubmissionId, to: EndpointId, ask: &Ask, patience_ms: u64) {
        let limit_ms = patience_ms.saturating_add(FORWARD_MARGIN_MS);
        let call = self.calls.open(MemberCall::Forward(id), to, now.boot_ms, limit_ms);
        self.submissions.asked(id, call);
        if !self.linked.contains(&to) {
            self.calls.take(call);
            let leader = self.replica.summary().leader.as_ref().map(|(name, _)| name.to_string());
            let why = format!("{}: the link is down", leader.unwrap_or_else(|| to.short()));
            return self.attempt_ended(now, id, AttemptEnd::NotTaken { why });
        }
        let request = Box::new(PeerRequest::to_leader(ask.clone(), patience_ms));
        self.out.push(Effect::AskPeer { call, to, request, patience_ms: limit_ms });
    }

    pub(super) fn attempt_ended(&mut self, now: Moment, id: SubmissionId, end: AttemptEnd) {
        if self.submissions.attempt_ended(id, now.boot_ms, end) {
            self.go_on(now, id);
        }
    }

    fn submission_ended(&mut self, now: Moment, purpose: Purpose, end: Result<AskOutcome, SubmitError>) {
        match purpose {
            Purpose::Waiter(waiter) => self.changed(now, waiter, admits_nobody(end)),
            Purpose::Register => {
                self.registering.ended(now.boot_ms, admits_nobody(end));
                self.register(now);
            }
            Purpose::Confirm(action) => self.confirmed(now, &action, admits_nobody(end)),
            Purpose::Vouch => {
                if let Ok(AskOutcome::Refused { refusal }) = end {
                    self.out.push(Effect::Notice(Notice::ListedNotAdmitted(refusal)));
                }
            }
            // Said again if the log does not say so.
            Purpose::EnforceLease | Purpose::Hold => {}
            Purpose::Join(call) => self.join_decided(call, end),
        }
    }

    /// The cluster was told what became of a unit, or was not.
    fn confirmed(&mut self, now: Moment, action: &Action, end: Result<Outcome, SubmitError>) {
        let failure = match end {
            Ok(Outcome::Done { .. })
                if matches!(action, Action::ConfirmSpec(_) | Action::ConfirmStop(..)) =>
            {
                return self.action_done(now, action, None);
            }
            Ok(Outcome::Done { .. }) => {
                let vm = action.vm().clone();
                self.out.push(Effect::Notice(Notice::VmGone(vm.clone())));
                // The action ends with it: a VM of the same name may start next.
                return self.out.push(Effect::ForgetOrder { vm });
            }
            Ok(Outcome::Refused { refusal }) => refusal.to_string(),
            Err(error) => error.to_string(),
        };
        self.action_done(now, action, Some(failure));
    }
}

/// The end of an ask that admits nobody. A leader that says otherwise has answered something else.
fn admits_nobody(end: Result<AskOutcome, SubmitError>) -> Result<Outcome, SubmitError> {
    let other = || SubmitError::Unknown("the answer is of something else".to_owned());
    end?.unless_admitted().ok_or_else(other)
}
