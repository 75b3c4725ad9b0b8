//! A client that keeps one connection to an agent's socket, so that it measures the agent and not the start
//! of a process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::scenario::cluster::Node;

/// Longest time that an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    pub(super) fn connect(node: &Node) -> io::Result<Self> {
        Self::open(&socket(node))
    }

    pub(super) fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request. Returns the answer's status code and body. After an error the connection cannot be
    /// used any more.
    pub(super) fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: blixard\r\ncontent-length: {}\r\n\r\n", body.len());
        self.stream.get_mut().write_all((head + body).as_bytes())?;
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.ok_or_else(|| io::Error::other(format!("no answer: {status:?}")))?;
        let mut len = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                len = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok((code, String::from_utf8(body).map_err(io::Error::other)?))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// The socket of a node's agent.
pub(super) fn socket(node: &Node) -> PathBuf {
    node.dir.join("s.sock")
}

/// Sends one request on a connection of its own. Returns `None` when there is no successful answer.
pub(super) fn ask<T: DeserializeOwned>(node: &Node, method: &str, path: &str, body: &str) -> Option<T> {
    let answer = Client::connect(node).and_then(|mut client| client.request(method, path, body));
    let (code, body) = answer.ok()?;
    (code == 200).then(|| serde_json::from_str(&body).expect("an answer in JSON"))
}
