//! The client's end of the local API: one request on one connection, over the agent's Unix socket, within a
//! deadline.
//!
//! Knows for every failure whether the request can have reached the agent: that decides between "nothing
//! happened" and "the outcome is not known".

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use blixard_model::api::{ErrorBody, ErrorKind, REQUEST_ID_HEADER, TIMEOUT_HEADER};
use blixard_model::id::RequestId;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::failure::Failure;

/// Largest answer that is read into memory, in bytes.
const ANSWER_LEN_MAX: usize = 32 << 20;
/// Most of an answer that is quoted when it is not understood, in characters.
const QUOTE_CHARS_MAX: usize = 200;
const WAY_OUT_AGENT: &str = "is the agent running? systemctl status blixard";

/// When a command gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    span: Duration,
}

impl Deadline {
    /// `span` from now.
    pub(crate) fn after(span: Duration) -> Self {
        Self { at: Instant::now() + span, span }
    }

    /// This one or `span` from now, whichever comes first.
    pub(crate) fn within(self, span: Duration) -> Self {
        let sooner = Self::after(span);
        if sooner.at < self.at { sooner } else { self }
    }

    /// What is left of it.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The time the agent is given, so that its own answer comes before this side gives up.
    fn patience(self) -> Duration {
        let left = self.left();
        left.saturating_sub((left / 10).min(Duration::from_secs(1)))
    }
}

/// How something that was waited for ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The deadline passed.
    Deadline,
    /// The user pressed Ctrl-C.
    Interrupt,
}

/// Runs `work` until it is done, `deadline` passes or the user presses Ctrl-C.
pub(crate) async fn bounded<T>(deadline: Deadline, work: impl Future<Output = T>) -> Result<T, Cut> {
    tokio::select! {
        biased;
        // First, so that the signal is watched before the work begins.
        () = interrupt() => Err(Cut::Interrupt),
        done = work => Ok(done),
        () = tokio::time::sleep_until(deadline.at) => Err(Cut::Deadline),
    }
}

/// Ends at Ctrl-C; never when the signal cannot be watched (it then ends the process as usual).
pub(crate) async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A write: its id makes it safe to send again.
#[derive(Debug)]
pub(crate) struct WriteCall<'a> {
    /// The HTTP method.
    pub(crate) method: Method,
    /// The path, with nothing to escape.
    pub(crate) path: &'a str,
    /// The body, in JSON; may be empty.
    pub(crate) body: Vec<u8>,
    /// Its id.
    pub(crate) id: &'a RequestId,
}

