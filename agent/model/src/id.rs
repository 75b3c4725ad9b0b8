//! Identifiers: parsed once at the edge, trusted afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest node or VM name, in bytes.
pub const NAME_LEN_MAX: usize = 48;
/// Longest cluster name, in bytes.
pub const CLUSTER_NAME_LEN_MAX: usize = 64;
/// Longest request id, in bytes.
pub const REQUEST_ID_LEN_MAX: usize = 64;

/// A text that is not an id of the wanted kind. The message says what the kind looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {rule}")]
pub struct InvalidId {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

impl InvalidId {
    pub(crate) fn new(kind: &'static str, rule: &'static str, text: &str) -> Self {
        // The text may come from a stranger: quote only its beginning.
        Self { kind, rule, text: text.chars().take(64).collect() }
    }
}

const NAME_RULE: &str = "1 to 48 of a-z, 0-9 and '-', beginning with a letter and not ending with '-'";

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    bytes.len() <= NAME_LEN_MAX
        && first.is_ascii_lowercase()
        && *last != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId::new($kind, $rule, text)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// Name of a node, unique in its cluster: `[a-z]([a-z0-9-]{0,46}[a-z0-9])?`.
    NodeName, "node name", NAME_RULE, is_name
}

text_id! {
    /// Name of a VM, unique in its cluster: `[a-z]([a-z0-9-]{0,46}[a-z0-9])?`, so that it is its own systemd
    /// instance name without escaping.
    VmName, "VM name", NAME_RULE, is_name
}

text_id! {
    /// Names one request of one client, so that sending it twice applies it once. The client chooses it.
    RequestId, "request id", "1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'", |text| {
        !text.is_empty()
            && text.len() <= REQUEST_ID_LEN_MAX
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    }
}

text_id! {
    /// Name of a cluster, the same in every member's configuration.
    ClusterName, "cluster name", "1 to 64 of a-z, 0-9, '-' and '.', not beginning with '-' or '.'", |text| {
        !text.is_empty()
            && text.len() <= CLUSTER_NAME_LEN_MAX
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps raw bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first ten hexadecimal digits, for logs and tables.
            pub fn short(&self) -> String {
                self.to_string()[..10].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let wrong = || InvalidId::new($kind, $rule, text);
                if text.len() != 2 * $len || !text.is_ascii() {
                    return Err(wrong());
                }
                let mut bytes = [0; $len];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digit = |b: u8| char::from(b).to_digit(16).ok_or_else(wrong);
                    let value = digit(pair[0])? * 16 + digit(pair[1])?;
                    *byte = u8::try_from(value).map_err(|_| wrong())?;
                }
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

hex_id! {
    /// The public half of a node's ed25519 key: its iroh endpoint id, and the identity that a handshake
    /// proves.
    EndpointId, 32, "endpoint id", "64 hexadecimal digits, as `blixard keygen` prints them"
}

hex_id! {
    /// Random id of one store (one data directory). A node that lost its disk has a new one.
    StoreId, 16, "store id", "32 hexadecimal digits"
}

hex_id! {
    /// Id of a cluster: a digest of its genesis, so that two formations never share one.
    ClusterId, 16, "cluster id", "32 hexadecimal digits"
}

hex_id! {
    /// Random id of a ticket; no secret.
    TicketId, 8, "ticket id", "16 hexadecimal digits, as `blixard cluster ticket list` shows them"
}

hex_id! {
    /// Hash of a ticket's secret.
    TicketHash, 32, "ticket hash", "64 hexadecimal digits"
}

/// Raft's name for a member: allocated by the cluster, bound to one endpoint id and one store id, never used
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RaftId(pub u64);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_systemd_needs_no_escaping_for() {
        for good in ["a", "web", "web-1", "a0", &"a".repeat(48)] {
            assert!(good.parse::<VmName>().is_ok(), "{good}");
        }
        let bad = [
            "",
            "-a",
            "a-",
            "1a",
            "A",
            "a_b",
            "a/b",
            "../a",
            "a.b",
            "a\n",
            "é",
            "a b",
            "%n",
            "a@b",
            &"a".repeat(49),
        ];
        for text in bad {
            assert!(text.parse::<VmName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn hex_ids_round_trip_and_refuse_other_texts() {
        let id = EndpointId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse::<EndpointId>(), Ok(id));
        assert_eq!(id.short(), "ababababab");
        for bad in ["", "ab", &"zz".repeat(32), &"é".repeat(32)] {
            assert!(bad.parse::<EndpointId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_quotes_only_the_beginning_of_a_long_text() {
        let error = "x!".repeat(5_000).parse::<VmName>().expect_err("too long");
        assert!(error.to_string().len() < 300);
    }
}
