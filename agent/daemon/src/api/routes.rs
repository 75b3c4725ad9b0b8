//! The routes and where they lead; their table is in `blixard_model::api`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::super::context::Agent;
use super::super::scrape;
use super::backup::backup;
use super::error::ApiError;
use super::request::Api;
use super::vms::{self, FOLLOWERS_MAX};
use super::{leases, local, members, status};

pub(super) fn router(agent: Arc<Agent>, stop: CancellationToken) -> Router {
    router_for(Api { agent, stop, followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)) })
}

fn router_for(api: Api) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status::status))
        .route("/v1/nodes", get(status::list_nodes))
        .route("/v1/vms", get(vms::list_vms).post(vms::create_vm))
        .route("/v1/vms/{name}", get(vms::show_vm).delete(vms::delete_vm))
        .route("/v1/vms/{name}/spec", put(vms::change_vm))
        .route("/v1/vms/{name}/start", post(vms::start_vm))
        .route("/v1/vms/{name}/stop", post(vms::stop_vm))
        .route("/v1/vms/{name}/logs", get(vms::vm_logs))
        .route("/v1/local/vms", get(local::list))
        .route("/v1/local/vms/{name}/stop", post(local::stop))
        .route("/v1/nodes/{name}", delete(members::remove_node))
        .route("/v1/tickets", get(members::list_tickets).post(members::create_ticket))
        .route("/v1/tickets/{id}", delete(members::revoke_ticket))
        .route("/v1/cluster/join", post(members::join_cluster))
        .route("/v1/cluster/leave", post(members::leave_cluster))
        .route("/v1/cluster/disarm", post(leases::disarm))
        .route("/v1/cluster/arm", post(leases::arm))
        .route("/v1/cluster/lease", patch(leases::set_terms))
        .route("/v1/backup", get(backup))
        .fallback(|| async { ApiError::usage("no such path: see the table of the local API") })
        .method_not_allowed_fallback(|| async { ApiError::usage("no such method on this path") })
        .with_state(api)
}

async fn metrics(State(Api { agent, .. }): State<Api>) -> Response {
    match scrape::text(&agent).await {
        Ok(text) => ([(header::CONTENT_TYPE, scrape::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::super::super::testing;
    use super::*;

    #[tokio::test]
    async fn one_follower_too_many_is_told_so() {
        let dir = tempfile::tempdir().expect("dir");
        let (agent, mut idle) = testing::agent(dir.path());
        let (agent, stop) = (Arc::new(agent), CancellationToken::new());
        let followers = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&followers).try_acquire_owned().expect("free");
        let router = router_for(Api { agent, stop, followers: Arc::clone(&followers) });
        let ask = || {
            let request =
                Request::get("/v1/vms/web/logs?follow=true").body(Body::empty()).expect("a request");
            router.clone().oneshot(request)
        };
        let answer = ask().await.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = to_bytes(answer.into_body(), 1 << 16).await.expect("whole");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("consoles are followed through this node already"), "{text}");

        drop(place);
        let host = async {
            let free = followers.available_permits();
            idle.serve();
            free
        };
        let (answer, free) = tokio::join!(ask(), host);
        assert_eq!(free, 0, "its place is taken before it is looked where the VM is");
        let answer = answer.unwrap_or_else(|never| match never {});
        let body = to_bytes(answer.into_body(), 1 << 16).await.expect("whole");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("no cluster") && followers.available_permits() == 1, "{text}");
    }
}