/// Asks the agent behind one socket.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent that listens on `socket`; connects anew for every request.
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Reads `path`.
    ///
    /// # Errors
    /// The agent's own refusal, or "nothing happened" when there is no answer that can be read.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        deadline: Deadline,
    ) -> Result<T, Failure> {
        let (status, body) = self.read(path, deadline).await?;
        decode(status, &body, false)
    }

    /// Reads `path`; `None` when the agent says that there is no such thing.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn find<T: DeserializeOwned>(
        &self,
        path: &str,
        deadline: Deadline,
    ) -> Result<Option<T>, Failure> {
        let (status, body) = self.read(path, deadline).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        decode(status, &body, false).map(Some)
    }

    async fn read(&self, path: &str, deadline: Deadline) -> Result<(StatusCode, Bytes), Failure> {
        let request = build(Method::GET, path, deadline, None, Vec::new())?;
        let sent = Cell::new(false);
        match bounded(deadline, self.exchange(request, &sent)).await {
            Ok(answer) => answer,
            Err(cut) => Err(self.cut_short(cut, deadline, false)),
        }
    }

    /// Sends a write and returns the agent's word that it is committed.
    ///
    /// # Errors
    /// The agent's own refusal; "nothing happened" when the request was not sent; else "the outcome is not
    /// known".
    pub(crate) async fn write<T: DeserializeOwned>(
        &self,
        write: WriteCall<'_>,
        deadline: Deadline,
    ) -> Result<T, Failure> {
        let request = build(write.method, write.path, deadline, Some(write.id), write.body)?;
        let sent = Cell::new(false);
        let (status, body) = match bounded(deadline, self.exchange(request, &sent)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(mut failure)) => {
                if sent.get() {
                    failure.kind = ErrorKind::Unknown;
                }
                return Err(failure);
            }
            Err(cut) => return Err(self.cut_short(cut, deadline, sent.get())),
        };
        decode(status, &body, true)
    }

    /// Reads `path` as a stream and hands every piece to `take`, until the stream ends or `take` says false.
    ///
    /// # Errors
    /// The agent's own refusal, "nothing happened" when there is no answer or the stream breaks, or `take`'s
    /// failure.
    pub(crate) async fn stream(
        &self,
        path: &str,
        patience: Deadline,
        mut take: impl FnMut(&[u8]) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let request = build(Method::GET, path, patience, None, Vec::new())?;
        let sent = Cell::new(false);
        self.converse(request, &sent, async |response| {
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                return Err(refusal_of(status, &collect(body).await?, false));
            }
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| broke(&error))?;
                if let Some(piece) = frame.data_ref()
                    && !take(piece)?
                {
                    return Ok(());
                }
            }
            Ok(())
        })
        .await
    }

    /// Reads all of `path`, at most `len_max` bytes.
    ///
    /// # Errors
    /// As [`Client::get`]; a longer answer is refused.
    pub(crate) async fn download(
        &self,
        path: &str,
        len_max: usize,
        deadline: Deadline,
    ) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::new();
        let take = |piece: &[u8]| {
            if piece.len() > len_max.saturating_sub(whole.len()) {
                return Err(Failure::refused(format!("the answer is longer than {len_max} bytes"), ""));
            }
            whole.extend_from_slice(piece);
            Ok(true)
        };
        match bounded(deadline, self.stream(path, deadline, take)).await {
            Ok(end) => end.map(|()| whole),
            Err(cut) => Err(self.cut_short(cut, deadline, false)),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        sent: &Cell<bool>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        self.converse(request, sent, async |response| {
            let status = response.status();
            Ok((status, collect(response.into_body()).await?))
        })
        .await
    }

    /// Connects, sends, and lets `read` have the response while the connection is driven beside it. `sent` is
    /// true from the moment on from which the agent may have seen the request.
    async fn converse<T>(
        &self,
        request: Request<Full<Bytes>>,
        sent: &Cell<bool>,
        mut read: impl AsyncFnMut(Response<Incoming>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_connection(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broke(&error))?;
        let mut connection = pin!(connection);
        let mut talk = pin!(async {
            sent.set(true);
            let response = sender.try_send_request(request).await.map_err(|mut error| {
                sent.set(error.take_message().is_none());
                broke(&error.into_error())
            })?;
            read(response).await
        });
        tokio::select! {
            biased;
            done = &mut talk => done,
            // The connection is over: what it still had to say is in the channel of `talk`.
            _ = &mut connection => talk.await,
        }
    }

    fn no_connection(&self, error: &io::Error) -> Failure {
        let socket = self.socket.display();
        match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::unavailable(format!("there is no socket {socket}"), WAY_OUT_AGENT)
            }
            io::ErrorKind::ConnectionRefused => {
                Failure::unavailable(format!("nobody listens on {socket}"), WAY_OUT_AGENT)
            }
            io::ErrorKind::PermissionDenied => Failure::unavailable(
                format!("this user may not open {socket}"),
                "be root or a member of group blixard (usermod -aG blixard USER, then log in again)",
            ),
            _ => Failure::unavailable(format!("{socket} cannot be connected to: {error}"), WAY_OUT_AGENT),
        }
    }

    fn cut_short(&self, cut: Cut, deadline: Deadline, unknown: bool) -> Failure {
        let cause = match cut {
            Cut::Deadline => {
                let seconds = deadline.span.as_secs();
                format!("no answer from {} within {seconds} s", self.socket.display())
            }
            Cut::Interrupt => "interrupted before the answer came".to_owned(),
        };
        if unknown {
            return Failure::unknown(format!("{cause}: the outcome is not known"), "");
        }
        let way_out = match cut {
            Cut::Deadline => "`blixard status` says whether there is a quorum; --timeout gives it longer",
            Cut::Interrupt => "",
        };
        Failure::unavailable(cause, way_out)
    }
}

fn build(
    method: Method,
    path: &str,
    deadline: Deadline,
    id: Option<&RequestId>,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "blixard")
        .header(TIMEOUT_HEADER, deadline.patience().as_millis().to_string());
    if let Some(id) = id {
        request = request.header(REQUEST_ID_HEADER, id.as_str());
    }
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    request
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Failure::usage(format!("the request cannot be built: {error}"), ""))
}

async fn collect(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, ANSWER_LEN_MAX).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) => Err(broke(error.as_ref())),
    }
}

