//! Why a connection is closed: codes that both sides understand, and their translation into reasons for
//! people.

use iroh::endpoint::{
    ConnectError, ConnectWithOptsError, ConnectingError, Connection, ConnectionError, TransportErrorCode,
    VarInt,
};

use crate::limits::IDLE_TIMEOUT;
use crate::state::DownReason;

/// Longest part of a peer's own words that is shown, in characters.
const PEER_TEXT_MAX: usize = 200;

/// Why this side closes a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Close {
    /// The node stops.
    Shutdown,
    /// The peer is not in this node's list.
    NotListed,
    /// The hello can not be accepted.
    Refused(String),
    /// Both dialled, and the other connection is the one kept.
    Duplicate,
    /// The peer made a newer connection.
    Replaced,
    /// The peer was taken off this node's list.
    Removed,
    /// The peer sent what it must not send, or stopped taking what it must take.
    Broken(String),
}

const SHUTDOWN: u32 = 1;
const NOT_LISTED: u32 = 2;
const REFUSED: u32 = 3;
const DUPLICATE: u32 = 4;
const REPLACED: u32 = 5;
const REMOVED: u32 = 6;
const BROKEN: u32 = 7;

impl Close {
    pub(crate) fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Shutdown => SHUTDOWN,
            Self::NotListed => NOT_LISTED,
            Self::Refused(_) => REFUSED,
            Self::Duplicate => DUPLICATE,
            Self::Replaced => REPLACED,
            Self::Removed => REMOVED,
            Self::Broken(_) => BROKEN,
        })
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Shutdown => "the node stops",
            Self::NotListed => "your endpoint id is not in this node's list of members",
            Self::Refused(why) | Self::Broken(why) => why,
            Self::Duplicate => "another connection between us is kept",
            Self::Replaced => "a newer connection between us is kept",
            Self::Removed => "your endpoint id was taken off this node's list of members",
        }
    }

    pub(crate) fn apply(&self, connection: &Connection) {
        connection.close(self.code(), self.text().as_bytes());
    }
}

/// How an attempt to connect, or a connection, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// For a reason worth showing.
    For(DownReason),
    /// The peer keeps another connection: nothing is wrong.
    Duplicate,
}

/// Translates the end of a connection that was up or nearly so.
pub(crate) fn ended(error: &ConnectionError) -> Ended {
    let close = match error {
        ConnectionError::ApplicationClosed(close) => close,
        ConnectionError::TimedOut => {
            let seconds = IDLE_TIMEOUT.as_secs();
            return Ended::For(DownReason::Lost(format!("no sign of life for {seconds} s")));
        }
        other => return Ended::For(DownReason::Lost(other.to_string())),
    };
    let text = peer_text(&close.reason);
    let reason = match u32::try_from(close.error_code.into_inner()) {
        Ok(DUPLICATE) => return Ended::Duplicate,
        Ok(NOT_LISTED | REFUSED | REMOVED) => DownReason::Refused(text),
        Ok(SHUTDOWN) => DownReason::Lost("the peer was stopped".to_owned()),
        _ if text.is_empty() => DownReason::Lost("closed by the peer".to_owned()),
        _ => DownReason::Lost(format!("closed by the peer: {text}")),
    };
    Ended::For(reason)
}

/// Translates a failed attempt to connect.
pub(crate) fn not_connected(error: &ConnectError) -> Ended {
    let connection = match error {
        ConnectError::Connection { source, .. } => source,
        ConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. } => source,
        ConnectError::Connect { source: ConnectWithOptsError::NoAddress { .. }, .. } => {
            return Ended::For(DownReason::Unreachable("no address is known".to_owned()));
        }
        other => return Ended::For(DownReason::Unreachable(other.to_string())),
    };
    match connection {
        ConnectionError::TimedOut => Ended::For(DownReason::Unreachable("no answer".to_owned())),
        ConnectionError::ApplicationClosed(_) => ended(connection),
        ConnectionError::ConnectionClosed(close) if close.error_code == no_common_protocol() => {
            let why = "it speaks another version of the protocol: upgrade the older node";
            Ended::For(DownReason::Refused(why.to_owned()))
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            let why = "the node there takes no connections at this moment";
            Ended::For(DownReason::Unreachable(why.to_owned()))
        }
        ConnectionError::TransportError(error) if error.code == unknown_issuer() => {
            let why = "a node with another key answers at that address";
            Ended::For(DownReason::Unreachable(why.to_owned()))
        }
        other => Ended::For(DownReason::Unreachable(other.to_string())),
    }
}

/// TLS alert `no_application_protocol`.
fn no_common_protocol() -> TransportErrorCode {
    TransportErrorCode::crypto(120)
}

/// TLS alert `unknown_ca`: the certificate is that of another key.
fn unknown_issuer() -> TransportErrorCode {
    TransportErrorCode::crypto(48)
}

/// What a peer wrote, made fit for a log line and a table.
pub(crate) fn peer_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * PEER_TEXT_MAX)]);
    text.chars().filter(|c| !c.is_control()).take(PEER_TEXT_MAX).collect()
}
