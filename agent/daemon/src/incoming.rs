//! What other nodes send, on its way to the host; and consoles, which are streams that the host does not see.

use std::net::SocketAddr;
use std::sync::Arc;

use blixard_model::EndpointId;
use blixard_model::wire::{JoinResponse, PeerRequest, PeerResponse};
use blixard_net::{Incoming, Reply};
use blixard_node::host::{Input, PeerCallId, RaftFrame};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::context::Agent;
use super::{codec, logs};

/// Runs until the network closes.
pub(crate) async fn route(agent: Arc<Agent>, mut incoming: mpsc::Receiver<Incoming>) {
    let answers = TaskTracker::new();
    while let Some(item) = incoming.recv().await {
        match item {
            Incoming::Raft { from, bytes } => agent.host.offer_raft(from, RaftFrame::Message(bytes)),
            Incoming::Snapshot { from, bytes } => agent.host.offer_raft(from, RaftFrame::Snapshot(bytes)),
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

/// A node that has a ticket asks to be let in.
async fn admit(
    agent: Arc<Agent>,
    (from, source): (EndpointId, Option<SocketAddr>),
    bytes: Bytes,
    reply: Reply,
) {
    let request = match codec::decode(&bytes) {
        Ok(request) => Box::new(request),
        Err(why) => {
            let why = format!("the request is not understood: {why}");
            return reply.send(codec::encode(&JoinResponse::Later { why, known_as: None }));
        }
    };
    let question = |call| Input::JoinAsked { call, from, source, request };
    respond(&agent, agent.host.join_asked(question).await, reply).await;
}

async fn answer(agent: Arc<Agent>, from: EndpointId, bytes: Bytes, reply: Reply) {
    let request = match codec::decode(&bytes) {
        Err(why) => {
            let response = PeerResponse::declined(format!("not understood: {why}"));
            return reply.send(codec::encode(&response));
        }
        Ok(PeerRequest::Logs { name, lines, follow }) => {
            return logs::serve_peer(&name, lines, follow, reply).await;
        }
        Ok(request) => Box::new(request),
    };
    let question = |call| Input::PeerAsked { call, from, request };
    respond(&agent, agent.host.peer_asked(question).await, reply).await;
}

/// Sends the host's answer, and tells the host when the asker does not wait for it any more.
async fn respond<T: Serialize>(
    agent: &Agent,
    (call, answer): (PeerCallId, oneshot::Receiver<T>),
    mut reply: Reply,
) {
    tokio::select! {
        answer = answer => {
            if let Ok(response) = answer {
                reply.send(codec::encode(&response));
            }
        }
        () = reply.abandoned() => {
            agent.host.input(Input::PeerGaveUp { call }).await;
        }
    }
}
