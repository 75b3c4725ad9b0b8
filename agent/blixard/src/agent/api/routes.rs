//! The routes; their table is in `blixard_model::api`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use blixard_model::api::{
    Accepted, CreateVm, Listing, NodePhase, NodeView, REQUEST_ID_HEADER, RetryView, StatusView,
    TIMEOUT_HEADER, VmView,
};
use blixard_model::wire::{AgedReport, PeerRequest, PeerResponse};
use blixard_model::{Command, Desired, EndpointId, NodeName, Outcome, Refusal, Request, RequestId, VmName};
use blixard_net::{TransportDown, TransportState};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::context::{Agent, Phase, Running};
use super::super::peer_call::ask;
use super::super::retries::Retrying;
use super::super::submit::{SubmitError, read_barrier, submit};
use super::super::{logs, random, scrape, views};
use super::backup::backup;
use super::error::ApiError;
use super::members;

/// How long a write may take unless the client says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest time a write may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// How long the leader may take to tell what everybody reports.
const REPORTS_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a node that was removed and has an empty store is not let in.
const REFUSED_AS_REMOVED: &str = "an operator removed it from the cluster; to let it in again, take \
                                  `members` out of its configuration, write `join = true`, and give it a \
                                  ticket";
/// What a removed node has to say.
const REMOVED: &str = "an operator removed this node from the cluster; its VMs are not looked after any \
                       more. To use it again, stop blixard.service, move store.redb out of the data \
                       directory, and let it join with a ticket";

pub(super) type ApiResult<T> = Result<T, ApiError>;

#[derive(Clone)]
pub(super) struct Api {
    pub(super) agent: Arc<Agent>,
    stop: CancellationToken,
}

pub(super) fn router(agent: Arc<Agent>, stop: CancellationToken) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/nodes", get(list_nodes))
        .route("/v1/vms", get(list_vms).post(create_vm))
        .route("/v1/vms/{name}", get(show_vm).delete(delete_vm))
        .route("/v1/vms/{name}/start", post(start_vm))
        .route("/v1/vms/{name}/stop", post(stop_vm))
        .route("/v1/vms/{name}/logs", get(vm_logs))
        .route("/v1/nodes/{name}", axum::routing::delete(members::remove_node))
        .route("/v1/tickets", get(members::list_tickets).post(members::create_ticket))
        .route("/v1/tickets/{id}", axum::routing::delete(members::revoke_ticket))
        .route("/v1/cluster/join", post(members::join_cluster))
        .route("/v1/cluster/leave", post(members::leave_cluster))
        .route("/v1/backup", get(backup))
        .fallback(|| async { ApiError::usage("no such path: see the table of the local API") })
        .method_not_allowed_fallback(|| async { ApiError::usage("no such method on this path") })
        .with_state(Api { agent, stop })
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FreshQuery {
    #[serde(default)]
    pub(super) stale: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    lines: Option<u32>,
}

pub(super) fn query<T>(parsed: Result<Query<T>, QueryRejection>) -> ApiResult<T> {
    parsed.map(|Query(query)| query).map_err(|error| ApiError::usage(error.body_text()))
}

fn vm_name(text: &str) -> ApiResult<VmName> {
    text.parse().map_err(|error: blixard_model::InvalidId| ApiError::usage(error.to_string()))
}

async fn status(State(Api { agent, .. }): State<Api>) -> ApiResult<Json<StatusView>> {
    let mut view = StatusView {
        node: agent.name().clone(),
        endpoint_id: agent.endpoint_id,
        store_id: agent.store_id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_name: agent.config.cluster_name.clone(),
        phase: NodePhase::Forming,
        waiting_for: Vec::new(),
        cluster_id: None,
        leader: None,
        quorum: false,
        term: 0,
        commit: 0,
        applied: 0,
        last_term: 0,
        last_index: 0,
        members: Vec::new(),
        vms: 0,
        warnings: network_warnings(&agent),
        retrying: retrying(&agent).await,
        ticket_problem: None,
    };
    let phase = agent.phase.borrow().clone();
    match phase {
        Phase::Forming { waiting_for, .. } => {
            view.waiting_for = waiting_for;
            view.ticket_problem = agent.tickets.problem();
        }
        Phase::Running(running) => fill_status(&agent, &running, &mut view).await?,
        Phase::Removed { cluster_id } => {
            view.phase = NodePhase::Removed;
            view.cluster_id = Some(cluster_id);
            view.waiting_for = vec![REMOVED.to_owned()];
        }
    }
    Ok(Json(view))
}

