//! Answers other nodes and hands Raft's messages on.

use std::sync::Arc;
use std::time::Duration;

use blixard_model::EndpointId;
use blixard_model::wire::{AgedReport, PeerRequest, PeerResponse, ProposeResult};
use blixard_net::{Incoming, Reply};
use blixard_node::Ask;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::context::Agent;
use super::logs;
use super::peer_call::{decode, encode};

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
            // None comes while the agent does not serve them.
            Incoming::Join { reply, .. } => reply.not_taken("this node lets nobody in by a ticket"),
        }
    }
    answers.close();
    answers.wait().await;
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
            PeerResponse::Identity { me: agent.identity(Some(me)).await }
        }
        PeerRequest::Propose { request, timeout_ms } => lead(agent, request.into(), timeout_ms).await,
        PeerRequest::ChangeMembers { change, timeout_ms } => lead(agent, change.into(), timeout_ms).await,
        PeerRequest::Report { aged } => note_report(agent, from, aged).await,
        PeerRequest::Reports => PeerResponse::Reports { reports: agent.noted_reports() },
        PeerRequest::Logs { .. } => PeerResponse::Declined { why: "answered as a stream".to_owned() },
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
