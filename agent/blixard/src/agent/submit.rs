//! Writes and fresh reads from any node: forwarded to the leader, tried again under the same request id until
//! the deadline, and honest about what is not known.

use std::time::Duration;

use blixard_model::wire::{PeerRequest, PeerResponse, ProposeResult};
use blixard_model::{EndpointId, NodeName, Outcome, Request};
use tokio::time::{Instant, sleep, timeout_at};

use super::context::{Agent, Running};
use super::peer_call::{AskError, ask};

/// Without a leader for this long a request is given up: longer than any election.
const NO_LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Added to the forwarded deadline, so that the leader's own answer arrives before ours ends.
const FORWARD_MARGIN: Duration = Duration::from_millis(300);

/// Why a request has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubmitError {
    /// Nothing happened.
    #[error("nothing was changed: {0}")]
    Unavailable(String),
    /// It may or may not happen; the same request id may be sent again.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// What one attempt gave.
enum Attempt {
    Done(Outcome),
    /// Nothing happened in this attempt.
    Nothing(String),
    /// It may have happened.
    Maybe(String),
}

/// Submits a write and waits until it is committed, at most until the deadline.
///
/// # Errors
/// See [`SubmitError`].
pub(crate) async fn submit(
    agent: &Agent,
    request: &Request,
    deadline: Instant,
) -> Result<Outcome, SubmitError> {
    let running = running(agent)?;
    let mut maybe = None;
    let mut last = String::from("there was no time");
    loop {
        let give_up = |why: String, maybe: Option<String>| match maybe {
            Some(before) => SubmitError::Unknown(format!("{before}; then: {why}")),
            None => SubmitError::Unavailable(why),
        };
        if Instant::now() >= deadline {
            return Err(give_up(last, maybe));
        }
        if let Err(why) = wait_for_leader(&running, deadline).await {
            return Err(give_up(why, maybe));
        }
        match attempt(agent, &running, request, deadline).await {
            Attempt::Done(outcome) => return Ok(outcome),
            Attempt::Nothing(why) => last = why,
            Attempt::Maybe(why) => {
                last.clone_from(&why);
                maybe = Some(why);
            }
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Waits until everything acknowledged before is applied here.
///
/// # Errors
/// [`SubmitError::Unavailable`]: no quorum confirmed it.
pub(crate) async fn read_barrier(agent: &Agent, deadline: Instant) -> Result<Running, SubmitError> {
    let running = running(agent)?;
    wait_for_leader(&running, deadline).await.map_err(SubmitError::Unavailable)?;
    let limit = deadline.min(Instant::now() + NO_LEADER_PATIENCE);
    match timeout_at(limit, running.consensus.read_barrier()).await {
        Ok(true) => Ok(running),
        Ok(false) => {
            Err(SubmitError::Unavailable("too many reads wait already, or the agent is stopping".to_owned()))
        }
        Err(_) => Err(SubmitError::Unavailable(
            "no quorum confirmed the read; --stale shows what this node knows".to_owned(),
        )),
    }
}

fn running(agent: &Agent) -> Result<Running, SubmitError> {
    agent.running().ok_or_else(|| {
        let why = "this node is in no cluster yet: `blixard status` says whom it waits for";
        SubmitError::Unavailable(why.to_owned())
    })
}

async fn wait_for_leader(running: &Running, deadline: Instant) -> Result<(), String> {
    let mut summary = running.consensus.summary();
    let limit = deadline.min(Instant::now() + NO_LEADER_PATIENCE);
    let led = timeout_at(limit, summary.wait_for(|summary| summary.leader.is_some()));
    match led.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err("the agent is stopping".to_owned()),
        Err(_) => Err("no quorum: no leader is known; `blixard status` shows who can be reached".to_owned()),
    }
}

async fn attempt(agent: &Agent, running: &Running, request: &Request, deadline: Instant) -> Attempt {
    let summary = running.consensus.summary().borrow().clone();
    let Some((leader, endpoint_id)) = summary.leader else {
        return Attempt::Nothing("no leader is known".to_owned());
    };
    let patience = deadline.saturating_duration_since(Instant::now());
    let result = if endpoint_id == agent.endpoint_id {
        running.consensus.propose(request.clone(), patience).await
    } else {
        let mut changes = running.consensus.summary();
        let replaced = changes.wait_for(|now| {
            now.term > summary.term && now.leader.as_ref().is_some_and(|(_, id)| *id != endpoint_id)
        });
        tokio::select! {
            result = forward(agent, (&leader, endpoint_id), request, patience) => result,
            // A dead leader's link ends later than its term: ask the next one, under the same id.
            _ = replaced => ProposeResult::Unknown { why: format!("{leader} was replaced") },
        }
    };
    match result {
        ProposeResult::Applied { outcome } => Attempt::Done(outcome),
        ProposeResult::NotLeader { .. } => Attempt::Nothing(format!("{leader} does not lead any more")),
        ProposeResult::Rejected { why } => Attempt::Nothing(why),
        ProposeResult::Unknown { why } => Attempt::Maybe(why),
    }
}

async fn forward(
    agent: &Agent,
    (leader, endpoint_id): (&NodeName, EndpointId),
    request: &Request,
    patience: Duration,
) -> ProposeResult {
    let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    let question = PeerRequest::Propose { request: request.clone(), timeout_ms };
    match ask(&agent.net, endpoint_id, &question, patience + FORWARD_MARGIN).await {
        Ok(PeerResponse::Proposed { result }) => result,
        Ok(PeerResponse::Declined { why }) => ProposeResult::Rejected { why },
        Ok(other) => ProposeResult::Unknown { why: format!("{leader} answered {other:?}") },
        Err(AskError::NotSent(why)) => ProposeResult::Rejected { why: format!("{leader}: {why}") },
        Err(AskError::Unknown(why)) => ProposeResult::Unknown { why: format!("{leader}: {why}") },
    }
}
