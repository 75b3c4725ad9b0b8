//! Why a connection is closed: close codes that both sides understand, and their translation into reasons for
//! people.

use std::borrow::Cow;
use std::net::SocketAddr;

use iroh::endpoint::{
    ConnectError, ConnectWithOptsError, ConnectingError, Connection, ConnectionError, TransportErrorCode,
    VarInt,
};

use crate::limits::{IDLE_TIMEOUT, REMOVED_WORD_LEN_MAX};
use crate::state::{DownReason, HeldElsewhere};

/// Longest part of a peer's text that is shown, in characters.
const PEER_TEXT_MAX: usize = 200;

/// Why this side closes a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Close {
    /// The node stops.
    Shutdown,
    /// The peer is not in this node's list.
    NotListed,
    /// The hello cannot be accepted.
    Refused(String),
    /// Both sides dialled, and the other connection is kept.
    Duplicate,
    /// The peer made a newer connection.
    Replaced,
    /// The peer was taken off this node's list.
    Unlisted,
    /// The peer sent what it must not send, or stopped taking what it must take.
    Broken(String),
    /// The cluster removed the peer; the text says which removal it was.
    Left(String),
    /// This node serves no joins.
    NoJoins,
    /// No join can be taken at this moment; the application did not see the request.
    Busy(&'static str),
    /// A join was answered.
    Answered,
    /// Another agent that runs with the dialler's key has a live link with this node.
    HeldTwice(HeldElsewhere),
    /// Another agent that runs with this node's key was there first.
    Aside,
}

const SHUTDOWN: u32 = 1;
const NOT_LISTED: u32 = 2;
const REFUSED: u32 = 3;
const DUPLICATE: u32 = 4;
const REPLACED: u32 = 5;
const UNLISTED: u32 = 6;
const BROKEN: u32 = 7;
const LEFT: u32 = 8;
const NO_JOINS: u32 = 9;
const BUSY: u32 = 10;
const ANSWERED: u32 = 11;
const HELD_TWICE: u32 = 12;
const ASIDE: u32 = 13;

/// Stands for an address that is not known.
const UNKNOWN_PLACE: &str = "-";
/// Comes before the text about a removal.
const LEFT_TEXT: &str = "removed from the cluster: ";
/// Comes before the address of the other agent, the address of this one, and the time in milliseconds.
const HELD_TWICE_TEXT: &str = "another agent with your key is linked here: ";

impl Close {
    pub(crate) fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Shutdown => SHUTDOWN,
            Self::NotListed => NOT_LISTED,
            Self::Refused(_) => REFUSED,
            Self::Duplicate => DUPLICATE,
            Self::Replaced => REPLACED,
            Self::Unlisted => UNLISTED,
            Self::Broken(_) => BROKEN,
            Self::Left(_) => LEFT,
            Self::NoJoins => NO_JOINS,
            Self::Busy(_) => BUSY,
            Self::Answered => ANSWERED,
            Self::HeldTwice(_) => HELD_TWICE,
            Self::Aside => ASIDE,
        })
    }

    pub(crate) fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Shutdown => "the node stops",
            Self::NotListed => "your endpoint id is not in this node's list of members",
            Self::Refused(why) | Self::Broken(why) => why,
            Self::Duplicate => "another connection between us is kept",
            Self::Replaced => "a newer connection between us is kept",
            Self::Unlisted => "your endpoint id was taken off this node's list of members",
            Self::Left(word) => return Cow::Owned(format!("{LEFT_TEXT}{word}")),
            Self::NoJoins => "this node lets nobody in by a ticket at this moment",
            Self::Busy(why) => why,
            Self::Answered => "answered",
            Self::Aside => "this agent stands aside for another one that runs with its key",
            Self::HeldTwice(held) => return Cow::Owned(held_text(held)),
        })
    }

    pub(crate) fn apply(&self, connection: &Connection) {
        connection.close(self.code(), self.text().as_bytes());
    }
}

/// How an attempt to connect, or a connection, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// It ended for a reason that is worth showing.
    For(DownReason),
    /// The peer keeps another connection: nothing is wrong.
    Duplicate,
}

