//! Changes on their way to whoever leads: [`Submission`]s with what they wait for.
//!
//! ```text
//!          go_on                        attempt_ended
//!   Idle ─────────▶ Here | Asking ─────────────────────▶ Idle ... until Done
//!                     │  the leader was replaced (go_on) ▲
//!                     └──────────────────────────────────┘
//! ```

use std::collections::BTreeMap;

use blixard_core::reconciler::Action;
use blixard_model::api::RetryKind;
use blixard_model::report::cut_reason;
use blixard_model::{Ask, AskOutcome, EndpointId};

use crate::attempt::AttemptEnd;
use crate::host::input::{CallId, PeerCallId, WaiterId};
use crate::host::trouble::Trouble;
use crate::submission::{Step, Submission, SubmitError};
use crate::summary::Summary;

/// Most changes on their way at once, of this machine's callers and of nodes that ask to be admitted.
pub(crate) const SUBMISSIONS_MAX: usize = 1_024;

/// A change on its way; numbered by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubmissionId(u64);

/// For whom a change is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody on this machine.
    Waiter(WaiterId),
    /// This node: the log is to say what it offers.
    Register,
    /// This node: the unit of a deleted VM is gone, or no unit runs by an earlier spec of a changed one.
    Confirm(Action),
    /// This node: it obeys leases.
    EnforceLease,
    /// This node: it has a long lease, or counts on none any more.
    Hold,
    /// A listed node that waits to be admitted.
    Vouch,
    /// A node that asked to be admitted with a ticket.
    Join(PeerCallId),
}

/// What a submission does next.
#[derive(Debug)]
pub(crate) enum SubmissionNext {
    /// Nothing until its time comes, the summary changes, or its attempt ends.
    Wait,
    /// Propose it here.
    Propose(Ask),
    /// Ask the leader to propose it.
    Forward {
        /// The leader.
        to: EndpointId,
        /// What to propose.
        ask: Ask,
        /// For how long, in milliseconds.
        patience_ms: u64,
    },
    /// The end.
    Done(Purpose, Result<AskOutcome, SubmitError>),
}

/// An attempt that a submission waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// This node has proposed it.
    Here,
    /// The leader was asked.
    Call(CallId),
}

#[derive(Debug)]
struct Open {
    submission: Submission,
    purpose: Purpose,
    attempt: Option<Attempt>,
    /// When to go on without anything else happening.
    due_ms: u64,
    /// When it first failed.
    failing_since_ms: Option<u64>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Submissions {
    next: u64,
    open: BTreeMap<SubmissionId, Open>,
}

impl Submissions {
    /// A new one. None: there are too many.
    pub(crate) fn begin(&mut self, submission: Submission, purpose: Purpose) -> Option<SubmissionId> {
        if self.open.len() >= SUBMISSIONS_MAX {
            return None;
        }
        self.next += 1;
        let id = SubmissionId(self.next);
        let open = Open { submission, purpose, attempt: None, due_ms: 0, failing_since_ms: None };
        self.open.insert(id, open);
        Some(id)
    }

    /// What this one does next. A replaced leader's attempt is given up: the call comes first in the answer.
    pub(crate) fn go_on(
        &mut self,
        id: SubmissionId,
        now_ms: u64,
        me: EndpointId,
        summary: &Summary,
    ) -> (Option<CallId>, SubmissionNext) {
        let Some(open) = self.open.get_mut(&id) else { return (None, SubmissionNext::Wait) };
        let mut given_up = None;
        match open.attempt {
            Some(Attempt::Call(call)) if open.submission.is_replaced(summary) => {
                given_up = Some(call);
                open.attempt = None;
                open.submission.note_replaced(now_ms);
                open.failing_since_ms.get_or_insert(now_ms);
            }
            Some(_) => return (None, SubmissionNext::Wait),
            None => {}
        }
        let next = match open.submission.next(now_ms, me, summary) {
            Step::Done(end) => {
                let purpose = open.purpose.clone();
                self.open.remove(&id);
                SubmissionNext::Done(purpose, end)
            }
            Step::Wait { until_ms } => {
                open.due_ms = until_ms;
                SubmissionNext::Wait
            }
            Step::Propose { patience_ms } => {
                open.attempt = Some(Attempt::Here);
                open.due_ms = now_ms.saturating_add(patience_ms);
                SubmissionNext::Propose(open.submission.ask().clone())
            }
            Step::Forward { endpoint_id, patience_ms, .. } => {
                SubmissionNext::Forward { to: endpoint_id, ask: open.submission.ask().clone(), patience_ms }
            }
        };
        (given_up, next)
    }

