//! QEMU's control protocol (QMP), as far as it is needed: one JSON object per line, commands answered in
//! order, events in between.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::message::{NotQmp, QmpCommand, QmpLines, QmpMessage, parse};

/// Why the control socket did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens on the socket (yet, or any more).
    #[error("the hypervisor's control socket cannot be reached")]
    Connect(#[source] io::Error),
    /// The hypervisor closed the connection, so it has ended.
    #[error("the hypervisor closed its control socket")]
    Closed,
    /// There was no answer before the deadline.
    #[error("the hypervisor did not answer in time")]
    Timeout,
    /// Reading or writing failed.
    #[error("the hypervisor's control socket cannot be read or written")]
    Io(#[source] io::Error),
    /// What arrived is not the protocol, or a line is longer than the limit.
    #[error("the hypervisor's control socket: {0}")]
    Protocol(String),
    /// The hypervisor refused the command.
    #[error("the hypervisor refused {command}: {detail}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's description of the error.
        detail: String,
    },
}

impl QmpError {
    /// Whether the hypervisor is certainly not running.
    pub(crate) fn is_absent(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Connect(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
            }
            _ => false,
        }
    }
}

/// A connection on which capabilities were negotiated. QEMU serves one connection at a time.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    lines: QmpLines,
    /// Lines that were read and not looked at yet.
    unread: VecDeque<Vec<u8>>,
}

impl Qmp {
    fn new(stream: UnixStream) -> Self {
        Self { stream, lines: QmpLines::default(), unread: VecDeque::new() }
    }

    /// Connects, reads the greeting and leaves negotiation mode.
    pub(crate) fn connect(path: &Path, deadline: Instant) -> Result<Self, QmpError> {
        let mut qmp = Self::new(UnixStream::connect(path).map_err(QmpError::Connect)?);
        match parse(&qmp.read_line(deadline)?) {
            Ok(QmpMessage::Greeting) => {}
            Err(NotQmp::Json) => return Err(QmpError::Protocol(NotQmp::Json.to_string())),
            Ok(_) | Err(NotQmp::Kind) => return Err(QmpError::Protocol("no greeting".into())),
        }
        qmp.command(QmpCommand::Capabilities, deadline)?;
        Ok(qmp)
    }

    /// Runs one command and returns QEMU's run state, if the answer has it. Events that come before the
    /// answer are dropped. Nothing else is asked meanwhile, so the next answer is the answer, whatever its
    /// id.
    pub(crate) fn command(
        &mut self,
        command: QmpCommand,
        deadline: Instant,
    ) -> Result<Option<String>, QmpError> {
        let left = time_left(deadline)?;
        self.stream.set_write_timeout(Some(left)).map_err(QmpError::Io)?;
        self.stream.write_all(command.line(1).as_bytes()).map_err(sort)?;
        loop {
            match self.read(deadline)? {
                QmpMessage::Done { status, .. } => return Ok(status),
                QmpMessage::Refused { why, .. } => {
                    return Err(QmpError::Refused { command: command.name(), detail: why });
                }
                QmpMessage::Event(_) => {}
                QmpMessage::Greeting => return Err(QmpError::Protocol("it greeted twice".into())),
            }
        }
    }