/// Translates the end of a connection that was up or was being set up.
pub(crate) fn ended(error: &ConnectionError) -> ConnectionEnd {
    let close = match error {
        ConnectionError::ApplicationClosed(close) => close,
        ConnectionError::TimedOut => {
            let seconds = IDLE_TIMEOUT.as_secs();
            return ConnectionEnd::For(DownReason::Lost(format!("no sign of life for {seconds} s")));
        }
        other => return ConnectionEnd::For(DownReason::Lost(other.to_string())),
    };
    let text = peer_text(&close.reason);
    let reason = match u32::try_from(close.error_code.into_inner()) {
        Ok(DUPLICATE) => return ConnectionEnd::Duplicate,
        Ok(NOT_LISTED | REFUSED | UNLISTED) => DownReason::Refused(text),
        Ok(LEFT) => match removal_word(&close.reason) {
            Some(word) => DownReason::Removed(word),
            None => DownReason::Refused(text),
        },
        Ok(HELD_TWICE) => match held_elsewhere(&close.reason) {
            Some(held) => DownReason::HeldElsewhere(held),
            None => DownReason::Refused(text),
        },
        Ok(SHUTDOWN) => DownReason::Lost("the peer was stopped".to_owned()),
        _ if text.is_empty() => DownReason::Lost("closed by the peer".to_owned()),
        _ => DownReason::Lost(format!("closed by the peer: {text}")),
    };
    ConnectionEnd::For(reason)
}

/// The text about a removal in a peer's close reason; `None` for a reason that no node of ours writes.
fn removal_word(text: &[u8]) -> Option<String> {
    let word = std::str::from_utf8(text).ok()?.strip_prefix(LEFT_TEXT)?;
    let fits = !word.is_empty() && word.len() <= REMOVED_WORD_LEN_MAX && !word.contains(char::is_control);
    fits.then(|| word.to_owned())
}

fn held_text(held: &HeldElsewhere) -> String {
    let place = |address: Option<SocketAddr>| {
        address.map_or_else(|| UNKNOWN_PLACE.to_owned(), |address| address.to_string())
    };
    let HeldElsewhere { other_addr, own_addr, for_ms } = held;
    format!("{HELD_TWICE_TEXT}{} {} {for_ms}", place(*other_addr), place(*own_addr))
}

/// What a peer's close reason says about another agent that runs with this node's key; `None` for a reason
/// that no node of ours writes.
fn held_elsewhere(text: &[u8]) -> Option<HeldElsewhere> {
    let mut words = std::str::from_utf8(text).ok()?.strip_prefix(HELD_TWICE_TEXT)?.split(' ');
    let mut place = || match words.next()? {
        UNKNOWN_PLACE => Some(None),
        address => address.parse().ok().map(Some),
    };
    let (other_addr, own_addr) = (place()?, place()?);
    let for_ms = words.next()?.parse().ok()?;
    words.next().is_none().then_some(HeldElsewhere { other_addr, own_addr, for_ms })
}

/// Why the other side of a join closed the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JoinClosed {
    /// The other side serves no joins. Its application did not see the request.
    NoJoins,
    /// The other side cannot take another join, for this reason. Its application did not see the request.
    Busy(String),
    /// The other side closed the connection for another reason.
    Other(String),
}

/// Translates the end of a connection of the join protocol.
pub(crate) fn join_closed(error: &ConnectionError) -> JoinClosed {
    let ConnectionError::ApplicationClosed(close) = error else {
        return JoinClosed::Other(error.to_string());
    };
    let text = peer_text(&close.reason);
    match u32::try_from(close.error_code.into_inner()) {
        Ok(NO_JOINS) => JoinClosed::NoJoins,
        Ok(BUSY) => JoinClosed::Busy(text),
        _ if text.is_empty() => JoinClosed::Other("closed by the node there".to_owned()),
        _ => JoinClosed::Other(text),
    }
}

/// Why an attempt to connect failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotConnected {
    /// No address to dial is known.
    NoAddress,
    /// Nobody answers.
    NoAnswer,
    /// The node that answers has the key that was dialled, but does not speak the protocol.
    NoProtocol,
    /// The node that answers accepts no connection at this moment.
    TakesNone,
    /// The node that answers does not have the key that was dialled.
    AnotherKey,
    /// The other side closed the connection.
    Closed(ConnectionError),
    /// Anything else.
    Other(String),
}

