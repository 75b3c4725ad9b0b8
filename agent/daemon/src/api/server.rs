//! The socket and the server on it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use blixard_model::words::with_causes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::super::context::Agent;
use super::error::ApiError;
use super::peer_cred::PeerCred;
use super::routes;

/// Most connections at once.
const CONNECTIONS_MAX: usize = 256;
/// How long the head of a request may take, from the connection or the end of the request before on: a
/// connection that says nothing ends then (`findings/hyper-idle-connection-ends.sh`). Callers that come
/// behind more than a thousand of those still have their answer in the 30 s that a command waits.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing is accepted after the kernel gave no connection, for lack of descriptors for one.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Largest body, in bytes.
pub(super) const BODY_LEN_MAX: usize = 64 << 10;
/// How long requests may go on when the agent stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens the socket: only its owner and group get through.
///
/// # Errors
/// The socket cannot be made, or another agent answers on it.
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
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .layer(from_fn(read_body))
        .layer(from_fn(check_peer));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        // Those for whom there is no room yet wait in the kernel's queue and cost nothing here.
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await.map_err(std::io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (place, stream))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((place, stream)) => {
                let served = serve_connection(router.clone(), stream, stop.clone());
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("a connection to the local socket was not taken: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    // What goes on for longer is cut off with the process.
    let _drained = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await;
    Ok(())
}

async fn serve_connection(router: Router, stream: UnixStream, stop: CancellationToken) {
    let peer = PeerCred::of(&stream);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(connection.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection to the local socket ended: {error}");
    }
}

async fn check_peer(ConnectInfo(peer): ConnectInfo<PeerCred>, request: Request, next: Next) -> Response {
    match peer.check().await {
        Ok(()) => next.run(request).await,
        Err(why) => ApiError::forbidden(why).into_response(),
    }
}

/// The body is there whole, and in time, before anything is done.
async fn read_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_LEN_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            let why = with_causes(&error);
            let text = format!("the body cannot be read (at most {BODY_LEN_MAX} bytes): {why}");
            return ApiError::usage(text).into_response();
        }
        Err(_) => {
            let limit = BODY_TIMEOUT.as_secs();
            return ApiError::usage(format!("the body did not arrive within {limit} s")).into_response();
        }
    };
    next.run(Request::from_parts(head, Body::from(body))).await
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use blixard_net::limits::STREAMED_ANSWERS_PER_PEER_MAX;

    use super::super::super::testing;
    use super::super::vms::FOLLOWERS_MAX;
    use super::*;

    /// An agent's socket, served.
    struct Served {
        dir: TempDir,
        _idle: testing::Idle,
        stop: CancellationToken,
        serving: JoinHandle<std::io::Result<()>>,
    }

    impl Served {
        async fn new() -> Self {
            let dir = tempfile::tempdir().expect("dir");
            let (agent, idle) = testing::agent(dir.path());
            let listener = listen(&socket(&dir)).await.expect("listens");
            let stop = CancellationToken::new();
            let serving = tokio::spawn(serve(Arc::new(agent), listener, stop.clone()));
            Self { dir, _idle: idle, stop, serving }
        }

        async fn connect(&self) -> UnixStream {
            UnixStream::connect(socket(&self.dir)).await.expect("connects")
        }

        async fn end(self) {
            self.stop.cancel();
            self.serving.await.expect("no panic").expect("ends");
        }
    }

    fn socket(dir: &TempDir) -> PathBuf {
        dir.path().join("api.sock")
    }

    /// All that the agent says on this connection until it ends it.
    async fn read(stream: &mut UnixStream) -> String {
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.expect("ended");
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn silent_connections_are_bounded_and_ended_and_a_request_gets_its_turn() {
        let served = Served::new().await;
        let begun = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(served.connect().await);
        }
        let mut asks = served.connect().await;
        asks.write_all(b"GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("sent");
        let answer = read(&mut asks).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("no such path"), "{answer}");
        assert!(begun.elapsed() >= HEAD_TIMEOUT, "there was no room before");
        for stream in &mut silent {
            read(stream).await;
        }
        served.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_not_waited_for() {
        let served = Served::new().await;
        let mut asks = served.connect().await;
        let head = b"POST /v1/vms HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{";
        asks.write_all(head).await.expect("sent");
        let answer = read(&mut asks).await;
        assert!(answer.contains("the body did not arrive within"), "{answer}");
        served.end().await;
    }

    /// A console that is followed, here or by a peer, is a process with pipes beside its connection.
    #[test]
    fn the_unit_allows_more_descriptors_than_callers_and_followers_take() {
        const PEERS: usize = 49;
        const OF_A_CONSOLE: usize = 4;
        let unit = include_str!("../../../dist/systemd/blixard.service");
        let limits: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("LimitNOFILE=")).collect();
        let [limit] = limits[..] else { panic!("one LimitNOFILE=") };
        let consoles = FOLLOWERS_MAX + PEERS * STREAMED_ANSWERS_PER_PEER_MAX;
        let taken = CONNECTIONS_MAX + OF_A_CONSOLE * consoles;
        assert!(limit.parse::<usize>().expect("a number") >= 2 * taken, "{limit}, and {taken} may be taken");
    }
}
