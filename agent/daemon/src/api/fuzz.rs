//! Hostile requests to the local API. The agent behind it is in no cluster: what gets past the edge is told
//! apart by that.

use std::cell::RefCell;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Request, StatusCode};
use blixard_hostile::{Target, strings};
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::super::testing::{self, Idle};
use super::{routes, server};

/// Most times that a request has to wait for the host.
const LOOKS_MAX: usize = 16;

/// The router of an agent in no cluster, and its host.
async fn router(dir: &std::path::Path) -> (Router, RefCell<Idle>) {
    let (agent, idle) = testing::agent(dir);
    let router = routes::router(Arc::new(agent), CancellationToken::new())
        .layer(DefaultBodyLimit::max(server::BODY_LEN_MAX));
    (router, RefCell::new(idle))
}

/// The answer, which waits for nobody but the host.
fn send((router, host): &(Router, RefCell<Idle>), request: Request<Body>) -> (StatusCode, String) {
    let mut answering = Box::pin(router.clone().oneshot(request));
    let answer = (0..LOOKS_MAX).find_map(|_| {
        let answered = (&mut answering).now_or_never();
        host.borrow_mut().serve();
        answered
    });
    let answer = answer.expect("answered at once").unwrap_or_else(|never| match never {});
    let status = answer.status();
    let body =
        axum::body::to_bytes(answer.into_body(), 1 << 20).now_or_never().expect("whole").expect("short");
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn request(method: &Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).expect("a request")
}

/// Every byte escaped, so that it arrives whatever it is.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn create(field: &str, text: &str) -> String {
    let mut spec = serde_json::json!({"name": "web", "cpus": 1, "memory_mib": 256, "kernel": "/k"});
    spec[field] = match field {
        "disks" => serde_json::json!([{ "path": text }]),
        _ => serde_json::json!(text),
    };
    serde_json::json!({ "spec": spec }).to_string()
}

#[tokio::test]
async fn hostile_names_and_specs_stop_at_the_edge() {
    let dir = tempfile::tempdir().expect("dir");
    let router = router(dir.path()).await;
    let make =
        |field: &str, text: &str| send(&router, request(&Method::POST, "/v1/vms", create(field, text))).0;
    // What is well formed gets as far as the cluster.
    assert_eq!(make("name", "web"), StatusCode::SERVICE_UNAVAILABLE);
    for text in strings::names() {
        assert!(make("name", &text).is_client_error(), "name {text:?}");
        assert!(make("node", &text).is_client_error(), "node {text:?}");
        // Longer ones are no path for HTTP.
        let name = escaped(text.get(..1_000).unwrap_or(&text));
        for (method, path) in [
            (Method::GET, format!("/v1/vms/{name}")),
            (Method::DELETE, format!("/v1/vms/{name}")),
            (Method::POST, format!("/v1/vms/{name}/start")),
            (Method::POST, format!("/v1/vms/{name}/stop")),
            (Method::GET, format!("/v1/vms/{name}/logs")),
        ] {
            let (status, body) = send(&router, request(&method, &path, ""));
            assert!(status.is_client_error(), "{method} {text:?}: {status} {body}");
        }
    }
    for text in strings::paths() {
        for field in ["kernel", "initrd", "disks"] {
            assert!(make(field, &text).is_client_error(), "{field} {text:?}");
        }
    }
    for text in strings::command_lines() {
        assert!(make("cmdline", &text).is_client_error(), "cmdline {text:?}");
    }
}

/// Reads what the fuzzer writes: method and path, headers, an empty line, the body.
fn parse(bytes: &[u8]) -> Option<Request<Body>> {
    let head_end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let body = bytes.get(head_end + 2..).unwrap_or_default().to_vec();
    let mut lines = bytes[..head_end].split(|byte| *byte == b'\n');
    let (method, path) = split(lines.next()?, b' ')?;
    let mut builder = Request::builder().method(method).uri(path);
    for line in lines {
        let (name, value) = split(line, b':')?;
        builder = builder.header(name, value);
    }
    builder.body(Body::from(body)).ok()
}

fn split(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = line.iter().position(|byte| *byte == at)?;
    Some((&line[..found], &line[found + 1..]))
}

#[test]
fn fuzz_api_requests() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let dir = tempfile::tempdir().expect("dir");
    let router = runtime.block_on(router(dir.path()));
    let _inside = runtime.enter();
    let body = create("disks", "/d/a");
    let mut target = Target::new("api-requests").len_max(96 << 10).heap_max(8 << 20);
    for (head, body) in [
        ("GET /v1/status", ""),
        ("GET /v1/nodes?stale=true", ""),
        ("GET /v1/vms?stale=true", ""),
        ("POST /v1/vms\nblixard-request-id:r1\nblixard-timeout-ms:9\ncontent-type:application/json", &*body),
        ("GET /v1/vms/web?stale=true", ""),
        ("GET /v1/backup?stale=true", ""),
        ("DELETE /v1/vms/web", ""),
        ("POST /v1/vms/web/start\nblixard-request-id:r1", ""),
        ("POST /v1/vms/web/stop", ""),
        ("GET /v1/vms/web/logs?follow=true&lines=9", ""),
        ("POST /v1/cluster/disarm", "{\"for_ms\":60000}"),
        ("POST /v1/cluster/arm", ""),
        ("PATCH /v1/cluster/lease", "{\"lease_ms\":5000,\"margin_ms\":2000}"),
        ("GET /v1/local/vms", ""),
        ("POST /v1/local/vms/web/stop", ""),
    ] {
        target = target.valid(format!("{head}\n\n{body}"));
    }
    let words = [
        "stale=true",
        "lines=",
        "follow=",
        "&",
        "%00",
        "%2f",
        "%ff",
        "/v1/vms/",
        "\n\n",
        "blixard-request-id:",
    ];
    target.words(words).run(|bytes| match parse(bytes) {
        Some(request) => {
            let (status, body) = send(&router, request);
            assert!(!status.is_success() || body.starts_with('{'), "{status} {body}");
            assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
            format!("{status} {body}")
        }
        None => "no request".to_owned(),
    });
}
