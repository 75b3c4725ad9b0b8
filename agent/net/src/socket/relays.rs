//! The relays of this node's own list, in use. This node never contacts any other relay.
//!
//! The relay at which a peer says it is reached is a hint, which anybody with a member's key may write into
//! the log. A relay that is not in the list is counted, logged once, and never contacted.

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

/// The list of relays, and what was observed about them.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    list: RelayList,
    ca: Option<RelayCa>,
    /// How often the relay of a peer was not used.
    pub(crate) foreign: Counter,
    logged: Mutex<BTreeSet<(EndpointId, String)>>,
    /// The relay at which this node is found at this moment.
    home: watch::Sender<Option<RelayUrl>>,
}

impl Relays {
    pub(crate) fn new(list: RelayList, ca: Option<RelayCa>) -> Self {
        Self { list, ca, ..Self::default() }
    }

    /// iroh's mode: exactly the listed relays, without QUIC address discovery, which iroh would do over UDP
    /// to a port of its own.
    pub(crate) fn mode(&self) -> RelayMode {
        if self.list.is_empty() {
            return RelayMode::Disabled;
        }
        let relays = self.list.iter().map(|relay| RelayConfig::new(relay.iroh.clone(), None));
        RelayMode::Custom(RelayMap::from_iter(relays))
    }

    /// What iroh may try out. Only by asking each listed relay over HTTPS does iroh learn which relay is
    /// nearest, which is the one to be found at. It need not know whether there is a captive portal.
    pub(crate) fn probes(&self) -> NetReportConfig {
        let mut probes = NetReportConfig::minimal();
        probes.https_probes = !self.list.is_empty();
        probes
    }

    /// The resolver. Names are looked up as the machine is configured to, and only when a relay has a name.
    /// By default, iroh would ask public resolvers when the machine's do not answer.
    pub(crate) fn resolver(&self) -> DnsResolver {
        let resolver = DnsResolver::builder().disable_fallback();
        if self.list.has_names() { resolver.with_system_defaults().build() } else { resolver.build() }
    }

    /// The authorities that may vouch for a relay: the configured ones and nobody else, or those that Mozilla
    /// trusts when none are configured.
    pub(crate) fn tls(&self) -> CaTlsConfig {
        self.ca.as_ref().map_or_else(CaTlsConfig::embedded, RelayCa::tls)
    }

    /// The relays through which a peer may be dialled that says it is found at `url`: none if that is a
    /// foreign relay, otherwise all of the list. The peer may have gone to another relay since, and cannot
    /// tell while nothing connects.
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

    /// Counts a foreign relay. Logs it once for each peer and relay; as with strangers, not beyond
    /// [`REFUSALS_LOGGED_MAX`] lines.
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

    /// The listed relay whose URL in the form of iroh is `url`, as the operator wrote it.
    pub(crate) fn listed(&self, url: &iroh::RelayUrl) -> Option<RelayUrl> {
        self.list.find(url).map(|relay| relay.url.clone())
    }

    /// The relay at which this node is found: the one that iroh chose, and before that the first of the list.
    pub(crate) fn home(&self) -> Option<RelayUrl> {
        self.home.borrow().clone().or_else(|| self.list.urls().next().cloned())
    }

    /// Follows iroh's choice of a relay, and logs when the relay is reached and when it is not. Never
    /// returns.
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
            // A short time without a relay is not worth a line, because iroh connects again by itself.
            let patience = async {
                if connected || said == Some(false) {
                    std::future::pending::<()>().await;
                }
                sleep(RELAY_PATIENCE).await;
            };
            tokio::select! {
                updated = statuses.updated() => if updated.is_err() {
                    // The endpoint is gone, which its keeper notices.
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
    fn a_peer_is_dialled_only_through_relays_of_the_own_list() {
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
    fn only_the_listed_relays_are_probed() {
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
