//! A VM's console, from the journal: what the VM's unit wrote, read through `journalctl`.
//!
//! The guest chooses this text. So the length of lines is bounded, and control characters, which a terminal
//! would obey, are removed.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use blixard_model::VmName;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::unit::unit_name;

/// Longest line that is returned, in bytes of the journal; the rest of a longer line follows as further
/// lines.
pub const LINE_LEN_MAX: usize = 8 * 1024;
/// Most lines that [`last_lines`] returns, or that [`follow`] begins with.
pub const LINES_MAX: u32 = 10_000;

const LAST_LINES_DEADLINE: Duration = Duration::from_secs(5);
const STDERR_LEN_MAX: u64 = 1024;

/// Why the journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// `journalctl` could not be run or read.
    #[error("journalctl cannot be run or read")]
    Io(#[from] io::Error),
    /// `journalctl` refused.
    #[error("journalctl failed ({status}): {message}")]
    Failed {
        /// The exit status of `journalctl`.
        status: String,
        /// The beginning of its error output.
        message: String,
    },
    /// `journalctl` took longer than 5 s.
    #[error("journalctl did not answer within {} s", LAST_LINES_DEADLINE.as_secs())]
    Timeout,
}

/// The last lines that a VM's unit wrote since the machine was booted, oldest first: the guest's console, and
/// the launcher's own messages. With `invocation`, only lines of that run of the unit.
///
/// # Errors
/// The journal could not be read (the agent's user must be in the group systemd-journal).
pub async fn last_lines(
    name: &VmName,
    invocation: Option<&str>,
    lines: u32,
) -> Result<Vec<String>, JournalError> {
    let reading = async {
        let mut follow = Follow::spawn(arguments(name, invocation, lines, false))?;
        let mut collected = Vec::new();
        // journalctl counts a message of several lines as one, so the number of lines is bounded here once
        // more.
        while let Some(line) = follow.next_line().await? {
            if collected.len() >= LINES_MAX as usize {
                collected.remove(0);
            }
            collected.push(line);
        }
        let excess = collected.len().saturating_sub(lines as usize);
        Ok(collected.split_off(excess))
    };
    tokio::time::timeout(LAST_LINES_DEADLINE, reading).await.unwrap_or(Err(JournalError::Timeout))
}

/// The last lines, and then every further line as it is written. Dropping the [`Follow`] ends its
/// `journalctl`.
///
/// # Errors
/// `journalctl` could not be started.
pub fn follow(name: &VmName, lines: u32) -> Result<Follow, JournalError> {
    Follow::spawn(arguments(name, None, lines, true))
}

/// A running `journalctl`; see [`follow`].
#[derive(Debug)]
pub struct Follow {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// The part of a line that was read before a call was cancelled.
    partial: Vec<u8>,
}

impl Follow {
    fn spawn(arguments: Vec<String>) -> Result<Self, JournalError> {
        let mut child = Command::new("journalctl")
            .args(arguments)
            .env("SYSTEMD_COLORS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe from journalctl"))?;
        Ok(Self { child, lines: BufReader::with_capacity(LINE_LEN_MAX, stdout), partial: Vec::new() })
    }

    /// The next line, without its line end; `None` when `journalctl` has ended, which it does not do by
    /// itself while it follows. A cancelled call loses nothing.
    ///
    /// # Errors
    /// `journalctl` failed.
    pub async fn next_line(&mut self) -> Result<Option<String>, JournalError> {
        match read_bounded(&mut self.lines, &mut self.partial).await? {
            Some(line) => Ok(Some(plain(&line))),
            None => self.ended().await,
        }
    }

    async fn ended(&mut self) -> Result<Option<String>, JournalError> {
        let mut message = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            stderr.take(STDERR_LEN_MAX).read_to_string(&mut message).await?;
        }
        let status = self.child.wait().await?;
        if status.success() {
            return Ok(None);
        }
        Err(JournalError::Failed { status: status.to_string(), message: message.trim().to_owned() })
    }
}

fn arguments(name: &VmName, invocation: Option<&str>, lines: u32, follow: bool) -> Vec<String> {
    let mut arguments: Vec<String> = vec![
        "--quiet".into(),
        "--no-pager".into(),
        "--boot".into(),
        "--output=cat".into(),
        format!("--lines={}", lines.min(LINES_MAX)),
    ];
    if follow {
        arguments.push("--follow".into());
    }
    // Not `--unit`, because that adds systemd's own messages about the unit.
    arguments.push(format!("_SYSTEMD_UNIT={}", unit_name(name)));
    if let Some(invocation) = invocation {
        arguments.push(format!("_SYSTEMD_INVOCATION_ID={invocation}"));
    }
    arguments
}

