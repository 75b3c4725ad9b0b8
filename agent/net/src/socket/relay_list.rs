//! The list of relays that an operator wrote down, and the authorities that vouch for their certificates.
//!
//! Only a list that was checked here gets to the endpoint. This module looks no name up and contacts nobody.

use std::net::{IpAddr, Ipv4Addr};

use blixard_model::RelayUrl;
use iroh::tls::{CaTlsConfig, default_provider};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::limits::RELAYS_MAX;

/// Why a list of relays cannot be used. The text names the relay, if it is about one, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayListError {
    /// There are more than [`RELAYS_MAX`] relays.
    #[error("{0} relays, more than {RELAYS_MAX}: leave some out")]
    TooMany(usize),
    /// The relay is in the list more than once.
    #[error("{0} is there twice: leave one out")]
    Twice(RelayUrl),
    /// The URL leads to no address.
    #[error("{url} cannot be used ({cause}): write https:// and the relay's host name or IP address")]
    Unusable {
        /// The URL.
        url: RelayUrl,
        /// What is wrong with it.
        cause: String,
    },
    /// The URL has a path. A relay is asked at a path of the relay protocol, so two URLs that differ only in
    /// their path would be one relay.
    #[error("{0} has a path, which no relay is asked for: leave it out")]
    Path(RelayUrl),
    /// The relay has no TLS and is not at a loopback or private IP address.
    #[error(
        "{0} is without TLS: whoever is on the way could see which nodes talk to each other, and cut them \
         off; write https:// (only a relay at a loopback or private IP address can be http://)"
    )]
    PublicWithoutTls(RelayUrl),
}

/// One relay, in the spellings of the configuration and of iroh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relay {
    /// The URL as it is written in the configuration and in the log.
    pub(crate) url: RelayUrl,
    /// The URL as iroh writes it: two spellings of one relay are equal here.
    pub(crate) iroh: iroh::RelayUrl,
}

/// Up to [`RELAYS_MAX`] relays, in the order of the configuration, no two the same.
///
/// What nodes send each other over a relay is encrypted between the nodes, whatever the relay's URL.
/// `http://` is accepted only where the network up to the relay is the operator's own: at a loopback or
/// private IP address. A host name is not enough, because it may lead anywhere tomorrow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayList(Vec<Relay>);

impl RelayList {
    /// Checks a list.
    ///
    /// # Errors
    /// [`RelayListError`]: the first mistake in the list.
    pub fn new(urls: &[RelayUrl]) -> Result<Self, RelayListError> {
        if urls.len() > RELAYS_MAX {
            return Err(RelayListError::TooMany(urls.len()));
        }
        let mut list = Self::default();
        for url in urls {
            let relay = Relay { url: url.clone(), iroh: to_iroh(url)? };
            if list.find(&relay.iroh).is_some() {
                return Err(RelayListError::Twice(url.clone()));
            }
            if relay.iroh.path() != "/" {
                return Err(RelayListError::Path(url.clone()));
            }
            if !relay.has_tls() && !relay.ip().is_some_and(is_own_network) {
                return Err(RelayListError::PublicWithoutTls(url.clone()));
            }
            list.0.push(relay);
        }
        Ok(list)
    }

    /// The URLs of the relays, as they were written.
    pub fn urls(&self) -> impl Iterator<Item = &RelayUrl> {
        self.0.iter().map(|relay| &relay.url)
    }

    /// The URLs of the relays without TLS, about which the operator should be warned.
    pub fn without_tls(&self) -> impl Iterator<Item = &RelayUrl> {
        self.0.iter().filter(|relay| !relay.has_tls()).map(|relay| &relay.url)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Relay> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name has to be looked up to reach one of the relays.
    pub(crate) fn has_names(&self) -> bool {
        self.0.iter().any(|relay| relay.ip().is_none())
    }

    /// The relay in this list whose URL in the form of iroh is `url`.
    pub(crate) fn find(&self, url: &iroh::RelayUrl) -> Option<&Relay> {
        self.0.iter().find(|relay| relay.iroh == *url)
    }

    /// Whether a relay is in this list, however its URL is spelled.
    pub(crate) fn has(&self, url: &RelayUrl) -> bool {
        to_iroh(url).is_ok_and(|url| self.find(&url).is_some())
    }
}

impl Relay {
    fn has_tls(&self) -> bool {
        self.iroh.scheme() == "https"
    }

