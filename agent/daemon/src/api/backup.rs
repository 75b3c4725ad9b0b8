//! `GET /v1/backup`: the replicated state as a file.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use blixard_core::ClusterState;
use blixard_model::Refusal;
use blixard_node::{BackupFacts, SubmitError, encode_backup};

use super::super::clock;
use super::error::ApiError;
use super::request::{Api, ApiResult, FreshQuery, query, readable};

/// The state and its place in the log are taken in one look; encoding it does not hold the log up.
pub(super) async fn backup(
    State(Api { agent, .. }): State<Api>,
    parsed: Result<Query<FreshQuery>, QueryRejection>,
) -> ApiResult<Response> {
    let FreshQuery { stale } = query(parsed)?;
    readable(&agent, stale).await?;
    let node = agent.name().clone();
    let looked = agent.host.look_at_member(move |member| -> Option<(ClusterState, BackupFacts)> {
        let raft = member.replica().raft_status();
        let facts = BackupFacts {
            index: raft.applied,
            term: raft.term,
            linearizable: !stale,
            node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            made_at_ms: clock::wall_ms(),
        };
        // A node that was admitted and has no state yet knows nothing but how the cluster was born.
        (raft.applied > 0).then(|| (member.state().clone(), facts))
    });
    let unavailable = |why: String| ApiError::from(SubmitError::Unavailable(why));
    let looked = looked.await.map_err(SubmitError::from)?;
    let (state, facts) = looked.ok_or_else(|| {
        unavailable("this node has not got the cluster's state yet: ask another one".to_owned())
    })?;
    let encoded = tokio::task::spawn_blocking(move || encode_backup(facts, state)).await;
    let encoded = encoded.map_err(|error| unavailable(error.to_string()))?;
    let bytes =
        encoded.map_err(|error| ApiError::refused(Refusal::Invalid { why: error.to_string().into() }))?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((StatusCode::OK, kind, Body::from(bytes)).into_response())
}
