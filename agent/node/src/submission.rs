//! A write on its way to whoever leads: forwarded, tried again under the same request id until the deadline,
//! and honest about what is not known.
//!
//! ```text
//!            no leader known                         leader known
//!   Waiting ◀───────────────┐         ┌────────────────────────────▶ Asked
//!      │                    │         │                                │
//!      │ none for 5 s       └─ Pausing (backoff, or a new leader) ◀────┤ nothing happened, or not known
//!      ▼                                                               ▼ applied
//!   Unavailable, or Unknown if an attempt may have reached somebody   Done
//! ```

use blixard_model::backoff::{ANSWER, SUBMIT};
use blixard_model::{Ask, AskOutcome, EndpointId, NodeName};

use crate::attempt::AttemptEnd;
use crate::summary::Summary;

/// Without a leader for this long a request is given up: longer than any election.
pub const NO_LEADER_PATIENCE_MS: u64 = 5_000;

/// Why a request has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Nothing happened.
    #[error("nothing was changed: {0}")]
    Unavailable(String),
    /// It may or may not happen; the same request id may be sent again.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Propose here, and tell [`Submission::note`] how it ended.
    Propose {
        /// How long to wait for it, in milliseconds.
        patience_ms: u64,
    },
    /// Ask the leader to propose, and tell [`Submission::note`] how it ended.
    Forward {
        /// Whom, by name.
        leader: NodeName,
        /// The leader's endpoint id.
        endpoint_id: EndpointId,
        /// How long to wait for it, in milliseconds.
        patience_ms: u64,
    },
    /// Ask again what to do when the summary changes, and at this time at the latest.
    Wait {
        /// Milliseconds of the caller's clock.
        until_ms: u64,
    },
    /// The end.
    Done(Result<AskOutcome, SubmitError>),
}

/// One write, or one change of the members. Driven by its caller: [`Submission::next`] says what to do.
#[derive(Debug)]
pub struct Submission {
    ask: Ask,
    deadline_ms: u64,
    seed: u64,
    outcome: Option<AskOutcome>,
    leaderless_since_ms: Option<u64>,
    failures: u32,
    /// How many had no answer of the one that was asked last.
    unanswered: u32,
    retry_at_ms: u64,
    /// Who was asked last, and in which term.
    asked: Option<(EndpointId, u64)>,
    /// An attempt may have reached somebody.
    maybe: Option<String>,
    last: String,
}

impl Submission {
    /// One with a deadline on the caller's clock, in milliseconds. The seed spreads the retries of those
    /// who fail together.
    pub fn new(ask: impl Into<Ask>, deadline_ms: u64, seed: u64) -> Self {
        Self {
            ask: ask.into(),
            deadline_ms,
            seed,
            outcome: None,
            leaderless_since_ms: None,
            failures: 0,
            unanswered: 0,
            retry_at_ms: 0,
            asked: None,
            maybe: None,
            last: String::from("there was no time"),
        }
    }

    /// What is to be submitted.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// Attempts that failed so far, and why the last one did.
    pub fn failures(&self) -> (u32, &str) {
        (self.failures, &self.last)
    }

    /// What to do now.
    pub fn next(&mut self, now_ms: u64, me: EndpointId, summary: &Summary) -> Step {
        if let Some(outcome) = &self.outcome {
            return Step::Done(Ok(outcome.clone()));
        }
        if now_ms >= self.deadline_ms {
            return self.give_up(self.last.clone());
        }
        let Some((leader, endpoint_id)) = summary.leader.clone() else {
            let since = *self.leaderless_since_ms.get_or_insert(now_ms);
            let limit = since.saturating_add(NO_LEADER_PATIENCE_MS).min(self.deadline_ms);
            if now_ms < limit {
                return Step::Wait { until_ms: limit };
            }
            let why = "no quorum: no leader is known; `blixard status` shows who can be reached";
            return self.give_up(why.to_owned());
        };
        self.leaderless_since_ms = None;
        // Somebody else leads now: there is nothing to wait for.
        let same = self.asked == Some((endpoint_id, summary.term));
        if same && now_ms < self.retry_at_ms {
            return Step::Wait { until_ms: self.retry_at_ms.min(self.deadline_ms) };
        }
        if !same {
            (self.asked, self.unanswered) = (Some((endpoint_id, summary.term)), 0);
        }
        let patience_ms = self.deadline_ms - now_ms;
        if endpoint_id == me {
            return Step::Propose { patience_ms };
        }
        // The request or its answer may be lost: the rest of the time is for asking again.
        let patience_ms = patience_ms.min(ANSWER.patience_ms(self.unanswered));
        Step::Forward { leader, endpoint_id, patience_ms }
    }

    /// Whether whom it was forwarded to has been replaced meanwhile: a dead leader's link ends later than its
    /// term. Then [`Submission::note_replaced`] and go on.
    pub fn is_replaced(&self, summary: &Summary) -> bool {
        let Some((asked, term)) = self.asked else { return false };
        summary.term > term && summary.leader.as_ref().is_some_and(|(_, id)| *id != asked)
    }

    /// Nobody waits for the one it was forwarded to any more.
    pub fn note_replaced(&mut self, now_ms: u64) {
        self.note(now_ms, AttemptEnd::Unknown { why: "the leader was replaced".to_owned() });
    }

    /// How an attempt ended.
    pub fn note(&mut self, now_ms: u64, end: AttemptEnd) {
        match end {
            AttemptEnd::Decided(outcome) => {
                self.outcome = Some(outcome);
                return;
            }
            AttemptEnd::NotLeader { .. } => "who was asked does not lead any more".clone_into(&mut self.last),
            AttemptEnd::NotNow(why) => self.last = why.to_string(),
            AttemptEnd::NotTaken { why } => self.last = why,
            AttemptEnd::Unknown { why } => {
                self.last.clone_from(&why);
                self.maybe = Some(why);
                self.unanswered = self.unanswered.saturating_add(1);
            }
        }
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ms = now_ms.saturating_add(SUBMIT.jittered_ms(self.failures, self.seed));
    }

    /// What is known of the write when its agent cannot go on with it.
    pub fn abandoned(&self, why: &str) -> SubmitError {
        match &self.maybe {
            Some(before) if before == why => SubmitError::Unknown(why.to_owned()),
            Some(before) => SubmitError::Unknown(format!("{before}; then: {why}")),
            None => SubmitError::Unavailable(why.to_owned()),
        }
    }

    fn give_up(&self, why: String) -> Step {
        Step::Done(Err(self.abandoned(&why)))
    }
}
