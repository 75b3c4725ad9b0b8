//! The routes; their table is in `blixard_model::api`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use blixard_model::api::{Accepted, CreateVm, Listing, REQUEST_ID_HEADER, TIMEOUT_HEADER, VmView};
use blixard_model::wire::AgedReport;
use blixard_model::{
    Desired, InvalidId, NodeName, Outcome, Refusal, RequestId, VmName, WriteAsk, WriteRequest,
};
use blixard_node::SubmitError;
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::super::context::Agent;
use super::super::{logs, random, scrape, views};
use super::backup::backup;
use super::error::ApiError;
use super::{members, status};

/// How long a write may take unless the client says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Most consoles that are followed at once: each holds a connection, and a stream or a process.
const FOLLOWERS_MAX: usize = 64;
/// Longest time a write may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

pub(super) type ApiResult<T> = Result<T, ApiError>;

#[derive(Clone)]
pub(super) struct Api {
    pub(super) agent: Arc<Agent>,
    stop: CancellationToken,
    followers: Arc<Semaphore>,
}

pub(super) fn router(agent: Arc<Agent>, stop: CancellationToken) -> Router {
    router_for(Api { agent, stop, followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)) })
}

fn router_for(api: Api) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status::status))
        .route("/v1/nodes", get(status::list_nodes))
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
        .with_state(api)
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

/// A body of JSON.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> ApiResult<T> {
    serde_json::from_slice(bytes).map_err(|error| ApiError::usage(format!("body: {error}")))
}

/// A name or an id in a path or a header.
pub(super) fn id<T: FromStr<Err = InvalidId>>(text: &str) -> ApiResult<T> {
    text.parse().map_err(|error: InvalidId| ApiError::usage(error.to_string()))
}

async fn metrics(State(Api { agent, .. }): State<Api>) -> Response {
    match scrape::text(&agent).await {
        Ok(text) => ([(header::CONTENT_TYPE, scrape::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The state here may be read: confirmed by a quorum, unless the caller takes a stale view.
pub(super) async fn readable(agent: &Agent, stale: bool) -> ApiResult<()> {
    if stale {
        return Ok(());
    }
    Ok(agent.host.readable(TIMEOUT_DEFAULT).await?)
}

/// What every node last reported, by its name.
async fn reports(agent: &Agent) -> BTreeMap<NodeName, AgedReport> {
    let reports = agent.host.reports().await;
    reports.into_iter().map(|aged| (aged.report.node.clone(), aged)).collect()
}

async fn list_vms(
    State(Api { agent, .. }): State<Api>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<Listing<VmView>>> {
    let FreshQuery { stale } = query(parsed)?;
    readable(&agent, stale).await?;
    let reports = reports(&agent).await;
    let looked = agent.host.look_at_member(move |member| {
        let items = member.state().vms.values().map(|record| views::vm(record, &reports)).collect();
        (items, member.replica().summary().applied)
    });
    let (items, applied) = looked.await.map_err(SubmitError::from)?;
    Ok(Json(Listing { items, linearizable: !stale, applied }))
}

async fn show_vm(
    State(Api { agent, .. }): State<Api>,
    Path(name): Path<String>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<VmView>> {
    let name: VmName = id(&name)?;
    let FreshQuery { stale } = query(parsed)?;
    readable(&agent, stale).await?;
    let reports = reports(&agent).await;
    let wanted = name.clone();
    let looked = agent
        .host
        .look_at_member(move |member| member.state().vms.get(&wanted).map(|vm| views::vm(vm, &reports)));
    let found = looked.await.map_err(SubmitError::from)?;
    found.map(Json).ok_or_else(|| ApiError::refused(Refusal::VmNotFound { name }))
}

async fn create_vm(State(api): State<Api>, headers: HeaderMap, bytes: Bytes) -> ApiResult<Json<Accepted>> {
    let CreateVm { spec, start } = body(&bytes)?;
    spec.validate().map_err(|error| ApiError::refused(Refusal::InvalidSpec(error)))?;
    let desired = if start { Desired::Running } else { Desired::Stopped };
    write(&api, &headers, WriteAsk::CreateVm { spec, desired }).await
}

async fn start_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let name: VmName = id(&name)?;
    write(&api, &headers, WriteAsk::StartVm { name }).await
}

async fn stop_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let name: VmName = id(&name)?;
    write(&api, &headers, WriteAsk::StopVm { name }).await
}

async fn delete_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let name: VmName = id(&name)?;
    write(&api, &headers, WriteAsk::DeleteVm { name }).await
}

async fn write(api: &Api, headers: &HeaderMap, ask: WriteAsk) -> ApiResult<Json<Accepted>> {
    let id = request_id(headers)?;
    let patience = patience(headers)?;
    let request = WriteRequest { id: id.clone(), ask };
    let outcome = api.agent.host.change(request, patience).await;
    match outcome.map_err(|error| ApiError::from(error).of_request(&id))? {
        Outcome::Done { node, unchanged } => Ok(Json(Accepted { request_id: id, node, unchanged })),
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
        Some(text) => id(text),
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
    State(Api { agent, stop, followers }): State<Api>,
    Path(name): Path<String>,
    parsed: Result<Query<LogsQuery>, QueryRejection>,
) -> ApiResult<Response> {
    let name: VmName = id(&name)?;
    let LogsQuery { follow, lines } = query(parsed)?;
    let lines = lines.unwrap_or(logs::LINES_DEFAULT).min(logs::LINES_MAX);
    let place = match follow {
        true => Some(followers.try_acquire_owned().map_err(|_| too_many_followers())?),
        false => None,
    };
    let console = logs::open(&agent, &name, lines, follow).await?;
    let console = console.ok_or_else(|| ApiError::refused(Refusal::VmNotFound { name }))?;
    // A followed console must not hold the agent's stop. Its place is free again once nobody reads it.
    let console = console.take_until(stop.cancelled_owned());
    let body = Body::from_stream(console.inspect(move |_| _ = &place));
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((StatusCode::OK, plain, body).into_response())
}

fn too_many_followers() -> SubmitError {
    SubmitError::Unavailable(format!(
        "{FOLLOWERS_MAX} consoles are followed through this node already: end one of them, ask another node, \
         or leave out --follow"
    ))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::super::super::testing;
    use super::*;

    #[tokio::test]
    async fn one_follower_too_many_is_told_so() {
        let dir = tempfile::tempdir().expect("dir");
        let (agent, _idle) = testing::agent(dir.path());
        let (agent, stop) = (Arc::new(agent), CancellationToken::new());
        let router = router_for(Api { agent, stop, followers: Arc::new(Semaphore::new(0)) });
        let request = Request::get("/v1/vms/web/logs?follow=true").body(Body::empty()).expect("a request");
        let answer = router.oneshot(request).await.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = to_bytes(answer.into_body(), 1 << 16).await.expect("whole");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("consoles are followed through this node already"), "{text}");
    }
}
