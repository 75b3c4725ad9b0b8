//! Addresses as an operator writes them: `IP:PORT`. A name in the place of an address is what people try
//! first, so it is refused with the reason.

use std::net::{IpAddr, SocketAddr};

use serde::de::{Deserialize, Deserializer, Error};

/// Why a name is no address here.
const NO_NAMES: &str = "names are not looked up, because nodes have to find each other while no name server \
                        answers, and because an answer could send them elsewhere";

/// An `IP:PORT` of the configuration.
struct WrittenAddress(SocketAddr);

impl<'de> Deserialize<'de> for WrittenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        socket_address(&text).map(Self).map_err(D::Error::custom)
    }
}

/// A list of `IP:PORT`.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let written: Vec<WrittenAddress> = Vec::deserialize(deserializer)?;
    Ok(written.into_iter().map(|WrittenAddress(address)| address).collect())
}

/// An IP address without a port.
pub(super) fn ip<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(match socket_address(&text) {
            Ok(address) => {
                format!("{text:?} has a port: write {} here, and the port as `port`", address.ip())
            }
            Err(_) if is_name(&text) => format!("{text:?} is a name: {NO_NAMES}; write an IP address"),
            Err(_) => format!("{text:?} is not an IP address"),
        })
    })
}

/// Parses `IP:PORT`.
///
/// # Errors
/// What is wrong with the text, and what to write instead.
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let example = SocketAddr::new(ip, super::DEFAULT_PORT);
        return Err(format!("{text:?} has no port: write for example {example}"));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if is_name(host) {
        let port = port.parse().unwrap_or(super::DEFAULT_PORT);
        return Err(format!("{host:?} is a name: {NO_NAMES}; write IP:PORT, for example 192.0.2.4:{port}"));
    }
    Err(format!("{text:?} is not IP:PORT, as 192.0.2.4:7431 or [2001:db8::4]:7431 are"))
}

/// A host name, and nothing that was meant to be an IP address.
fn is_name(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_ip_with_a_port() {
        for text in ["192.0.2.4:7431", "[2001:db8::4]:1", "[::ffff:192.0.2.4]:65535"] {
            assert_eq!(socket_address(text), Ok(text.parse().expect("address")));
        }
    }

    #[test]
    fn what_is_none_is_refused_with_what_to_write() {
        let cases = [
            ("n4:7500", "\"n4\" is a name: names are not looked up"),
            ("n4:7500", "for example 192.0.2.4:7500"),
            ("n4.example.org", "for example 192.0.2.4:7431"),
            ("localhost:1", "is a name"),
            ("192.0.2.4", "has no port: write for example 192.0.2.4:7431"),
            ("2001:db8::4", "has no port: write for example [2001:db8::4]:7431"),
            ("192.0.2.4:70000", "is not IP:PORT"),
            ("192.0.2.4.5:1", "is not IP:PORT"),
            ("2001:db8::4:x", "is not IP:PORT"),
            ("http://n4:1", "is not IP:PORT"),
            ("", "is not IP:PORT"),
        ];
        for (text, wanted) in cases {
            let error = socket_address(text).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
