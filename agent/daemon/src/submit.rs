//! Writes and fresh reads from any node: [`Submission`]s carried out.

use std::time::Duration;

use blixard_model::wire::{PeerResponse, ProposeResult};
use blixard_model::{EndpointId, NodeName, Outcome};
use blixard_node::{Ask, Step, Submission};
use tokio::time::{Instant, timeout_at};

use super::context::{Agent, Running};
use super::peer_call::{AskError, ask};
use super::random;
use super::retries::Failed;

pub(crate) use blixard_node::SubmitError;

/// Without a leader for this long a read is given up.
const NO_LEADER_PATIENCE: Duration = Duration::from_millis(blixard_node::NO_LEADER_PATIENCE_MS);
/// Added to the forwarded deadline, so that the leader's own answer arrives before ours ends.
const FORWARD_MARGIN: Duration = Duration::from_millis(300);

/// Brings a write or a change of the members to the leader and waits until it is committed, at most until the
/// deadline.
///
/// # Errors
/// See [`SubmitError`].
pub(crate) async fn submit(
    agent: &Agent,
    ask: impl Into<Ask>,
    deadline: Instant,
) -> Result<Outcome, SubmitError> {
    let ask = ask.into();
    let running = running(agent)?;
    let mut summary = running.consensus.summary();
    let begun = Instant::now();
    let now_ms = || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let deadline_ms = u64::try_from((deadline - begun).as_millis()).unwrap_or(u64::MAX);
    let mut submission = Submission::new(ask.clone(), deadline_ms, random::u64());
    let shown = agent.retries.write();
    loop {
        let now = summary.borrow_and_update().clone();
        match submission.next(now_ms(), agent.endpoint_id, &now) {
            Step::Done(end) => return end,
            Step::Wait { until_ms } => {
                let until = begun + Duration::from_millis(until_ms);
                if let (failures @ 1.., why) = submission.failures() {
                    shown.failed(Failed { failures, next_try: Some(until), why: why.to_owned() });
                }
                if let Ok(Err(_)) = timeout_at(until, summary.changed()).await {
                    return Err(submission.abandoned("the agent is stopping"));
                }
            }
            Step::Propose { patience_ms } => {
                let patience = Duration::from_millis(patience_ms);
                let result = running.consensus.ask(ask.clone(), patience).await;
                submission.note(now_ms(), result);
            }
            Step::Forward { leader, endpoint_id, patience_ms } => {
                let patience = Duration::from_millis(patience_ms);
                let mut changes = running.consensus.summary();
                let replaced = changes.wait_for(|now| submission.is_replaced(now));
                let forwarded = tokio::select! {
                    result = forward(agent, (&leader, endpoint_id), &ask, patience) => Some(result),
                    // A dead leader's link ends later than its term: ask the next one, under the same id.
                    _ = replaced => None,
                };
                match forwarded {
                    Some(result) => submission.note(now_ms(), result),
                    None => submission.note_replaced(now_ms()),
                }
            }
        }
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

async fn forward(
    agent: &Agent,
    (leader, endpoint_id): (&NodeName, EndpointId),
    what: &Ask,
    patience: Duration,
) -> ProposeResult {
    let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    match ask(&agent.net, endpoint_id, &what.to_leader(timeout_ms), patience + FORWARD_MARGIN).await {
        Ok(PeerResponse::Proposed { result }) => result,
        Ok(PeerResponse::Declined { why }) => ProposeResult::Rejected { why },
        Ok(other) => ProposeResult::Unknown { why: format!("{leader} answered {other:?}") },
        Err(AskError::NotSent(why)) => ProposeResult::Rejected { why: format!("{leader}: {why}") },
        Err(AskError::Unknown(why)) => ProposeResult::Unknown { why: format!("{leader}: {why}") },
    }
}
