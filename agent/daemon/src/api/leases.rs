//! `/v1/cluster/disarm`, `/v1/cluster/arm` and `/v1/cluster/lease`: what becomes of VMs whose node is lost.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use blixard_model::api::{Accepted, DisarmFor};
use blixard_model::{LeaseTermsChoice, WriteAsk, WriteRequest};

use super::members::done;
use super::request::{Api, ApiResult, body, patience, request_id};

pub(super) async fn disarm(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> ApiResult<Json<Accepted>> {
    let DisarmFor { for_ms } = body(&bytes)?;
    write(&api, &headers, WriteAsk::Disarm { for_ms }).await
}

pub(super) async fn arm(State(api): State<Api>, headers: HeaderMap) -> ApiResult<Json<Accepted>> {
    write(&api, &headers, WriteAsk::Arm { since: None }).await
}

pub(super) async fn set_terms(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> ApiResult<Json<Accepted>> {
    let terms: LeaseTermsChoice = body(&bytes)?;
    write(&api, &headers, WriteAsk::SetLeaseTerms { terms }).await
}

async fn write(api: &Api, headers: &HeaderMap, ask: WriteAsk) -> ApiResult<Json<Accepted>> {
    let request_id = request_id(headers)?;
    let request = WriteRequest { id: request_id.clone(), ask };
    let unchanged = done(api.agent.host.change(request, patience(headers)?).await?)?;
    Ok(Json(Accepted { request_id, node: None, unchanged }))
}
