//! The relays that an operator wrote down, checked, and the authority that vouches for them.
//!
//! Only a list that was checked here gets to the endpoint. Never looks a name up, never contacts anybody.

use std::net::{IpAddr, Ipv4Addr};

use blixard_model::RelayUrl;
use iroh::tls::{CaTlsConfig, default_provider};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::limits::RELAYS_MAX;

/// Why a list of relays cannot be used. Names the relay and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayListError {
    /// More than [`RELAYS_MAX`].
    #[error("{0} relays, more than {RELAYS_MAX}: leave some out")]
    TooMany(usize),
    /// One is there more than once.
    #[error("{0} is there twice: leave one out")]
    Twice(RelayUrl),
    /// No address follows from it.
    #[error("{url} cannot be used ({cause}): write https:// and the relay's host name or IP address")]
    Unusable {
        /// The url.
        url: RelayUrl,
        /// What is wrong with it.
        cause: String,
    },
    /// It has a path. A relay is asked at a path of its protocol, so two urls that differ in theirs would be
    /// one relay.
    #[error("{0} has a path, which no relay is asked for: leave it out")]
    Path(RelayUrl),
    /// It is a public one without TLS.
    #[error(
        "{0} is without TLS: whoever is on the way could see which nodes talk to each other, and cut them \
         off; write https:// (only a relay at a loopback or private IP address can be http://)"
    )]
    PublicWithoutTls(RelayUrl),
}

/// One relay, in both spellings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relay {
    /// As it is written in the configuration and in the log.
    pub(crate) url: RelayUrl,
    /// As iroh has it: two texts of one relay are equal here.
    pub(crate) iroh: iroh::RelayUrl,
}

/// Up to [`RELAYS_MAX`] relays, in the order of the configuration, no two the same.
///
/// What goes over a relay is encrypted between the nodes, whatever its url. `http://` is taken only where the
/// way there is the operator's own: a loopback or private address. A name is not enough, it may lead anywhere
/// tomorrow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RelayList(Vec<Relay>);

impl RelayList {
    /// Checks a list.
    ///
    /// # Errors
    /// [`RelayListError`]: the first mistake.
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

    /// The relays, as they were written.
    pub fn urls(&self) -> impl Iterator<Item = &RelayUrl> {
        self.0.iter().map(|relay| &relay.url)
    }

    /// Those without TLS: worth a word to the operator.
    pub fn without_tls(&self) -> impl Iterator<Item = &RelayUrl> {
        self.0.iter().filter(|relay| !relay.has_tls()).map(|relay| &relay.url)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Relay> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name has to be looked up to reach one of them.
    pub(crate) fn has_names(&self) -> bool {
        self.0.iter().any(|relay| relay.ip().is_none())
    }

    /// The relay in this list that iroh writes so.
    pub(crate) fn find(&self, url: &iroh::RelayUrl) -> Option<&Relay> {
        self.0.iter().find(|relay| relay.iroh == *url)
    }

    /// Whether a relay is in this list, however it is spelled.
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

/// Loopback, link-local, private (RFC 1918, RFC 4193) or shared (RFC 6598, as overlay networks use it).
fn is_own_network(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared(ip),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn is_shared(ip: Ipv4Addr) -> bool {
    matches!(ip.octets(), [100, 64..=127, _, _])
}

/// A file that holds no authority's certificate that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}: write one or more certificates of authorities in PEM (-----BEGIN CERTIFICATE-----)")]
pub struct RelayCaError(String);

/// The authorities whose certificates relays have to show, at least one. They are of no account for the
/// members, who know each other by their keys.
#[derive(Debug, Clone)]
pub struct RelayCa(Vec<CertificateDer<'static>>);

impl RelayCa {
    /// Reads certificates in PEM; what else is in the text is ignored.
    ///
    /// # Errors
    /// There is none, or one cannot be read.
    pub fn from_pem(text: &[u8]) -> Result<Self, RelayCaError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let certificates = read.map_err(|error| RelayCaError(format!("no PEM ({error:?})")))?;
        if certificates.is_empty() {
            return Err(RelayCaError("no certificate".to_owned()));
        }
        // One by one: iroh drops those that it cannot use without a word, unless none is left.
        for (number, certificate) in certificates.iter().enumerate() {
            let alone = CaTlsConfig::custom_roots([certificate.clone()]);
            if let Err(error) = alone.server_cert_verifier(default_provider()) {
                return Err(RelayCaError(format!("certificate {} cannot be used ({error})", number + 1)));
            }
        }
        Ok(Self(certificates))
    }

    /// Nobody else vouches for a relay: a public authority could be made to, a private one is there so that
    /// none has to be trusted.
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
    fn own_relays_are_taken_as_they_are_written() {
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
    fn what_can_not_be_a_list_of_relays_is_refused() {
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
    fn without_tls_a_relay_has_to_be_in_an_own_network() {
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
    fn what_is_no_authority_is_refused() {
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