    /// Waits until QEMU closes the connection, which QEMU does when it ends. Returns `false` if it has not
    /// done so by the deadline.
    pub(crate) fn wait_closed(&mut self, deadline: Instant) -> Result<bool, QmpError> {
        loop {
            match self.read(deadline) {
                Ok(_) => {}
                Err(QmpError::Closed) => return Ok(true),
                Err(QmpError::Timeout) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<QmpMessage, QmpError> {
        let line = self.read_line(deadline)?;
        parse(&line).map_err(|error| QmpError::Protocol(error.to_string()))
    }

    fn read_line(&mut self, deadline: Instant) -> Result<Vec<u8>, QmpError> {
        loop {
            if let Some(line) = self.unread.pop_front() {
                return Ok(line);
            }
            self.stream.set_read_timeout(Some(time_left(deadline)?)).map_err(QmpError::Io)?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(read) => {
                    let lines = self.lines.push(&chunk[..read]);
                    self.unread.extend(lines.map_err(|error| QmpError::Protocol(error.to_string()))?);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(sort(error)),
            }
        }
    }
}

fn sort(error: io::Error) -> QmpError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => QmpError::Timeout,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed,
        _ => QmpError::Io(error),
    }
}

/// The time left; never zero, because a socket timeout of zero means no timeout.
fn time_left(deadline: Instant) -> Result<Duration, QmpError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(QmpError::Timeout) } else { Ok(left) }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A hypervisor's control socket for tests. It sends the first line of a script at once, and each further
    //! line after it has read a line.

    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::{Path, PathBuf};
    use std::thread::JoinHandle;

    pub(crate) const GREETING: &str = r#"{"QMP":{"version":{},"capabilities":[]}}"#;
    pub(crate) const OK: &str = r#"{"return":{}}"#;

    /// Serves one connection, and closes it when the script has ended. The thread returns the lines that it
    /// was sent.
    pub(crate) fn serve(dir: &Path, script: &[&str]) -> (PathBuf, JoinHandle<Vec<String>>) {
        let path = dir.join("qmp.sock");
        let listener = UnixListener::bind(&path).expect("bind");
        let script: Vec<String> = script.iter().map(|line| format!("{line}\n")).collect();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept");
            let mut reader = BufReader::new(stream.try_clone().expect("clone"));
            let mut got = Vec::new();
            for (i, line) in script.iter().enumerate() {
                if i > 0 {
                    let mut command = String::new();
                    reader.read_line(&mut command).expect("read");
                    got.push(command);
                }
                (&stream).write_all(line.as_bytes()).expect("write");
            }
            got
        });
        (path, server)
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{GREETING, OK, serve};
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn events_before_an_answer_are_skipped_and_the_end_is_noticed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let answer = "{\"event\":\"RESUME\",\"timestamp\":{}}\n{\"return\":{\"status\":\"running\"}}";
        let (path, server) = serve(dir.path(), &[GREETING, OK, answer]);
        let mut qmp = Qmp::connect(&path, soon()).expect("connect");
        let status = qmp.command(QmpCommand::QueryStatus, soon()).expect("answer");
        assert_eq!(status.as_deref(), Some("running"));
        assert!(qmp.wait_closed(soon()).expect("closed"));
        let sent = server.join().expect("server");
        assert!(sent[0].contains("qmp_capabilities") && sent[1].contains("query-status"));
    }

    #[test]
    fn the_error_of_a_refused_command_holds_qemus_description() {
        let dir = tempfile::tempdir().expect("tempdir");
        let refusal = r#"{"error":{"class":"GenericError","desc":"not now"}}"#;
        let (path, _server) = serve(dir.path(), &[GREETING, OK, refusal]);
        let mut qmp = Qmp::connect(&path, soon()).expect("connect");
        let error = qmp.command(QmpCommand::Quit, soon()).expect_err("refused");
        assert_eq!(error.to_string(), "the hypervisor refused quit: not now");
    }

    #[test]
    fn garbage_and_endless_lines_are_refused() {
        for (greeting, words) in
            [("hello", "not JSON"), ("{}", "no greeting"), (&*"x".repeat(200_000), "longer than")]
        {
            let dir = tempfile::tempdir().expect("tempdir");
            let (path, _server) = serve(dir.path(), &[greeting]);
            let error = Qmp::connect(&path, soon()).expect_err("not the protocol");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn fuzz_qmp_answers() {
        let answer = format!(
            "{GREETING}\n{OK}\n{{\"event\":\"RESUME\"}}\n{{\"return\":{{\"status\":\"running\"}}}}\n"
        );
        let target = blixard_hostile::Target::new("qmp-answers")
            .len_max(96 << 10)
            .valid(answer)
            .valid(format!("{OK}\n"));
        let target = target.valid("{\"error\":{\"class\":\"GenericError\",\"desc\":\"not now\"}}\n");
        target.words(["\"return\"", "\"error\":", "\"event\":", "\"desc\":", "{", "}", "\n", "null"]).run(
            |bytes| {
                let (ours, mut theirs) = UnixStream::pair().expect("pair");
                theirs.write_all(bytes).expect("fits into the socket");
                theirs.shutdown(std::net::Shutdown::Write).expect("shutdown");
                let mut qmp = Qmp::new(ours);
                for _ in 0..3 {
                    if let Err(error) = qmp.command(QmpCommand::QueryStatus, soon()) {
                        return error.to_string();
                    }
                }
                qmp.wait_closed(soon()).map_or_else(|error| error.to_string(), |closed| closed.to_string())
            },
        );
    }

    #[test]
    fn a_silent_socket_times_out_and_an_absent_one_is_recognised() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("qmp.sock");
        assert!(Qmp::connect(&path, soon()).expect_err("absent").is_absent());
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        let error = Qmp::connect(&path, Instant::now() + Duration::from_millis(30)).expect_err("silent");
        assert!(matches!(error, QmpError::Timeout) && !error.is_absent());
        drop(listener);
        assert!(Qmp::connect(&path, soon()).expect_err("left behind").is_absent());
    }
}
