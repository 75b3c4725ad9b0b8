//! What QEMU says on its control connection, and what it is told: one JSON object a line. Pure.

use serde_json::{Value, json};

/// Longest line that QEMU may send, in bytes.
pub(crate) const LINE_LEN_MAX: usize = 64 * 1024;

/// Longest text taken over from QEMU, in bytes.
const TEXT_LEN_MAX: usize = 200;

/// What QEMU is told. The names are those of QMP's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QmpCommand {
    /// `qmp_capabilities`: leaves the negotiation.
    Capabilities,
    /// `query-status`.
    QueryStatus,
    /// `cont`: the guest runs, or goes on.
    Cont,
    /// `send-key` with ctrl-alt-delete: the guest is asked to shut down.
    CtrlAltDelete,
    /// `quit`: the hypervisor is to end at once.
    Quit,
}

impl QmpCommand {
    /// The line that says it, with this id.
    pub(crate) fn line(self, id: u64) -> String {
        let keys = || ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
        let mut said = json!({ "execute": self.name(), "id": id });
        if self == Self::CtrlAltDelete {
            said["arguments"] = json!({ "keys": keys() });
        }
        format!("{said}\n")
    }

    /// QMP's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "qmp_capabilities",
            Self::QueryStatus => "query-status",
            Self::Cont => "cont",
            Self::CtrlAltDelete => "send-key",
            Self::Quit => "quit",
        }
    }
}

/// What QEMU says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QmpMessage {
    /// The greeting, with which a connection begins.
    Greeting,
    /// The answer to the command with this id.
    Done {
        /// The id, if it is a number.
        id: Option<u64>,
        /// QEMU's run state, in the answer to `query-status`.
        status: Option<String>,
    },
    /// The command with this id was refused.
    Refused {
        /// The id, if it is a number.
        id: Option<u64>,
        /// QEMU's description.
        why: String,
    },
    /// Something happened.
    Event(GuestEvent),
}

/// The events that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// `STOP`: the guest stands still.
    Stop,
    /// `RESUME`: the guest runs.
    Resume,
    /// `SHUTDOWN`, with its reason: QEMU ends.
    Shutdown(String),
    /// `GUEST_PANICKED`.
    Panicked,
    /// `BLOCK_IO_ERROR`: a disk could not be read or written.
    DiskError(GuestDiskError),
    /// Any other.
    Other,
}

/// An error of a disk, as `BLOCK_IO_ERROR` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDiskError {
    /// The name of the block node.
    pub node: String,
    /// The reason in words, for example `No space left on device`.
    pub why: String,
    /// The guest stands still because of it (`action` is `stop`).
    pub stops: bool,
}

/// Why a line is not one of QMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotQmp {
    /// It is not JSON.
    #[error("not JSON")]
    Json,
    /// It is none of the four kinds of object.
    #[error("neither a greeting, an answer nor an event")]
    Kind,
}

/// Reads one line.
pub(crate) fn parse(line: &[u8]) -> Result<QmpMessage, NotQmp> {
    let said: Value = serde_json::from_slice(line).map_err(|_| NotQmp::Json)?;
    let id = || said.get("id").and_then(Value::as_u64);
    if let Some(answer) = said.get("return") {
        let status = answer.get("status").and_then(Value::as_str).map(short);
        return Ok(QmpMessage::Done { id: id(), status });
    }
    if let Some(error) = said.get("error") {
        let why = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
        return Ok(QmpMessage::Refused { id: id(), why: short(why) });
    }
    if let Some(name) = said.get("event").and_then(Value::as_str) {
        return Ok(QmpMessage::Event(event(name, said.get("data").unwrap_or(&Value::Null))));
    }
    if said.get("QMP").is_some() { Ok(QmpMessage::Greeting) } else { Err(NotQmp::Kind) }
}

fn event(name: &str, data: &Value) -> GuestEvent {
    let text = |key: &str| data.get(key).and_then(Value::as_str).map(short).unwrap_or_default();
    match name {
        "STOP" => GuestEvent::Stop,
        "RESUME" => GuestEvent::Resume,
        "SHUTDOWN" => GuestEvent::Shutdown(text("reason")),
        "GUEST_PANICKED" => GuestEvent::Panicked,
        "BLOCK_IO_ERROR" => GuestEvent::DiskError(GuestDiskError {
            node: text("node-name"),
            why: text("reason"),
            stops: data.get("action").and_then(Value::as_str) == Some("stop"),
        }),
        _ => GuestEvent::Other,
    }
}

