//! The relays of this node's own list in use: the only ones that it ever talks to.
//!
//! Where a peer says it is reached is a hint that whoever has a member's key may write into the log. A relay
//! that is not in the list is counted, logged once, and never contacted.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use blixard_model::{EndpointId, RelayUrl, mutant};
use iroh::dns::DnsResolver;
use iroh::endpoint::RelayStatus;
use iroh::tls::CaTlsConfig;
use iroh::{Endpoint, NetReportConfig, RelayConfig, RelayMap, RelayMode, Watcher};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::limits::{REFUSALS_LOGGED_MAX, RELAY_PATIENCE};
use crate::socket::relay_list::{RelayCa, RelayList};
use crate::stats::Counter;

/// The list, and what was seen of it.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    list: RelayList,
    ca: Option<RelayCa>,
    /// Times a peer's relay was not used.
    pub(crate) foreign: Counter,
    logged: Mutex<BTreeSet<(EndpointId, String)>>,
    /// The one that this node is found at, at this moment.
    home: watch::Sender<Option<RelayUrl>>,
}

impl Relays {
    pub(crate) fn new(list: RelayList, ca: Option<RelayCa>) -> Self {
        Self { list, ca, ..Self::default() }
    }

    /// Exactly the listed ones, without address discovery: iroh sends that, over UDP, to a port of its own.
    pub(crate) fn mode(&self) -> RelayMode {
        if self.list.is_empty() {
            return RelayMode::Disabled;
        }
        let relays = self.list.iter().map(|relay| RelayConfig::new(relay.iroh.clone(), None));
        RelayMode::Custom(RelayMap::from_iter(relays))
    }

    /// What iroh may try out. Which relay is nearest, and with that the one to be found at, it learns only
    /// by asking each listed one over HTTPS. That no portal is in the way it need not know.
    pub(crate) fn probes(&self) -> NetReportConfig {
        let mut probes = NetReportConfig::minimal();
        probes.https_probes = !self.list.is_empty();
        probes
    }

    /// Names are looked up as the machine is configured to, and only when a relay has one. iroh's own default
    /// asks public resolvers when the machine's do not answer.
    pub(crate) fn resolver(&self) -> DnsResolver {
        let resolver = DnsResolver::builder().disable_fallback();
        if self.list.has_names() { resolver.with_system_defaults().build() } else { resolver.build() }
    }

    /// Who vouches for a relay: the configured authorities and nobody else, or those that Mozilla trusts.
    pub(crate) fn tls(&self) -> CaTlsConfig {
        self.ca.as_ref().map_or_else(CaTlsConfig::embedded, RelayCa::tls)
    }

    /// Which relays a peer may be dialled through that says it is found at this one: none when it is a
    /// foreign one, else all. It may have gone to another since, and cannot tell while nothing connects.
    pub(crate) fn for_peer(&self, id: EndpointId, url: Option<&RelayUrl>) -> Vec<iroh::RelayUrl> {
        let Some(url) = url else { return Vec::new() };
        if mutant::lives("foreign-relay-used") {
            return url.as_str().parse().into_iter().collect();
        }
        if !self.list.has(url) {
            self.note_foreign(id, url);
            return Vec::new();
        }
        self.list.iter().map(|relay| relay.iroh.clone()).collect()
    }

    /// Counts, and logs once for each peer and relay; as with strangers, not beyond a number of them.
    fn note_foreign(&self, id: EndpointId, url: &RelayUrl) {
        self.foreign.add(1);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() < REFUSALS_LOGGED_MAX && logged.insert((id, url.as_str().to_owned())) {
            tracing::warn!(
                PEER = %id.short(),
                "the relay {url} of {id} is not used: it is not in this node's own list (net.relay_urls)"
            );
        }
    }

    /// The listed relay that iroh writes so.
    pub(crate) fn listed(&self, url: &iroh::RelayUrl) -> Option<RelayUrl> {
        self.list.find(url).map(|relay| relay.url.clone())
    }

    /// Where this node is found: the relay that iroh chose, and before it did the first of the list.
    pub(crate) fn home(&self) -> Option<RelayUrl> {
        self.home.borrow().clone().or_else(|| self.list.urls().next().cloned())
    }