    fn ip(&self) -> Option<IpAddr> {
        let host = self.iroh.host_str()?;
        host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

fn to_iroh(url: &RelayUrl) -> Result<iroh::RelayUrl, RelayListError> {
    url.as_str().parse().map_err(|error: iroh::RelayUrlParseError| RelayListError::Unusable {
        url: url.clone(),
        cause: error.to_string(),
    })
}

/// Whether an address is loopback, link-local, private (RFC 1918, RFC 4193) or shared (RFC 6598, as overlay
/// networks use it).
fn is_own_network(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared(ip),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn is_shared(ip: Ipv4Addr) -> bool {
    matches!(ip.octets(), [100, 64..=127, _, _])
}

/// Why a text gives no authorities that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: write one or more certificates of authorities in PEM (-----BEGIN CERTIFICATE-----)")]
pub struct RelayCaError(String);

/// The authorities that must vouch for the certificates of relays, at least one. They have no meaning between
/// members, which know each other by their keys.
#[derive(Debug, Clone)]
pub struct RelayCa(Vec<CertificateDer<'static>>);

impl RelayCa {
    /// Reads certificates in PEM. Everything else in the text is ignored.
    ///
    /// # Errors
    /// [`RelayCaError`] when there is no certificate, or one cannot be read or used.
    pub fn from_pem(text: &[u8]) -> Result<Self, RelayCaError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let certificates = read.map_err(|error| RelayCaError(format!("no PEM ({error:?})")))?;
        if certificates.is_empty() {
            return Err(RelayCaError("no certificate".to_owned()));
        }
        // Each certificate is checked alone, because iroh silently drops those that it cannot use, unless
        // none is left.
        for (number, certificate) in certificates.iter().enumerate() {
            let alone = CaTlsConfig::custom_roots([certificate.clone()]);
            if let Err(error) = alone.server_cert_verifier(default_provider()) {
                return Err(RelayCaError(format!("certificate {} cannot be used ({error})", number + 1)));
            }
        }
        Ok(Self(certificates))
    }

    /// A TLS configuration in which nobody else vouches for a relay. A public authority could be made to
    /// vouch for a false one; a private authority exists so that no public one has to be trusted.
    pub(crate) fn tls(&self) -> CaTlsConfig {
        CaTlsConfig::custom_roots(self.0.iter().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(urls: &[&str]) -> Result<RelayList, RelayListError> {
        let urls: Vec<RelayUrl> = urls.iter().map(|url| url.parse().expect("a url")).collect();
        RelayList::new(&urls)
    }

    #[test]
    fn the_urls_of_relays_are_kept_as_they_are_written() {
        let urls = ["https://b.example.org", "https://a.example.org:444/", "http://10.0.0.1:3340"];
        let relays = list(&urls).expect("fine");
        assert!(relays.urls().map(RelayUrl::as_str).eq(urls));
        assert!(relays.without_tls().map(RelayUrl::as_str).eq(["http://10.0.0.1:3340"]));
        assert!(relays.has_names());
        assert!(relays.has(&"https://b.example.org/".parse().expect("url")), "another spelling");
        assert!(relays.has(&"https://b.example.org:443".parse().expect("url")), "another spelling");
        assert!(!relays.has(&"https://b.example.org:444".parse().expect("url")));
        assert!(!relays.has(&"http://b.example.org".parse().expect("url")));
        assert!(!list(&["https://192.0.2.1", "https://[2001:db8::1]"]).expect("fine").has_names());
        assert!(list(&[]).expect("fine").is_empty());
    }

    #[test]
    fn a_list_of_relays_with_a_mistake_is_refused() {
        let many: Vec<String> = (0..=RELAYS_MAX).map(|n| format!("https://r{n}.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(list(&many), Err(RelayListError::TooMany(RELAYS_MAX + 1)));
        for (urls, wanted) in [
            (&["https://a", "https://a:443/"][..], "twice"),
            (&["https://a/relay"], "path"),
            (&["https://xn--a"], "cannot be used"),
        ] {
            let error = list(urls).expect_err(wanted).to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_relay_without_tls_must_have_a_private_address() {
        for own in
            ["127.0.0.1", "10.1.2.3", "192.168.0.9:80", "100.64.0.1", "[::1]:1", "[fd00::1]", "[fe80::1]"]
        {
            assert!(list(&[&format!("http://{own}")]).is_ok(), "{own}");
        }
        for other in ["192.0.2.1", "100.128.0.1", "[2001:db8::1]", "relay.example.org", "localhost"] {
            let error = list(&[&format!("http://{other}")]).expect_err(other);
            assert!(matches!(error, RelayListError::PublicWithoutTls(_)), "{error}");
            assert!(list(&[&format!("https://{other}")]).is_ok(), "{other}");
        }
    }

    #[test]
    fn a_text_without_a_usable_authority_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, wanted) in [
            ("", "no certificate"),
            ("hello", "no certificate"),
            (broken, "certificate 1 cannot be used"),
            ("-----BEGIN CERTIFICATE-----\n", "no PEM"),
        ] {
            let error = RelayCa::from_pem(text.as_bytes()).expect_err(wanted).to_string();
            assert!(error.contains(wanted) && error.contains("BEGIN CERTIFICATE"), "{error}");
        }
    }
}
