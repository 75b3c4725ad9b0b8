//! Answers other nodes and hands Raft's messages on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use blixard_model::wire::{AgedReport, JoinRequest, JoinResponse, PeerRequest, PeerResponse, ProposeResult};
use blixard_model::{EndpointId, Outcome};
use blixard_net::{Incoming, Reply};
use blixard_node::{Ask, joining};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::context::Agent;
use super::logs;
use super::peer_call::{decode, encode};
use super::submit::submit;

/// How long the leader may take to decide on a node with a ticket: less than the network waits for the
/// answer.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(24);
/// Longest time a forwarded write is waited for here.
const PROPOSE_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Runs until the network closes.
pub(crate) async fn route(agent: Arc<Agent>, mut incoming: mpsc::Receiver<Incoming>) {
    let answers = TaskTracker::new();
    while let Some(item) = incoming.recv().await {
        match item {
            Incoming::Raft { from, bytes } => {
                if let Some(running) = agent.running() {
                    running.consensus.offer_raft(from, bytes, false);
                }
            }
            Incoming::Snapshot { from, bytes } => {
                if let Some(running) = agent.running() {
                    running.consensus.offer_raft(from, bytes, true);
                }
            }
            Incoming::Request { from, bytes, reply } => {
                // The network bounds how many requests of a peer are under way.
                answers.spawn(answer(Arc::clone(&agent), from, bytes, reply));
            }
            Incoming::Join { from, source, bytes, reply } => {
                // The network bounds these as well, and how long they may take.
                answers.spawn(admit(Arc::clone(&agent), (from, source), bytes, reply));
            }
        }
    }
    answers.close();
    answers.wait().await;
}

/// A stranger asks to be let in: the leader decides.
async fn admit(
    agent: Arc<Agent>,
    (from, source): (EndpointId, Option<SocketAddr>),
    bytes: bytes::Bytes,
    mut reply: Reply,
) {
    let response = tokio::select! {
        response = decide(&agent, from, source, &bytes) => response,
        () = reply.abandoned() => return,
    };
    reply.send(encode(&response));
}

async fn decide(agent: &Agent, from: EndpointId, source: Option<SocketAddr>, bytes: &[u8]) -> JoinResponse {
    let later = |why: String| JoinResponse::Later { why, known_as: None };
    let request: JoinRequest = match serde_json::from_slice(bytes) {
        Ok(request) => request,
        Err(error) => return later(format!("the request is not understood: {error}")),
    };
    if request.node.endpoint_id != from {
        return later("the identity is another endpoint's".to_owned());
    }
    let Some(running) = agent.running() else { return later("this node is in no cluster".to_owned()) };
    let (name, ticket) = (request.node.name.clone(), request.ticket);
    let place = source.map_or_else(|| "an unknown address".to_owned(), |source| source.to_string());
    tracing::info!(PEER = %from.short(), "{name} ({place}) asks to be let in with ticket {ticket}");
    let ask = match running.consensus.view(move |view| joining::ask(view.state, request)).await {
        Ok(Ok(ask)) => ask,
        Ok(Err(at_once)) => return *at_once,
        Err(error) => return later(error.to_string()),
    };
    let end = submit(agent, ask, Instant::now() + ADMIT_TIMEOUT).await;
    match &end {
        Ok(Outcome::Admitted { raft_id }) => {
            tracing::info!(PEER = %from.short(), "{name} was let in with ticket {ticket}: raft id {raft_id}");
        }
        Ok(Outcome::Refused { refusal }) => {
            tracing::warn!(PEER = %from.short(), "{name} ({place}) was not let in: {refusal}");
        }
        Ok(Outcome::Done { .. }) | Err(_) => {}
    }
    match running.consensus.view(move |view| joining::answer(view.state, from, end)).await {
        Ok(response) => response,
        Err(error) => later(error.to_string()),
    }
}

async fn answer(agent: Arc<Agent>, from: EndpointId, bytes: bytes::Bytes, mut reply: Reply) {
    let response = match decode(&bytes) {
        Err(why) => PeerResponse::Declined { why: format!("not understood: {why}") },
        Ok(PeerRequest::Logs { name, lines, follow }) => {
            return logs::serve_peer(&name, lines, follow, reply).await;
        }
        Ok(request) => {
            tokio::select! {
                response = respond(&agent, from, request) => response,
                () = reply.abandoned() => return,
            }
        }
    };
    reply.send(encode(&response));
}

async fn respond(agent: &Agent, from: EndpointId, request: PeerRequest) -> PeerResponse {
    match request {
        PeerRequest::Identify { me } => {
            if me.endpoint_id != from {
                return PeerResponse::Declined { why: "the identity is another endpoint's".to_owned() };
            }
            match agent.running() {
                Some(running) => running.consensus.offer_identity(me.clone(), None),
                // An error means that nobody is forming yet, or any more.
                None => _ = agent.askers.send(me.clone()).is_err(),
            }
            PeerResponse::Identity { me: Box::new(agent.identity(Some(me)).await) }
        }
        PeerRequest::Propose { request, timeout_ms } => lead(agent, request.into(), timeout_ms).await,
        PeerRequest::ChangeMembers { change, timeout_ms } => lead(agent, change.into(), timeout_ms).await,
        PeerRequest::Report { aged } => note_report(agent, from, aged).await,
        PeerRequest::Reports => PeerResponse::Reports { reports: agent.noted_reports() },
        PeerRequest::Progress => progress(agent).await,
        PeerRequest::Logs { .. } => PeerResponse::Declined { why: "answered as a stream".to_owned() },
    }
}

/// What this node knows of the members as leader.
async fn progress(agent: &Agent) -> PeerResponse {
    let Some(running) = agent.running() else {
        return PeerResponse::Declined { why: "this node is in no cluster".to_owned() };
    };
    match running.consensus.view(|view| view.node.progress_report()).await {
        Ok(Some(progress)) => PeerResponse::Progress { progress },
        Ok(None) => PeerResponse::Declined { why: "this node does not lead".to_owned() },
        Err(error) => PeerResponse::Declined { why: error.to_string() },
    }
}

/// A node reports of itself only.
async fn note_report(agent: &Agent, from: EndpointId, aged: AgedReport) -> PeerResponse {
    let Some(running) = agent.running() else {
        return PeerResponse::Declined { why: "this node is in no cluster".to_owned() };
    };
    let name = aged.report.node.clone();
    let theirs = running
        .consensus
        .view(move |view| view.state.member_by_endpoint(from).is_some_and(|member| member.name == name));
    match theirs.await {
        Ok(true) => {
            agent.note_report(aged);
            PeerResponse::Noted
        }
        Ok(false) => PeerResponse::Declined { why: "the report is of another node".to_owned() },
        Err(error) => PeerResponse::Declined { why: error.to_string() },
    }
}

async fn lead(agent: &Agent, ask: Ask, timeout_ms: u64) -> PeerResponse {
    let Some(running) = agent.running() else {
        return PeerResponse::Declined { why: "this node is in no cluster".to_owned() };
    };
    // Dropping the proposal when the asker is gone does no harm: it is known by its id.
    let patience = Duration::from_millis(timeout_ms).min(PROPOSE_TIMEOUT_MAX);
    let result: ProposeResult = running.consensus.ask(ask, patience).await;
    PeerResponse::Proposed { result }
}