/// A text of QEMU as it is shown: cut, and without control characters.
fn short(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown[..shown.floor_char_boundary(TEXT_LEN_MAX)].to_owned()
}

/// Puts lines together from what arrives.
#[derive(Debug, Default)]
pub(crate) struct QmpLines {
    pending: Vec<u8>,
}

/// A line is longer than [`LINE_LEN_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line longer than {LINE_LEN_MAX} bytes")]
pub(crate) struct LineTooLong;

impl QmpLines {
    /// Takes what arrived. Returns the whole lines, in their order.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, LineTooLong> {
        self.pending.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let rest = self.pending.split_off(end + 1);
            let line = std::mem::replace(&mut self.pending, rest);
            if !line.trim_ascii().is_empty() {
                lines.push(line);
            }
        }
        if self.pending.len() > LINE_LEN_MAX { Err(LineTooLong) } else { Ok(lines) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says_is_read() {
        let said = |line: &str| parse(line.as_bytes());
        let done = |id, status: Option<&str>| Ok(QmpMessage::Done { id, status: status.map(str::to_owned) });
        assert_eq!(said(r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#), Ok(QmpMessage::Greeting));
        assert_eq!(said(r#"{"return": {}, "id": 7}"#), done(Some(7), None));
        let status = r#"{"return": {"status": "io-error", "running": false}, "id": 8}"#;
        assert_eq!(said(status), done(Some(8), Some("io-error")));
        let refused = QmpMessage::Refused { id: None, why: "not now".to_owned() };
        assert_eq!(said(r#"{"error": {"class": "GenericError", "desc": "not now"}}"#), Ok(refused));
        let shutdown = r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#;
        let event = GuestEvent::Shutdown("guest-shutdown".to_owned());
        assert_eq!(said(shutdown), Ok(QmpMessage::Event(event)));
        let full = r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "", "nospace": true,
            "node-name": "disk0", "operation": "write", "action": "stop",
            "reason": "No space left on device"}}"#;
        let error = GuestDiskError {
            node: "disk0".to_owned(),
            why: "No space left on device".to_owned(),
            stops: true,
        };
        assert_eq!(said(full), Ok(QmpMessage::Event(GuestEvent::DiskError(error))));
        assert_eq!(said(r#"{"event": "NIC_RX"}"#), Ok(QmpMessage::Event(GuestEvent::Other)));
        for wrong in ["hello", "", "{\"return\": 1"] {
            assert_eq!(said(wrong), Err(NotQmp::Json), "{wrong}");
        }
        for wrong in ["{}", "[]", "7", r#"{"event": 7}"#] {
            assert_eq!(said(wrong), Err(NotQmp::Kind), "{wrong}");
        }
    }

    #[test]
    fn a_text_of_qemu_is_cut_and_has_no_control_characters() {
        let line = json!({ "error": { "desc": format!("a\nb\u{1b}{}", "é".repeat(500)) } }).to_string();
        let Ok(QmpMessage::Refused { why, .. }) = parse(line.as_bytes()) else { panic!("{line}") };
        assert!(why.starts_with("a b é") && why.len() <= TEXT_LEN_MAX, "{why}");
    }

    #[test]
    fn each_command_is_one_line_of_json_with_its_id() {
        use QmpCommand::{Capabilities, Cont, CtrlAltDelete, QueryStatus, Quit};
        for command in [Capabilities, QueryStatus, Cont, CtrlAltDelete, Quit] {
            let line = command.line(7);
            assert_eq!(line.matches('\n').count(), 1);
            let said: Value = serde_json::from_str(&line).expect("json");
            assert_eq!((said["execute"].as_str(), said["id"].as_u64()), (Some(command.name()), Some(7)));
        }
        assert!(CtrlAltDelete.line(1).contains("delete"));
    }

    #[test]
    fn lines_are_put_together_and_none_is_longer_than_the_limit() {
        let mut lines = QmpLines::default();
        assert_eq!(lines.push(b"{\"a\""), Ok(vec![]));
        assert_eq!(lines.push(b":1}\r\n\n{}\n{"), Ok(vec![b"{\"a\":1}\r\n".to_vec(), b"{}\n".to_vec()]));
        assert_eq!(lines.push(&vec![b' '; LINE_LEN_MAX - 1]), Ok(vec![]));
        assert_eq!(lines.push(b" "), Err(LineTooLong));
    }
}
