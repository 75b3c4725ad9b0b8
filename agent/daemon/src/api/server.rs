//! The socket and the server on it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::super::context::Agent;
use super::error::ApiError;
use super::peer_cred::PeerCred;
use super::routes;

/// Largest body, in bytes.
pub(super) const BODY_LEN_MAX: usize = 64 << 10;
/// How long requests may go on when the agent stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the socket: only its owner and group get through.
///
/// # Errors
/// It can not be made, or another agent answers on it.
pub(crate) async fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("socket directory {}", dir.display()))?;
    }
    if path.exists() {
        anyhow::ensure!(
            UnixStream::connect(path).await.is_err(),
            "another agent answers on {}: stop it, or set another socket",
            path.display()
        );
        std::fs::remove_file(path).with_context(|| format!("old socket {}", path.display()))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("socket {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("socket {}", path.display()))?;
    Ok(listener)
}

/// Serves until the token is cancelled.
pub(crate) async fn serve(
    agent: Arc<Agent>,
    listener: UnixListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = routes::router(agent, stop.clone())
        .layer(from_fn(check_peer))
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX));
    let service = router.into_make_service_with_connect_info::<PeerCred>();
    let drained = stop.clone();
    let serving = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
    let cut = async {
        drained.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        served = serving => served,
        () = cut => Ok(()),
    }
}

async fn check_peer(ConnectInfo(peer): ConnectInfo<PeerCred>, request: Request, next: Next) -> Response {
    match peer.check().await {
        Ok(()) => next.run(request).await,
        Err(why) => ApiError::forbidden(why).into_response(),
    }
}
