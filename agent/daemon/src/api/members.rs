//! `/v1/tickets`, `/v1/cluster/...` and the removal of nodes: who belongs to the cluster.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use blixard_core::ClusterState;
use blixard_core::ticket::hash_of;
use blixard_model::api::{Accepted, JoinCluster, JoinTaken, Listing, NewTicket, TicketMade, TicketView};
use blixard_model::ticket::TICKET_TTL_MS_DEFAULT;
use blixard_model::wire::{Contact, MembersAsk};
use blixard_model::{ClusterId, Command, NodeName, Outcome, RaftId, Refusal, Request, TicketId, VmsFate};
use blixard_net::ticket::{JoinTicket, TICKET_CONTACTS_MAX};
use serde::Deserialize;
use tokio::time::Instant;

use super::super::context::{Agent, Phase};
use super::super::submit::{SubmitError, submit};
use super::super::{clock, random};
use super::error::ApiError;
use super::routes::{Api, ApiResult, FreshQuery, patience, query, readable, request_id};

/// After the members have decided that this node leaves it learns it within this time, or is cut off from
/// them.
const LEARN_TIMEOUT: Duration = Duration::from_secs(5);

fn body<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> ApiResult<T> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::usage(format!("body: {error}")))
}

fn id<T: std::str::FromStr<Err = blixard_model::InvalidId>>(text: &str) -> ApiResult<T> {
    text.parse().map_err(|error: blixard_model::InvalidId| ApiError::usage(error.to_string()))
}

