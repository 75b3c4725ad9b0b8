//! `/v1/tickets`, `/v1/cluster/...` and the removal of nodes: who belongs to the cluster.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use blixard_core::ticket::hash_of;
use blixard_model::api::{Accepted, JoinCluster, JoinTaken, Listing, NewTicket, TicketMade, TicketView};
use blixard_model::ticket::TICKET_TTL_MS_DEFAULT;
use blixard_model::{
    Contact, JoinTicket, MembersAsk, NodeName, Outcome, RaftId, Refusal, TicketId, VmsFate, WriteAsk,
    WriteRequest,
};
use blixard_net::ticket::{self, TICKET_CONTACTS_MAX};
use blixard_node::SubmitError;
use blixard_node::host::{JoinRefusal, NodeRemoval, Want};
use serde::Deserialize;

use super::super::context::Agent;
use super::super::{clock, random};
use super::error::ApiError;
use super::request::{Api, ApiResult, FreshQuery, body, id, patience, query, readable, request_id};

/// Makes a ticket. Its secret is in the answer and nowhere else.
pub(super) async fn create_ticket(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> ApiResult<Json<TicketMade>> {
    let NewTicket { ttl_ms, name } = body(&bytes)?;
    let ttl_ms = ttl_ms.unwrap_or(TICKET_TTL_MS_DEFAULT);
    let patience = patience(&headers)?;
    let agent = &api.agent;
    let (ticket, secret) = (random::ticket_id(), random::ticket_secret());
    let hash = hash_of(&secret);
    let ask = WriteAsk::CreateTicket { id: ticket, name: name.clone(), hash, ttl_ms };
    let request = WriteRequest { id: random::request_id(), ask };
    done(agent.host.change(request, patience).await?)?;
    let looked = agent.host.look_at_member(move |member| {
        let state = member.state();
        let made = state.tickets.get(&ticket).map(|ticket| ticket.expires_ms);
        (state.cluster_id(), made, contacts(member.replica().peers(), state))
    });
    let (cluster_id, expires_ms, contacts) =
        looked.await.map_err(|error| SubmitError::Unknown(error.to_string()))?;
    let text = ticket::encode(&JoinTicket { cluster_id, id: ticket, secret, contacts });
    // This node may apply it a moment after the leader did.
    let expires_ms = expires_ms.unwrap_or_else(|| clock::wall_ms().saturating_add(ttl_ms));
    Ok(Json(TicketMade { id: ticket, ticket: text, name, expires_ms }))
}

/// Members that a new one may ask, those that vote first.
fn contacts(peers: Vec<Contact>, state: &blixard_core::ClusterState) -> Vec<Contact> {
    let votes = |contact: &Contact| {
        let member = state.member_by_endpoint(contact.endpoint_id);
        member.is_some_and(|member| member.role == blixard_model::Role::Voter)
    };
    let mut contacts = peers;
    contacts.retain(|contact| !contact.addresses.is_empty());
    contacts.sort_by_key(|contact| !votes(contact));
    contacts.truncate(TICKET_CONTACTS_MAX);
    contacts
}

pub(super) async fn list_tickets(
    State(Api { agent, .. }): State<Api>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<Listing<TicketView>>> {
    let FreshQuery { stale } = query(parsed)?;
    readable(&agent, stale).await?;
    let now_ms = clock::wall_ms();
    let looked = agent.host.look_at_member(move |member| {
        let view = |ticket: &blixard_model::TicketRecord| TicketView {
            id: ticket.id,
            name: ticket.name.clone(),
            state: ticket.state.clone(),
            expires_ms: ticket.expires_ms,
            expires_in_ms: ticket.expires_ms.saturating_sub(now_ms),
        };
        (member.state().tickets.values().map(view).collect(), member.replica().summary().applied)
    });
    let (items, applied) = looked.await.map_err(SubmitError::from)?;
    Ok(Json(Listing { items, linearizable: !stale, applied, disarmed: None }))
}

pub(super) async fn revoke_ticket(
    State(api): State<Api>,
    Path(ticket): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let ticket: TicketId = id(&ticket)?;
    let request_id = request_id(&headers)?;
    let patience = patience(&headers)?;
    let request = WriteRequest { id: request_id.clone(), ask: WriteAsk::RevokeTicket { id: ticket } };
    let unchanged = done(api.agent.host.change(request, patience).await?)?;
    Ok(Json(Accepted { request_id, node: None, unchanged }))
}

/// Whether it was so before.
pub(super) fn done(outcome: Outcome) -> ApiResult<bool> {
    match outcome {
        Outcome::Done { unchanged, .. } => Ok(unchanged),
        Outcome::Refused { refusal } => Err(ApiError::refused(refusal)),
    }
}

/// Takes a ticket for this node, which is in no cluster. How it goes on is in the status.
pub(super) async fn join_cluster(
    State(Api { agent, .. }): State<Api>,
    bytes: Bytes,
) -> ApiResult<Json<JoinTaken>> {
    let JoinCluster { ticket: text } = body(&bytes)?;
    let ticket = ticket::decode(&text).map_err(|error| ApiError::usage(error.to_string()))?;
    let answer = JoinTaken { cluster_id: ticket.cluster_id, id: ticket.id };
    let want = Want::Join { ticket: Box::new(ticket), text };
    match agent.host.join(want).await? {
        Ok(()) => Ok(Json(answer)),
        Err(refusal @ (JoinRefusal::NotKept { .. } | JoinRefusal::TooLate)) => {
            Err(SubmitError::Unavailable(refusal.to_string()).into())
        }
        Err(refusal) => Err(ApiError::refused(Refusal::Invalid { why: refusal.to_string().into() })),
    }
}

/// This node leaves its cluster for good.
pub(super) async fn leave_cluster(State(api): State<Api>, headers: HeaderMap) -> ApiResult<Json<Accepted>> {
    let looked = api.agent.host.look_at_member(|member| member.replica().summary().raft_id).await;
    leave(&api.agent, looked.map_err(SubmitError::from)?, &headers).await
}

async fn leave(agent: &Agent, raft_id: RaftId, headers: &HeaderMap) -> ApiResult<Json<Accepted>> {
    let request_id = request_id(headers)?;
    let ask = MembersAsk::Remove { raft_id, force: false, vms: None };
    done(agent.host.change(ask, patience(headers)?).await?)?;
    Ok(Json(Accepted { request_id, node: Some(agent.name().clone()), unchanged: false }))
}

/// How a node is removed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    #[serde(default)]
    force: bool,
    #[serde(default)]
    vms: Option<VmsFate>,
}

pub(super) async fn remove_node(
    State(api): State<Api>,
    Path(name): Path<String>,
    parsed: Result<Query<RemoveQuery>, QueryRejection>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let RemoveQuery { force, vms } = query(parsed)?;
    let name: NodeName = id(&name)?;
    if vms.is_some() && !force {
        let why = "what becomes of VMs is for nodes that will not come back: --vms needs --force".to_owned();
        return Err(ApiError::refused(Refusal::Invalid { why: why.into() }));
    }
    let id = request_id(&headers)?;
    let removal = NodeRemoval { name: name.clone(), force, vms, id: id.clone() };
    let outcome = api.agent.host.remove_node(removal, patience(&headers)?).await?;
    Ok(Json(Accepted { request_id: id, node: Some(name), unchanged: done(outcome)? }))
}