    /// The leader was asked with this call.
    pub(crate) fn asked(&mut self, id: SubmissionId, call: CallId) {
        if let Some(open) = self.open.get_mut(&id) {
            open.attempt = Some(Attempt::Call(call));
        }
    }

    /// An attempt ended. False: nobody waits for it.
    pub(crate) fn attempt_ended(&mut self, id: SubmissionId, now_ms: u64, end: AttemptEnd) -> bool {
        let Some(open) = self.open.get_mut(&id).filter(|open| open.attempt.is_some()) else { return false };
        open.attempt = None;
        if !matches!(end, AttemptEnd::Decided(_)) {
            open.failing_since_ms.get_or_insert(now_ms);
        }
        open.submission.note(now_ms, end);
        true
    }

    /// Those whose time has come, each with the attempt that is over by then.
    pub(crate) fn due(&self, now_ms: u64) -> Vec<(SubmissionId, Option<Attempt>)> {
        let is_due = |open: &&Open| match open.attempt {
            // The call has a deadline of its own.
            Some(Attempt::Call(_)) => false,
            Some(Attempt::Here) | None => open.due_ms <= now_ms,
        };
        self.open.iter().filter(|(_, open)| is_due(open)).map(|(id, open)| (*id, open.attempt)).collect()
    }

    /// When the next one is due.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        let waits = |open: &&Open| !matches!(open.attempt, Some(Attempt::Call(_)));
        self.open.values().filter(waits).map(|open| open.due_ms).min()
    }

    pub(crate) fn ids(&self) -> Vec<SubmissionId> {
        self.open.keys().copied().collect()
    }

    /// Nobody waits for what this is for. The attempt under way, if there is one.
    pub(crate) fn give_up(&mut self, of: &Purpose) -> Option<(SubmissionId, Option<Attempt>)> {
        let id = self.open.iter().find(|(_, open)| open.purpose == *of).map(|(id, _)| *id)?;
        let open = self.open.remove(&id)?;
        Some((id, open.attempt))
    }

    /// Whether one is made for this.
    pub(crate) fn has(&self, is: impl Fn(&Purpose) -> bool) -> bool {
        self.open.values().any(|open| is(&open.purpose))
    }

    /// The end of all of them, because this node goes on no more.
    pub(crate) fn abandon(&mut self, why: &str) -> Vec<(Purpose, Ask, SubmitError)> {
        let open = std::mem::take(&mut self.open);
        open.into_values()
            .map(|mut open| {
                if open.attempt.take().is_some() {
                    open.submission.note(0, AttemptEnd::Unknown { why: why.to_owned() });
                }
                (open.purpose, open.submission.ask().clone(), open.submission.abandoned(why))
            })
            .collect()
    }

    /// One line for all of them: the one that failed most often speaks for them, and the oldest failure
    /// counts.
    pub(crate) fn trouble(&self, now_ms: u64) -> Option<Trouble> {
        let failing = || self.open.values().filter(|open| open.submission.failures().0 > 0);
        let worst = failing().max_by_key(|open| open.submission.failures().0)?;
        let (failures, why) = worst.submission.failures();
        let mut why = match failing().count() {
            1 => why.to_owned(),
            count => format!("{count} writes wait; {why}"),
        };
        cut_reason(&mut why);
        // One that is under way is the next of them.
        let next =
            failing().map(|open| Some(open.due_ms).filter(|at| open.attempt.is_none() && *at > now_ms));
        let since_ms = failing().filter_map(|open| open.failing_since_ms).min().unwrap_or(now_ms);
        let next_try_ms = next.min().flatten();
        Some(Trouble { what: RetryKind::Forward, peer: None, failures, next_try_ms, why, since_ms })
    }
}