    /// Follows iroh's choice, and says when the relay is reached and when it is not, for as long as it is
    /// asked to.
    pub(crate) async fn follow_home(&self, endpoint: &Endpoint) {
        if self.list.is_empty() {
            return std::future::pending().await;
        }
        let mut statuses = endpoint.home_relay_status();
        let mut said = None;
        loop {
            let status = statuses.get().into_iter().next();
            if let Some(url) = status.as_ref().and_then(|status| self.listed(status.url())) {
                self.note_home(url);
            }
            let connected = status.as_ref().is_some_and(RelayStatus::is_connected);
            if connected && said != Some(true) {
                said = Some(true);
                tracing::info!("connected to the relay {}", self.home_text());
            }
            // A moment without it is none worth a line: it connects again by itself.
            let patience = async {
                if connected || said == Some(false) {
                    std::future::pending::<()>().await;
                }
                sleep(RELAY_PATIENCE).await;
            };
            tokio::select! {
                updated = statuses.updated() => if updated.is_err() {
                    // The endpoint is gone: its keeper sees that.
                    return std::future::pending().await;
                },
                () = patience => {
                    said = Some(false);
                    let why = status.as_ref().and_then(RelayStatus::last_error);
                    let why = why.map_or_else(|| "none answers".to_owned(), |why| format!("{why:#}"));
                    tracing::warn!(
                        "no relay is connected ({why}): this node is reached only directly, it goes on trying"
                    );
                }
            }
        }
    }

    fn home_text(&self) -> String {
        self.home().map_or_else(String::new, |url| url.to_string())
    }

    fn note_home(&self, url: RelayUrl) {
        self.home.send_if_modified(|home| {
            let changed = home.as_ref() != Some(&url);
            *home = Some(url);
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::CapturedLog;

    fn url(text: &str) -> RelayUrl {
        text.parse().expect("a url")
    }

    fn relays(urls: &[&str]) -> Relays {
        let urls: Vec<RelayUrl> = urls.iter().map(|text| url(text)).collect();
        Relays::new(RelayList::new(&urls).expect("a list"), None)
    }

    #[test]
    fn a_peer_is_dialled_through_the_own_relays_or_through_none() {
        let (log, _guard) = CapturedLog::start();
        let (id, own) = (EndpointId::from_bytes([7; 32]), relays(&["https://a", "https://b"]));
        let all = ["https://a/", "https://b/"].map(|text| text.parse().expect("a url"));
        assert_eq!(own.for_peer(id, Some(&url("https://b"))), all, "it may have gone to the other");
        assert_eq!(own.for_peer(id, None), []);
        assert_eq!((own.foreign.get(), log.lines("WARN").len()), (0, 0));
        for _ in 0..3 {
            assert_eq!(own.for_peer(id, Some(&url("https://c"))), []);
        }
        assert_eq!(own.foreign.get(), 3);
        assert_eq!(log.lines("WARN").len(), 1, "once for each");
        for n in 0..2 * REFUSALS_LOGGED_MAX {
            assert_eq!(own.for_peer(id, Some(&url(&format!("https://c{n}")))), []);
        }
        assert_eq!(log.lines("WARN").len(), REFUSALS_LOGGED_MAX, "who writes many fills no journal");
        assert_eq!(relays(&[]).for_peer(id, Some(&url("https://a"))), [], "a node without relays uses none");
    }

    #[test]
    fn nobody_is_asked_but_the_listed_relays() {
        let none = relays(&[]);
        assert_eq!(none.mode(), RelayMode::Disabled);
        assert!(!none.probes().https_probes && !none.probes().captive_portal_check);
        let own = relays(&["https://a", "https://b:444"]);
        assert!(own.probes().https_probes && !own.probes().captive_portal_check);
        let map = own.mode().relay_map();
        assert_eq!(
            map.urls::<Vec<_>>(),
            ["https://a/", "https://b:444/"].map(|url| url.parse().expect("url"))
        );
        assert!(map.relays::<Vec<_>>().iter().all(|relay| relay.quic.is_none()), "no address discovery");
    }
}
