//! The other end of the command line's connection: HTTP over a Unix socket, one connection after the other,
//! with answers from a closure.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use blixard_model::api::{ErrorBody, ErrorKind};
use serde::Serialize;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and path, as in `GET /v1/status`.
    pub(crate) what: String,
    headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: String,
}

impl Seen {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What the fake agent does with a request.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A status and a body.
    Answer(u16, String),
    /// These pieces, and then the end of the answer.
    Pieces(Vec<String>),
    /// These pieces, and then nothing until the client closes the connection.
    PiecesThenSilence(Vec<String>),
    /// Nothing until the client closes the connection.
    Silence,
    /// The connection is closed without an answer.
    Break,
}

impl Reply {
    /// Status 200 with this document.
    pub(crate) fn json(document: &impl Serialize) -> Self {
        Self::Answer(200, serde_json::to_string(document).expect("JSON"))
    }

    /// An error with only a kind and a message.
    pub(crate) fn error(status: u16, error: ErrorKind, message: &str) -> Self {
        let body = ErrorBody { error, message: message.to_owned(), refusal: None, request_id: None };
        Self::Answer(status, serde_json::to_string(&body).expect("JSON"))
    }
}

/// An agent that belongs to one test and ends with it.
#[derive(Debug)]
pub(crate) struct FakeAgent {
    dir: tempfile::TempDir,
    ends: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeAgent {
    /// Listens, and answers with what `handle` returns.
    pub(crate) fn new(mut handle: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let listener = UnixListener::bind(dir.path().join("a.sock")).expect("socket");
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, log) = (Arc::clone(&ends), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.expect("connection");
                let Some(request) = read(&stream) else { continue };
                let reply = handle(&request);
                log.lock().expect("log").push(request);
                answer(&mut stream, reply);
            }
        });
        Self { dir, ends, seen, thread: Some(thread) }
    }

    /// Answers the n-th request with the n-th reply. A further request is answered by a broken connection.
    pub(crate) fn script(replies: Vec<Reply>) -> Self {
        let mut replies = replies.into_iter();
        Self::new(move |_| replies.next().unwrap_or(Reply::Break))
    }

    /// The socket on which it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("a.sock")
    }

    /// Runs the program against this agent.
    pub(crate) fn run(&self, args: &[&str]) -> crate::binary::Run {
        crate::binary::run(&self.socket(), args)
    }

    /// The requests that arrived so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("log").clone()
    }

    /// Method and path of the requests that arrived so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.seen().into_iter().map(|request| request.what).collect()
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the thread. The thread may be gone already if the test failed in it.
        let _ = UnixStream::connect(self.socket());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the agent of the test panicked");
        }
    }
}

/// A socket file that nobody listens on.
pub(crate) fn abandoned_socket(dir: &Path) -> PathBuf {
    let socket = dir.join("a.sock");
    drop(UnixListener::bind(&socket).expect("socket"));
    socket
}

fn read(stream: &UnixStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first()?.split(' ');
    let what = format!("{} {}", words.next()?, words.next()?);
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut request = Seen { what, headers, body: String::new() };
    let len: usize = request.header("content-length").map_or(0, |len| len.parse().expect("length"));
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).expect("UTF-8");
    Some(request)
}

/// In some tests the client goes away meanwhile, so what cannot be written is dropped.
fn answer(stream: &mut UnixStream, reply: Reply) {
    let pieces = match reply {
        Reply::Break => return,
        Reply::Silence => return until_gone(stream),
        Reply::Answer(status, body) => {
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
            return;
        }
        Reply::Pieces(ref pieces) | Reply::PiecesThenSilence(ref pieces) => pieces,
    };
    if stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err() {
        return;
    }
    for piece in pieces {
        if stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).is_err() {
            return;
        }
    }
    if matches!(reply, Reply::PiecesThenSilence(_)) {
        return until_gone(stream);
    }
    let _ = stream.write_all(b"0\r\n\r\n");
}

fn until_gone(stream: &mut UnixStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}