/// Reads up to the end of a line or [`LINE_LEN_MAX`] bytes, whichever comes first; `None` at the end of the
/// input. Collects the bytes in `line`, so that the next call continues where a cancelled one was.
async fn read_bounded(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then(|| std::mem::take(line)));
        }
        let room = LINE_LEN_MAX - line.len();
        let end = available.iter().take(room).position(|byte| *byte == b'\n');
        let taken = end.unwrap_or_else(|| available.len().min(room));
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() || line.len() == LINE_LEN_MAX {
            return Ok(Some(std::mem::take(line)));
        }
    }
}

/// The text of a line without what a terminal would obey: escape sequences and control characters.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' if rest.next_if_eq(&'[').is_some() => {
                // A control sequence: parameters up to one final character.
                while rest.next_if(|c| matches!(c, ' '..='?')).is_some() {}
                rest.next_if(|c| matches!(c, '@'..='~'));
            }
            '\t' => plain.push(' '),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_control_characters_are_removed() {
        let cases: [(&[u8], &str); 5] = [
            (b"BLIXARD-GUEST-UP name=web boot=1\r", "BLIXARD-GUEST-UP name=web boot=1"),
            (b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07 \x1b[2J", "red ]0;title "),
            (b"a\tb\x08\x7fc", "a bc"),
            (b"caf\xc3\xa9 \xff", "caf\u{e9} \u{fffd}"),
            (b"\x1b", ""),
        ];
        for (line, text) in cases {
            assert_eq!(plain(line), text);
        }
    }

    #[tokio::test]
    async fn long_lines_are_split_and_nothing_is_lost() {
        let long = "x".repeat(LINE_LEN_MAX + 5);
        let text = format!("first\n\n{long}\nlast");
        let mut reader = BufReader::with_capacity(100, text.as_bytes());
        let (mut lines, mut partial) = (Vec::new(), Vec::new());
        while let Some(line) = read_bounded(&mut reader, &mut partial).await.expect("read") {
            lines.push(String::from_utf8(line).expect("utf8"));
        }
        assert_eq!(lines, ["first", "", &"x".repeat(LINE_LEN_MAX), "xxxxx", "last"]);
    }

    #[test]
    fn fuzz_journal_lines() {
        use futures_util::FutureExt;
        let target = blixard_hostile::Target::new("journal-lines")
            .len_max(3 * LINE_LEN_MAX)
            .valid("first\n\nlast")
            .valid("x".repeat(LINE_LEN_MAX + 9));
        let target = target
            .valid("\x1b[1;31mred\x1b[0m \x1b]0;title\x07\n")
            .words(["\x1b", "\x1b[", "\u{9b}", ";", "\n", "\u{202e}"]);
        target.run(|bytes| {
            let mut reader = BufReader::with_capacity(100, bytes);
            let (mut partial, mut read, mut kinds) = (Vec::new(), 0, String::new());
            while let Some(line) =
                read_bounded(&mut reader, &mut partial).now_or_never().expect("ready").expect("read")
            {
                assert!(line.len() <= LINE_LEN_MAX);
                read += line.len() + 1;
                let plain = plain(&line);
                assert!(!plain.chars().any(char::is_control), "{plain:?}");
                kinds.push_str(if plain.is_empty() { "e" } else { "l" });
            }
            let cut = bytes.len() / LINE_LEN_MAX + 1;
            assert!(read + cut >= bytes.len(), "{read} of {} bytes", bytes.len());
            kinds.truncate(20);
            kinds
        });
    }

    #[test]
    fn the_arguments_name_one_unit_and_are_bounded() {
        let name: VmName = "web".parse().expect("name");
        let follow = arguments(&name, None, u32::MAX, true);
        assert!(follow.contains(&"--lines=10000".to_owned()) && follow.contains(&"--follow".to_owned()));
        assert_eq!(follow.last().map(String::as_str), Some("_SYSTEMD_UNIT=blixard-vm@web.service"));
        let one_run = arguments(&name, Some("ab12"), 5, false);
        assert_eq!(one_run.last().map(String::as_str), Some("_SYSTEMD_INVOCATION_ID=ab12"));
    }
}
