//! What failed and is tried again, as `status` and the metrics show it: of the host and of the network.

use std::time::Duration;

use blixard_model::EndpointId;
use blixard_model::api::RetryKind;
use blixard_net::{LinkState, Net, TransportState};
use blixard_node::host::{Moment, Trouble};

use super::context::Agent;

/// Something that failed and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retrying {
    pub(crate) what: RetryKind,
    pub(crate) peer: Option<EndpointId>,
    /// In a row.
    pub(crate) failures: u32,
    /// `None` when one is due or under way, or none is planned.
    pub(crate) next_try_in: Option<Duration>,
    pub(crate) last_error: String,
    /// Since the first of them.
    pub(crate) failing_for: Duration,
}

/// All of them. Those of the host are missing while its task is behind.
pub(crate) async fn list(agent: &Agent) -> Vec<Retrying> {
    let looked = agent.host.look(|look| {
        let troubles = look.host.troubles(look.now);
        troubles.into_iter().map(|trouble| of_host(trouble, look.now)).collect::<Vec<_>>()
    });
    let mut all = looked.await.unwrap_or_default();
    all.extend(of_network(&agent.net));
    all.sort_by_key(|retrying| (retrying.what, retrying.peer));
    all
}

fn of_host(trouble: Trouble, now: Moment) -> Retrying {
    let Trouble { what, peer, failures, next_try_ms, why, since_ms } = trouble;
    let until = |at: u64| Duration::from_millis(at.saturating_sub(now.boot_ms));
    Retrying {
        what,
        peer,
        failures,
        next_try_in: next_try_ms.map(until).filter(|left| !left.is_zero()),
        last_error: why,
        failing_for: Duration::from_millis(now.boot_ms.saturating_sub(since_ms)),
    }
}

fn of_network(net: &Net) -> Vec<Retrying> {
    let now = std::time::Instant::now();
    let transport = match &*net.transport().borrow() {
        TransportState::Down { attempts, reason, next_try, since } if *attempts > 0 => Some(Retrying {
            what: RetryKind::Transport,
            peer: None,
            failures: *attempts,
            next_try_in: next_try
                .and_then(|at| at.checked_duration_since(now))
                .filter(|left| !left.is_zero()),
            last_error: reason.to_string(),
            failing_for: since.elapsed(),
        }),
        _ => None,
    };
    let links = net.links().borrow().clone();
    let peers = net.stats().peers.into_iter().filter_map(|(id, peer)| {
        let down_since = match links.get(&id) {
            Some(LinkState::Up { .. }) => return None,
            Some(LinkState::Down { since, .. }) => Some(*since),
            None => None,
        };
        let backoff = peer.backoff;
        (backoff.failures > 0).then(|| Retrying {
            what: RetryKind::Connect,
            peer: Some(id),
            failures: backoff.failures,
            next_try_in: backoff.next_try_in.filter(|left| !left.is_zero()),
            last_error: backoff.last_error.unwrap_or_default(),
            failing_for: down_since.map_or(Duration::ZERO, |since| since.elapsed()),
        })
    });
    transport.into_iter().chain(peers).collect()
}