/// Makes a ticket. Its secret is in the answer and nowhere else.
pub(super) async fn create_ticket(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> ApiResult<Json<TicketMade>> {
    let NewTicket { ttl_ms, name } = body(&bytes)?;
    let ttl_ms = ttl_ms.unwrap_or(TICKET_TTL_MS_DEFAULT);
    let deadline = Instant::now() + patience(&headers)?;
    let agent = &api.agent;
    let (ticket, secret) = (random::ticket_id(), random::ticket_secret());
    let hash = hash_of(&secret);
    let command = Command::CreateTicket { id: ticket, name: name.clone(), hash, ttl_ms, at_ms: 0 };
    let request = Request { id: random::request_id(), command };
    done(submit(agent, request, deadline).await?)?;
    let running = readable(agent, true).await?;
    let looked = running.consensus.view(move |look| {
        let made = look.state.tickets.get(&ticket).map(|ticket| ticket.expires_ms);
        (made, contacts(look.node.peers(), look.state))
    });
    let (expires_ms, contacts) = looked.await.map_err(|error| SubmitError::Unknown(error.to_string()))?;
    let text = JoinTicket { cluster_id: running.cluster_id, id: ticket, secret, contacts }.encode();
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
    let running = readable(&agent, stale).await?;
    let now_ms = clock::wall_ms();
    let looked = running.consensus.view(move |look| {
        let view = |ticket: &blixard_model::TicketRecord| TicketView {
            id: ticket.id,
            name: ticket.name.clone(),
            state: ticket.state.clone(),
            expires_ms: ticket.expires_ms,
            expires_in_ms: ticket.expires_ms.saturating_sub(now_ms),
        };
        (look.state.tickets.values().map(view).collect(), look.raft.applied)
    });
    let (items, applied) = looked.await.map_err(|error| SubmitError::Unavailable(error.to_string()))?;
    Ok(Json(Listing { items, linearizable: !stale, applied }))
}

pub(super) async fn revoke_ticket(
    State(api): State<Api>,
    Path(ticket): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let ticket: TicketId = id(&ticket)?;
    let request_id = request_id(&headers)?;
    let deadline = Instant::now() + patience(&headers)?;
    let request = Request { id: request_id.clone(), command: Command::RevokeTicket { id: ticket } };
    let unchanged = done(submit(&api.agent, request, deadline).await?)?;
    Ok(Json(Accepted { request_id, node: None, unchanged }))
}

/// Whether it was so before.
fn done(outcome: Outcome) -> ApiResult<bool> {
    match outcome {
        Outcome::Done { unchanged, .. } => Ok(unchanged),
        Outcome::Admitted { .. } => Ok(false),
        Outcome::Refused { refusal } => Err(ApiError::refused(refusal)),
    }
}

/// Takes a ticket for this node, which is in no cluster. How it goes on is in the status.
pub(super) async fn join_cluster(
    State(Api { agent, .. }): State<Api>,
    bytes: Bytes,
) -> ApiResult<Json<JoinTaken>> {
    let JoinCluster { ticket: text } = body(&bytes)?;
    let ticket = JoinTicket::decode(&text).map_err(|error| ApiError::usage(error.to_string()))?;
    let refuse = |why: String| Err(ApiError::refused(Refusal::Invalid { why }));
    let phase = agent.phase.borrow().clone();
    match phase {
        Phase::Running(running) if running.cluster_id == ticket.cluster_id => {
            return refuse("this node is a member of that cluster already".to_owned());
        }
        Phase::Running(running) => return refuse(in_another_cluster(running.cluster_id)),
        Phase::Removed { cluster_id } => return refuse(in_another_cluster(cluster_id)),
        Phase::Forming { .. } if !agent.joins => {
            let why = "this node is on a list of `members` and is admitted because it is listed: for a \
                       ticket, take the list out of its configuration and write `join = true`";
            return refuse(why.to_owned());
        }
        Phase::Forming { .. } => {}
    }
    let answer = JoinTaken { cluster_id: ticket.cluster_id, id: ticket.id };
    let taken = tokio::task::block_in_place(|| agent.tickets.take(&agent.config.data_dir, &text, ticket));
    taken.map_err(|error| SubmitError::Unavailable(format!("the ticket can not be kept: {error}")))?;
    Ok(Json(answer))
}

fn in_another_cluster(cluster_id: ClusterId) -> String {
    format!(
        "this node's store belongs to cluster {}: a node joins with an empty store. To give that cluster up \
         here, stop blixard.service, write `join = true` into the configuration, move store.redb out of the \
         data directory and start it again",
        cluster_id.short()
    )
}

/// This node leaves its cluster for good.
pub(super) async fn leave_cluster(State(api): State<Api>, headers: HeaderMap) -> ApiResult<Json<Accepted>> {
    let running = readable(&api.agent, true).await?;
    let raft_id = running.consensus.summary().borrow().raft_id;
    leave(&api.agent, raft_id, &headers).await
}

async fn leave(agent: &Agent, raft_id: RaftId, headers: &HeaderMap) -> ApiResult<Json<Accepted>> {
    let request_id = request_id(headers)?;
    let deadline = Instant::now() + patience(headers)?;
    let ask = MembersAsk::Remove { raft_id, force: false, vms: None };
    let mut phase = agent.phase.subscribe();
    let is_removed = |phase: &Phase| matches!(phase, Phase::Removed { .. });
    let accepted = Json(Accepted { request_id, node: Some(agent.name().clone()), unchanged: false });
    // Once it is done nobody talks to this node any more: the answer may be lost, the removal is learned.
    let ended = tokio::select! {
        ended = submit(agent, ask, deadline) => ended,
        _removed = phase.wait_for(is_removed) => return Ok(accepted),
    };
    match ended {
        Ok(outcome) => {
            done(outcome)?;
            Ok(accepted)
        }
        Err(error) => {
            let learned = tokio::time::timeout(LEARN_TIMEOUT, phase.wait_for(is_removed)).await;
            if matches!(learned, Ok(Ok(_))) { Ok(accepted) } else { Err(error.into()) }
        }
    }
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
        return Err(ApiError::refused(Refusal::Invalid { why }));
    }
    let agent = &api.agent;
    let deadline = Instant::now() + patience(&headers)?;
    let id = request_id(&headers)?;
    let mut standing = look_up(agent, &name).await?;
    if let Standing::Member(raft_id) = standing
        && (vms.is_some() || name != *agent.name())
    {
        let ended = done(submit(agent, MembersAsk::Remove { raft_id, force, vms }, deadline).await?)?;
        if !ended {
            return Ok(Json(Accepted { request_id: id, node: Some(name), unchanged: false }));
        }
        // It had left when it was looked at: because an operator said so, or because its store was lost, and
        // then its VMs are still there, or it is back already.
        standing = look_up(agent, &name).await?;
        if let Standing::Member(_) = standing {
            let why = format!(
                "the place that {name} had was let go meanwhile because its store was lost, and it has got \
                 another one: ask again if that is to go"
            );
            return Err(ApiError::refused(Refusal::Membership { why }));
        }
    }
    let outcome = match (standing, vms) {
        // Whatever it was asked with: once it is out it hears of it only as a member that leaves does.
        (Standing::Member(raft_id), _) => return leave(agent, raft_id, &headers).await,
        (Standing::Unknown, _) => return Err(ApiError::refused(Refusal::NodeNotFound { node: name })),
        (Standing::Gone(Err(refusal)), None) => return Err(ApiError::refused(refusal)),
        (Standing::Gone(Err(_)), Some(VmsFate::Delete)) => {
            let command = Command::ForgetVms { node: name.clone() };
            submit(agent, Request { id: id.clone(), command }, deadline).await?
        }
        (Standing::Gone(_), _) => Outcome::unchanged(None),
    };
    Ok(Json(Accepted { request_id: id, node: Some(name), unchanged: done(outcome)? }))
}

/// What the log knows of a node's name.
enum Standing {
    Member(RaftId),
    /// It is no member any more; which VMs are still placed there.
    Gone(Result<(), Refusal>),
    Unknown,
}

async fn look_up(agent: &Agent, name: &NodeName) -> ApiResult<Standing> {
    let running = readable(agent, false).await?;
    let wanted = name.clone();
    let looked = running.consensus.view(move |look| standing(look.state, &wanted));
    Ok(looked.await.map_err(|error| SubmitError::Unavailable(error.to_string()))?)
}

fn standing(state: &ClusterState, name: &NodeName) -> Standing {
    let placed = state.check_no_vms(name);
    // Who was only given up when a cluster was recovered may come back from the lists.
    let was_removed = state.removed.values().any(|removed| removed.name == *name && !removed.given_up);
    match state.member_by_name(name) {
        Some(member) => Standing::Member(member.raft_id),
        None if placed.is_err() || was_removed => Standing::Gone(placed),
        None => Standing::Unknown,
    }
}
