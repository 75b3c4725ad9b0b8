//! `/v1/vms`: VMs, and what their consoles say.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use blixard_model::api::{Accepted, ChangeVm, CreateVm, Listing, VmView};
use blixard_model::wire::AgedReport;
use blixard_model::{Desired, NodeName, Outcome, Refusal, VmName, WriteAsk, WriteRequest};
use blixard_node::SubmitError;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::super::context::Agent;
use super::super::{logs, views};
use super::error::ApiError;
use super::request::{Api, ApiResult, FreshQuery, body, id, patience, query, readable, request_id};

/// Most consoles that are followed at once: each holds a connection, and a stream or a process.
pub(super) const FOLLOWERS_MAX: usize = 64;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    lines: Option<u32>,
}

/// What every node last reported, by its name.
async fn reports(agent: &Agent) -> BTreeMap<NodeName, AgedReport> {
    let reports = agent.host.reports().await;
    reports.into_iter().map(|aged| (aged.report.node.clone(), aged)).collect()
}

/// Adds what VMs of silent nodes wait for before they are started elsewhere. Where there are none nobody is
/// asked for it.
async fn add_waits(agent: &Agent, vms: &mut [VmView]) -> Result<(), SubmitError> {
    if !vms.iter().any(views::may_go_elsewhere) {
        return Ok(());
    }
    let told = agent.host.progress().await;
    let looked = agent.host.look_at_member_now(move |member, now| {
        views::waits_elsewhere(member.state(), &member.progress(now, told))
    });
    let waits = looked.await?;
    vms.iter_mut().for_each(|vm| views::add_wait(vm, &waits));
    Ok(())
}

pub(super) async fn list_vms(
    State(Api { agent, .. }): State<Api>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Json<Listing<VmView>>> {
    let FreshQuery { stale } = query(parsed)?;
    readable(&agent, stale).await?;
    let reports = reports(&agent).await;
    let looked = agent.host.look_at_member_now(move |member, now| {
        let state = member.state();
        let items = state.vms.values().map(|record| views::vm(record, &reports)).collect();
        (items, member.replica().summary().applied, views::disarmed(state, now))
    });
    let (mut items, applied, disarmed): (Vec<VmView>, _, _) = looked.await.map_err(SubmitError::from)?;
    add_waits(&agent, &mut items).await?;
    Ok(Json(Listing { items, linearizable: !stale, applied, disarmed }))
}

pub(super) async fn show_vm(
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
    let mut found = found.ok_or_else(|| ApiError::refused(Refusal::VmNotFound { name }))?;
    add_waits(&agent, std::slice::from_mut(&mut found)).await?;
    Ok(Json(found))
}

pub(super) async fn create_vm(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> ApiResult<Json<Accepted>> {
    let CreateVm { spec, start } = body(&bytes)?;
    spec.validate().map_err(|error| ApiError::refused(Refusal::InvalidSpec(error)))?;
    let desired = if start { Desired::Running } else { Desired::Stopped };
    write(&api, &headers, WriteAsk::CreateVm { spec, desired }).await
}

pub(super) async fn change_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> ApiResult<Json<Accepted>> {
    let name: VmName = id(&name)?;
    let ChangeVm { spec, revision } = body(&bytes)?;
    if spec.name != name {
        return Err(ApiError::usage(format!("the spec is one of {}, not of {name}", spec.name)));
    }
    spec.validate().map_err(|error| ApiError::refused(Refusal::InvalidSpec(error)))?;
    write(&api, &headers, WriteAsk::ChangeVm { spec, seen: revision }).await
}

pub(super) async fn start_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let name: VmName = id(&name)?;
    write(&api, &headers, WriteAsk::StartVm { name }).await
}

pub(super) async fn stop_vm(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Json<Accepted>> {
    let name: VmName = id(&name)?;
    write(&api, &headers, WriteAsk::StopVm { name }).await
}

pub(super) async fn delete_vm(
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

pub(super) async fn vm_logs(
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
    Ok(console_answer(console, place, stop))
}

/// The answer whose body is the console. A follower's place is taken for as long as somebody reads it.
fn console_answer(
    console: logs::Console,
    place: Option<OwnedSemaphorePermit>,
    stop: CancellationToken,
) -> Response {
    // A followed console must not hold the agent's stop.
    let console = console.take_until(stop.cancelled_owned());
    let body = Body::from_stream(console.inspect(move |_| _ = &place));
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::OK, plain, body).into_response()
}

fn too_many_followers() -> SubmitError {
    SubmitError::Unavailable(format!(
        "{FOLLOWERS_MAX} consoles are followed through this node already: end one of them, ask another node, \
         or leave out --follow"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_follower_has_its_place_until_nobody_reads_it_or_the_agent_stops() {
        let (followers, stop) = (Arc::new(Semaphore::new(1)), CancellationToken::new());
        let place = || Arc::clone(&followers).try_acquire_owned().ok();
        let console = || stream::iter([Ok(Bytes::from_static(b"login:\n"))]).chain(stream::pending()).boxed();
        let answer = console_answer(console(), place(), stop.clone());
        let mut body = answer.into_body().into_data_stream();
        assert_eq!(body.next().await.expect("a line").expect("whole"), "login:\n");
        assert!(place().is_none(), "it goes on");
        drop(body);

        let answer = console_answer(console(), Some(place().expect("free again")), stop.clone());
        let mut body = answer.into_body().into_data_stream();
        assert!(body.next().await.is_some() && place().is_none());
        stop.cancel();
        assert!(body.next().await.is_none(), "it does not hold the stop");
    }
}