/// Says why an attempt to connect failed.
pub(crate) fn not_connected(error: &ConnectError) -> NotConnected {
    let connection = match error {
        ConnectError::Connection { source, .. } => source,
        ConnectError::Connecting { source: ConnectingError::ConnectionError { source, .. }, .. } => source,
        ConnectError::Connect { source: ConnectWithOptsError::NoAddress { .. }, .. } => {
            return NotConnected::NoAddress;
        }
        other => return NotConnected::Other(other.to_string()),
    };
    match connection {
        ConnectionError::TimedOut => NotConnected::NoAnswer,
        ConnectionError::ApplicationClosed(_) => NotConnected::Closed(connection.clone()),
        ConnectionError::ConnectionClosed(close) if close.error_code == no_common_protocol() => {
            NotConnected::NoProtocol
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            NotConnected::TakesNone
        }
        ConnectionError::TransportError(error) if error.code == unknown_issuer() => NotConnected::AnotherKey,
        other => NotConnected::Other(other.to_string()),
    }
}

impl NotConnected {
    /// The reason for which the link is down.
    pub(crate) fn ended(self) -> ConnectionEnd {
        ConnectionEnd::For(match self {
            Self::Closed(error) => return ended(&error),
            Self::NoProtocol => {
                let why = "it speaks another version of the protocol: upgrade the older node";
                DownReason::Refused(why.to_owned())
            }
            other => DownReason::Unreachable(other.text()),
        })
    }

    /// The reason, for people.
    pub(crate) fn text(self) -> String {
        let text = match self {
            Self::NoAddress => "no address is known",
            Self::NoAnswer => "no answer",
            Self::NoProtocol => "it does not speak this protocol",
            Self::TakesNone => "the node there takes no connections at this moment",
            Self::AnotherKey => "a node with another key answers at that address",
            Self::Closed(error) => return error.to_string(),
            Self::Other(why) => return why,
        };
        text.to_owned()
    }
}

/// TLS alert `no_application_protocol`.
fn no_common_protocol() -> TransportErrorCode {
    TransportErrorCode::crypto(120)
}

/// TLS alert `unknown_ca`: the certificate belongs to another key.
fn unknown_issuer() -> TransportErrorCode {
    TransportErrorCode::crypto(48)
}

/// A peer's text, made fit for a log line and a table: no control characters, and no more than
/// [`PEER_TEXT_MAX`] characters.
pub(crate) fn peer_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * PEER_TEXT_MAX)]);
    text.chars().filter(|c| !c.is_control()).take(PEER_TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_text_about_a_removal_is_read() {
        for word in ["7", "18446744073709551615", &"w".repeat(REMOVED_WORD_LEN_MAX)] {
            let text = Close::Left(word.to_owned()).text().into_owned();
            assert_eq!(removal_word(text.as_bytes()).as_deref(), Some(word));
        }
        let long = format!("{LEFT_TEXT}{}", "w".repeat(REMOVED_WORD_LEN_MAX + 1));
        let malformed: [&[u8]; 6] = [
            b"",
            b"removed",
            LEFT_TEXT.as_bytes(),
            b"removed from the cluster: a\nb",
            b"removed from the cluster: \xff",
            long.as_bytes(),
        ];
        for text in malformed {
            assert_eq!(removal_word(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn only_a_well_formed_text_about_another_agent_with_the_key_is_read() {
        let at = |text: &str| text.parse().expect("address");
        for held in [
            HeldElsewhere { other_addr: Some(at("10.0.0.1:7431")), own_addr: None, for_ms: 0 },
            HeldElsewhere { other_addr: None, own_addr: Some(at("[fd00::2]:7431")), for_ms: u64::MAX },
        ] {
            assert_eq!(held_elsewhere(held_text(&held).as_bytes()), Some(held));
        }
        for words in ["", "-", "- -", "- - x", "- - 1 2", "host:1 - 1", "- - -1", "-  - 1"] {
            assert_eq!(held_elsewhere(format!("{HELD_TWICE_TEXT}{words}").as_bytes()), None, "{words}");
        }
        assert_eq!(held_elsewhere(b"- - 1"), None);
    }
}