fn broke(error: &dyn std::error::Error) -> Failure {
    let mut cause = format!("the connection to the agent broke: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        cause.push_str(&format!(": {error}"));
        source = error.source();
    }
    Failure::unavailable(cause, WAY_OUT_AGENT)
}

fn decode<T: DeserializeOwned>(status: StatusCode, body: &[u8], write: bool) -> Result<T, Failure> {
    if !status.is_success() {
        return Err(refusal_of(status, body, write));
    }
    serde_json::from_slice(body).map_err(|error| not_understood(&error.to_string(), body, write))
}

/// The failure that an answer with this status means. The agent's own words win over the status.
fn refusal_of(status: StatusCode, body: &[u8], write: bool) -> Failure {
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(body) {
        return Failure::from_body(body);
    }
    let cause = format!("the agent answered {status}: {}", quote(body));
    match status.as_u16() {
        400 => Failure::usage(cause, ""),
        404 | 409 => Failure::refused(cause, ""),
        503 | 401 | 403 => Failure::unavailable(cause, ""),
        504 => Failure::unknown(cause, ""),
        _ if write && status.is_server_error() => Failure::unknown(cause, ""),
        _ => Failure::unavailable(cause, ""),
    }
}

fn not_understood(why: &str, body: &[u8], write: bool) -> Failure {
    let cause = format!("the agent's answer is not understood ({why}): {}", quote(body));
    let way_out = "do the agent and this command have the same version? blixard status, blixard --version";
    if write { Failure::unknown(cause, way_out) } else { Failure::unavailable(cause, way_out) }
}

fn quote(body: &[u8]) -> String {
    if body.is_empty() {
        return "nothing".to_owned();
    }
    String::from_utf8_lossy(body).chars().take(QUOTE_CHARS_MAX).collect()
}

/// A body in JSON.
///
/// # Errors
/// A usage failure; the model's types can all be written.
pub(crate) fn json_body(body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body)
        .map_err(|error| Failure::usage(format!("the request cannot be written as JSON: {error}"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str, write: bool) -> ErrorKind {
        refusal_of(StatusCode::from_u16(status).expect("status"), body.as_bytes(), write).kind
    }

    #[test]
    fn without_a_connection_nothing_happened_and_the_way_out_is_named() {
        let client = Client::new(Path::new("/run/x.sock"));
        for (kind, needle) in [
            (io::ErrorKind::NotFound, "systemctl status blixard"),
            (io::ErrorKind::ConnectionRefused, "systemctl status blixard"),
            (io::ErrorKind::PermissionDenied, "member of group blixard"),
            (io::ErrorKind::NotADirectory, "systemctl status blixard"),
        ] {
            let failure = client.no_connection(&kind.into());
            assert_eq!(failure.kind, ErrorKind::Unavailable);
            assert!(failure.cause.contains("/run/x.sock") && failure.way_out.contains(needle), "{failure:?}");
        }
    }

    #[test]
    fn the_status_decides_where_the_agent_has_no_words() {
        for write in [false, true] {
            assert_eq!(kind(400, "", write), ErrorKind::Usage);
            assert_eq!(kind(404, "", write), ErrorKind::Refused);
            assert_eq!(kind(409, "<html>", write), ErrorKind::Refused);
            assert_eq!(kind(403, "", write), ErrorKind::Unavailable);
            assert_eq!(kind(503, "", write), ErrorKind::Unavailable);
            assert_eq!(kind(504, "", write), ErrorKind::Unknown);
        }
        assert_eq!(kind(500, "", true), ErrorKind::Unknown);
        assert_eq!(kind(500, "", false), ErrorKind::Unavailable);
    }

    #[test]
    fn the_agents_words_win_over_the_status() {
        let body = r#"{"error":"unavailable","message":"no quorum"}"#;
        assert_eq!(kind(500, body, true), ErrorKind::Unavailable);
    }

    #[test]
    fn the_agent_gives_up_before_this_side_does() {
        for seconds in [1, 30, 120] {
            let deadline = Deadline::after(Duration::from_secs(seconds));
            assert!(deadline.patience() < deadline.left(), "{seconds}");
            assert!(deadline.patience() > deadline.left() / 2, "{seconds}");
        }
    }

    #[test]
    fn the_sooner_deadline_counts() {
        let far = Deadline::after(Duration::from_secs(120));
        assert!(far.within(Duration::from_secs(30)).left() <= Duration::from_secs(30));
        let near = Deadline::after(Duration::from_secs(1));
        assert!(near.within(Duration::from_secs(30)).left() <= Duration::from_secs(1));
    }
}