async fn retrying(agent: &Agent) -> Vec<RetryView> {
    let names = agent.peer_names().await;
    let view = |retrying: Retrying| RetryView {
        what: retrying.what,
        peer: retrying.peer.and_then(|peer| names.get(&peer).cloned()),
        failures: retrying.failures,
        next_try_in_ms: retrying.next_try_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        last_error: retrying.last_error,
    };
    agent.retries.list(&agent.net).into_iter().map(view).collect()
}

async fn metrics(State(Api { agent, .. }): State<Api>) -> Response {
    match scrape::text(&agent).await {
        Ok(text) => ([(header::CONTENT_TYPE, scrape::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn fill_status(agent: &Agent, running: &Running, view: &mut StatusView) -> ApiResult<()> {
    let summary = running.consensus.summary().borrow().clone();
    let reachable = reachable(agent);
    let declared = agent.declared.clone();
    let looked = running.consensus.view(move |look| {
        let nodes = views::nodes(look.state, look.raft, &reachable);
        let warnings = views::warnings(look.state, &declared, &look.node.strangers());
        (nodes, look.state.vms.len(), warnings, look.raft.clone())
    });
    let (members, vms, warnings, raft) =
        looked.await.map_err(|error| SubmitError::Unavailable(error.to_string()))?;
    view.phase = if summary.is_member { NodePhase::Member } else { NodePhase::Joining };
    view.cluster_id = Some(running.cluster_id);
    view.leader = summary.leader.map(|(name, _)| name);
    view.quorum = view.leader.is_some();
    view.term = raft.term;
    view.commit = raft.commit;
    view.applied = raft.applied;
    (view.last_term, view.last_index) = raft.last;
    view.members = members;
    view.vms = vms;
    view.warnings.extend(warnings);
    Ok(())
}

/// No network at all, and peers that answer and refuse: an operator has to mend something.
fn network_warnings(agent: &Agent) -> Vec<String> {
    let missing = match &*agent.net.transport().borrow() {
        TransportState::Down { reason, .. } if *reason != TransportDown::Starting => {
            Some(format!("this node has no network: {reason}"))
        }
        _ => None,
    };
    let links = agent.net.links();
    let links = links.borrow();
    let refused = links.iter().filter_map(|(id, link)| {
        let blixard_net::LinkState::Down { reason, .. } = link else { return None };
        let why = match reason {
            blixard_net::DownReason::Refused(why) => why.as_str(),
            blixard_net::DownReason::Removed(_) => REFUSED_AS_REMOVED,
            _ => return None,
        };
        let name = agent.declared.iter().find(|declared| declared.endpoint_id == *id);
        let name = name.map_or_else(|| id.short(), |declared| declared.name.to_string());
        Some(format!("{name} refuses this node: {why}"))
    });
    missing.into_iter().chain(refused).collect()
}

fn reachable(agent: &Agent) -> BTreeSet<EndpointId> {
    let links = agent.net.links();
    let up: Vec<EndpointId> =
        links.borrow().iter().filter(|(_, link)| link.is_up()).map(|(id, _)| *id).collect();
    up.into_iter().chain([agent.endpoint_id]).collect()
}

/// The cluster to read from: confirmed by a quorum, unless the caller takes a stale view.
pub(super) async fn readable(agent: &Agent, stale: bool) -> ApiResult<Running> {
    if !stale {
        return Ok(read_barrier(agent, Instant::now() + TIMEOUT_DEFAULT).await?);
    }
    let why = "this node is in no cluster yet: `blixard status` says whom it waits for";
    Ok(agent.running().ok_or_else(|| SubmitError::Unavailable(why.to_owned()))?)
}

async fn list_nodes(
    State(Api { agent, .. }): State<Api>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<Listing<NodeView>>> {
    let FreshQuery { stale } = query(parsed)?;
    let running = readable(&agent, stale).await?;
    let reachable = reachable(&agent);
    let looked = running
        .consensus
        .view(move |look| (views::nodes(look.state, look.raft, &reachable), look.raft.applied));
    let (items, applied) = looked.await.map_err(|error| SubmitError::Unavailable(error.to_string()))?;
    Ok(Json(Listing { items, linearizable: !stale, applied }))
}

/// What every node last reported: the leader knows; this node itself knows of its own VMs in any case.
async fn reports(agent: &Agent, running: &Running) -> BTreeMap<NodeName, AgedReport> {
    let leader = running.consensus.summary().borrow().leader.clone();
    let mut all = match leader {
        Some((_, id)) if id != agent.endpoint_id => {
            match ask(&agent.net, id, &PeerRequest::Reports, REPORTS_TIMEOUT).await {
                Ok(PeerResponse::Reports { reports }) => reports,
                _ => Vec::new(),
            }
        }
        _ => agent.noted_reports(),
    };
    let own = agent.noted_reports().into_iter().filter(|aged| aged.report.node == *agent.name());
    all.extend(own);
    all.into_iter().map(|aged| (aged.report.node.clone(), aged)).collect()
}

async fn list_vms(
    State(Api { agent, .. }): State<Api>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<Listing<VmView>>> {
    let FreshQuery { stale } = query(parsed)?;
    let running = readable(&agent, stale).await?;
    let reports = reports(&agent, &running).await;
    let looked = running.consensus.view(move |look| {
        let items = look.state.vms.values().map(|record| views::vm(record, &reports)).collect();
        (items, look.raft.applied)
    });
    let (items, applied) = looked.await.map_err(|error| SubmitError::Unavailable(error.to_string()))?;
    Ok(Json(Listing { items, linearizable: !stale, applied }))
}

async fn show_vm(
    State(Api { agent, .. }): State<Api>,
    Path(name): Path<String>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<VmView>> {
    let name = vm_name(&name)?;
    let FreshQuery { stale } = query(parsed)?;
    let running = readable(&agent, stale).await?;
    let reports = reports(&agent, &running).await;
    let wanted = name.clone();
    let looked = running
        .consensus
        .view(move |look| look.state.vms.get(&wanted).map(|record| views::vm(record, &reports)));
    let found = looked.await.map_err(|error| SubmitError::Unavailable(error.to_string()))?;
    found.map(Json).ok_or_else(|| ApiError::refused(Refusal::VmNotFound { name }))
}

async fn create_vm(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> ApiResult<Json<Accepted>> {
    let CreateVm { spec, start } =
        serde_json::from_slice(&body).map_err(|error| ApiError::usage(format!("body: {error}")))?;
    spec.validate().map_err(|error| ApiError::refused(Refusal::InvalidSpec(error)))?;
    let desired = if start { Desired::Running } else { Desired::Stopped };
    write(&api, &headers, Command::CreateVm { spec, desired, eligible: Vec::new() }).await
}

async fn start_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let name = vm_name(&name)?;
    write(&api, &headers, Command::StartVm { name }).await
}

async fn stop_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let name = vm_name(&name)?;
    write(&api, &headers, Command::StopVm { name }).await
}

async fn delete_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let name = vm_name(&name)?;
    write(&api, &headers, Command::DeleteVm { name }).await
}

async fn write(api: &Api, headers: &HeaderMap, command: Command) -> ApiResult<Json<Accepted>> {
    let id = request_id(headers)?;
    let deadline = Instant::now() + patience(headers)?;
    let request = Request { id: id.clone(), command };
    let outcome = submit(&api.agent, request, deadline).await;
    match outcome.map_err(|error| ApiError::from(error).of_request(&id))? {
        Outcome::Done { node, unchanged } => Ok(Json(Accepted { request_id: id, node, unchanged })),
        // No write admits anybody.
        Outcome::Admitted { .. } => Ok(Json(Accepted { request_id: id, node: None, unchanged: false })),
        Outcome::Refused { refusal } => Err(ApiError::refused(refusal).of_request(&id)),
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> ApiResult<Option<&'a str>> {
    let text = headers.get(name).map(|value| value.to_str());
    text.transpose().map_err(|_| ApiError::usage(format!("header {name} is no text")))
}

pub(super) fn request_id(headers: &HeaderMap) -> ApiResult<RequestId> {
    match header_text(headers, REQUEST_ID_HEADER)? {
        None => Ok(random::request_id()),
        Some(text) => {
            text.parse().map_err(|error: blixard_model::InvalidId| ApiError::usage(error.to_string()))
        }
    }
}

pub(super) fn patience(headers: &HeaderMap) -> ApiResult<Duration> {
    let Some(text) = header_text(headers, TIMEOUT_HEADER)? else { return Ok(TIMEOUT_DEFAULT) };
    let ms: u64 = text
        .parse()
        .map_err(|_| ApiError::usage(format!("header {TIMEOUT_HEADER} is no number: {text:?}")))?;
    Ok(Duration::from_millis(ms).min(TIMEOUT_MAX))
}

async fn vm_logs(
    State(Api { agent, stop }): State<Api>,
    Path(name): Path<String>,
    parsed: Result<Query<LogsQuery>, QueryRejection>,
) -> ApiResult<Response> {
    let name = vm_name(&name)?;
    let LogsQuery { follow, lines } = query(parsed)?;
    let lines = lines.unwrap_or(logs::LINES_DEFAULT).min(logs::LINES_MAX);
    let console = logs::open(&agent, &name, lines, follow).await?;
    let console = console.ok_or_else(|| ApiError::refused(Refusal::VmNotFound { name }))?;
    // A followed console must not hold the agent's stop.
    let body = Body::from_stream(console.take_until(stop.cancelled_owned()));
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((StatusCode::OK, plain, body).into_response())
}
