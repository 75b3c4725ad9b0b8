//! `/v1/cluster/disarm`, `/v1/cluster/arm` and `/v1/cluster/lease`: what becomes of VMs whose node is lost.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use blixard_model::api::{Accepted, DisarmFor, LeaseTermsPatch};
use blixard_model::{LeaseTermsChoice, WriteAsk, WriteRequest};
use blixard_node::SubmitError;

use super::super::views;
use super::members::done;
use super::request::{Api, ApiResult, body, patience, readable, request_id};

pub(super) async fn disarm(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> ApiResult<Json<Accepted>> {
    let DisarmFor { for_ms } = body(&bytes)?;
    write(&api, &headers, WriteAsk::Disarm { for_ms }).await
}

pub(super) async fn arm(State(api): State<Api>, headers: HeaderMap) -> ApiResult<Json<Accepted>> {
    write(&api, &headers, WriteAsk::Arm).await
}

/// Changes some of the terms, as a quorum knows them.
pub(super) async fn set_terms(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> ApiResult<Json<LeaseTermsChoice>> {
    let patch: LeaseTermsPatch = body(&bytes)?;
    readable(&api.agent, false).await?;
    let looked = api.agent.host.look_at_member(|member| views::lease_terms(member.state())).await;
    let before = looked.map_err(SubmitError::from)?;
    let terms = patch.applied_to(before);
    if terms != before {
        let _accepted = write(&api, &headers, WriteAsk::SetLeaseTerms { terms }).await?;
    }
    Ok(Json(terms))
}

async fn write(api: &Api, headers: &HeaderMap, ask: WriteAsk) -> ApiResult<Json<Accepted>> {
    let request_id = request_id(headers)?;
    let request = WriteRequest { id: request_id.clone(), ask };
    let unchanged = done(api.agent.host.change(request, patience(headers)?).await?)?;
    Ok(Json(Accepted { request_id, node: None, unchanged }))
}
