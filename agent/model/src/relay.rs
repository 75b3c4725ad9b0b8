//! Where a relay is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest relay url, in bytes.
pub const RELAY_URL_LEN_MAX: usize = 256;

/// A text that is no relay url. The message says what one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a relay url: at most {RELAY_URL_LEN_MAX} bytes of http:// or https://, a host name or \
     IP address, and if need be a port and a path; no user, query or fragment"
)]
pub struct InvalidRelayUrl {
    text: String,
}

/// The url of a relay that a member can be reached through: a hint, as addresses are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelayUrl(String);

impl RelayUrl {
    /// The url as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RelayUrl {
    type Err = InvalidRelayUrl;
    fn from_str(text: &str) -> Result<Self, InvalidRelayUrl> {
        if is_relay_url(text) {
            return Ok(Self(text.to_owned()));
        }
        // The text may come from a stranger: quote only its beginning.
        Err(InvalidRelayUrl { text: text.chars().take(64).collect() })
    }
}

impl TryFrom<String> for RelayUrl {
    type Error = InvalidRelayUrl;
    fn try_from(text: String) -> Result<Self, InvalidRelayUrl> {
        text.parse()
    }
}

impl From<RelayUrl> for String {
    fn from(url: RelayUrl) -> String {
        url.0
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Stricter than the url standard, so that every reader of the log reads it alike.
fn is_relay_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest.filter(|_| text.len() <= RELAY_URL_LEN_MAX) else { return false };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    is_authority(authority) && path.bytes().all(plain)
}

fn is_authority(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((ip, port)) = rest.split_once(']') else { return false };
        return ip.parse::<std::net::Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port));
    }
    let (host, port) = text.find(':').map_or((text, ""), |at| text.split_at(at));
    is_host(host) && (port.is_empty() || is_port(port))
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    // A name whose last label is a number would be read as an IPv4 address.
    let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.split('.').all(is_label) && (!numeric || text.parse::<std::net::Ipv4Addr>().is_ok())
}

/// `:1` to `:65535`.
fn is_port(text: &str) -> bool {
    let Some(digits) = text.strip_prefix(':') else { return false };
    !digits.starts_with(['0', '+']) && digits.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_relay_is_taken_as_it_is() {
        for good in [
            "https://relay.example.org",
            "https://relay.example.org/",
            "http://10.0.0.1:3340",
            "http://[fd00::1]:3340/relay",
            "https://a",
        ] {
            assert_eq!(good.parse::<RelayUrl>().expect(good).as_str(), good);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let bad = [
            "",
            "https://",
            "ftp://a",
            "relay.example.org",
            "https:///path",
            "https://a b",
            "https://a:0",
            "https://a:65536",
            "https://a:",
            "https://a:+1",
            "https://user@a",
            "https://a?q",
            "https://a#f",
            "https://a/%00",
            "https://A",
            "https://-a",
            "https://a..b",
            "https://[fd00::1",
            "https://[x]",
            "https://1.2.3",
            "https://é",
            "https://a\n",
            &format!("https://{}", "a".repeat(RELAY_URL_LEN_MAX)),
        ];
        for text in bad {
            assert!(text.parse::<RelayUrl>().is_err(), "{text:?}");
            assert!(serde_json::from_value::<RelayUrl>(text.into()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_quotes_only_the_beginning_of_a_long_text() {
        let error = "x".repeat(5_000).parse::<RelayUrl>().expect_err("too long");
        assert!(error.to_string().len() < 400);
    }
}
