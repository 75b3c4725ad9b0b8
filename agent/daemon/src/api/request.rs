//! What every route takes from a request, and what it answers with when that cannot be.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use blixard_model::api::{REQUEST_ID_HEADER, TIMEOUT_HEADER};
use blixard_model::{InvalidId, RequestId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::super::context::Agent;
use super::super::random;
use super::error::ApiError;

/// How long a write may take unless the client says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest time a write may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

pub(super) type ApiResult<T> = Result<T, ApiError>;

/// What every route has.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) agent: Arc<Agent>,
    pub(super) stop: CancellationToken,
    pub(super) followers: Arc<Semaphore>,
}

/// How fresh an answer has to be.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FreshQuery {
    #[serde(default)]
    pub(super) stale: bool,
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

/// The state here may be read: confirmed by a quorum, unless the caller takes a stale view.
pub(super) async fn readable(agent: &Agent, stale: bool) -> ApiResult<()> {
    if stale {
        return Ok(());
    }
    Ok(agent.host.readable(TIMEOUT_DEFAULT).await?)
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
