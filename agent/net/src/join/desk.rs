//! Whether this node serves joins, for which cluster, and how many at a time.
//!
//! Anybody who has an address of this node can ask to join, so a stranger gets little: a few joins at a time,
//! one from each source, with a rate limit for all of them and a lower one for each source. A join that finds
//! no place is refused; it never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use blixard_model::ClusterId;

use crate::admission::half_open::network;
use crate::limits::{JOIN_PACE_OF_ALL, JOIN_PACE_OF_SOURCE, JOINS_MAX, PaceLimit};
use crate::stats::{Counter, JoinStats};

/// The joins of this node.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    desk: Mutex<Desk>,
    /// Requests that were handed to the application.
    pub(crate) requests: Counter,
}

#[derive(Debug, Default)]
struct Desk {
    /// The cluster whose joins are served. Only while there is one may a stranger send anything.
    served: Option<ClusterId>,
    under_way: usize,
    /// The sources that have a join under way; `None` stands for all joins of unknown address together.
    sources: BTreeSet<Option<IpAddr>>,
    pace: JoinPace,
    /// The rate of each source, with the keys of `sources`. A source that has its whole burst available again
    /// has no entry. The rate limit of all joins bounds the number of entries.
    paces: BTreeMap<Option<IpAddr>, JoinPace>,
}

/// Why a join gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// No joins are served.
    NotServed,
    /// Too many joins are under way, or one from the same source.
    Crowded,
    /// A rate limit was exceeded.
    TooSoon,
}

/// A join under way; its place is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct JoinUnderWay {
    joins: Arc<Joins>,
    source: Option<IpAddr>,
    /// The cluster that the joiner is told.
    pub(crate) cluster: ClusterId,
}

impl Joins {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves joins of this cluster from here on; `None` serves none. Returns true when that changes whether
    /// joins are served at all.
    pub(crate) fn serve(&self, cluster: Option<ClusterId>) -> bool {
        let mut desk = self.lock();
        let changed = desk.served.is_some() != cluster.is_some();
        desk.served = cluster;
        changed
    }

    /// The cluster whose joins are served at this moment.
    pub(crate) fn served(&self) -> Option<ClusterId> {
        self.lock().served
    }

    /// The counts.
    pub(crate) fn stats(&self) -> JoinStats {
        JoinStats { under_way: self.lock().under_way, requests: self.requests.get() }
    }

    /// Gives a join its place. `source` is the address that the handshake validated, if there is one.
    pub(crate) fn begin(
        self: &Arc<Self>,
        source: Option<IpAddr>,
        now: Instant,
    ) -> Result<JoinUnderWay, NoPlace> {
        let source = source.map(network);
        let mut desk = self.lock();
        let cluster = desk.served.ok_or(NoPlace::NotServed)?;
        if desk.under_way >= JOINS_MAX || desk.sources.contains(&source) {
            return Err(NoPlace::Crowded);
        }
        // Comes last, so that a join that is refused for another reason does not count against the rate
        // limits.
        desk.keep_pace(source, now)?;
        desk.under_way += 1;
        desk.sources.insert(source);
        Ok(JoinUnderWay { joins: Arc::clone(self), source, cluster })
    }
}

impl Desk {
    /// Counts a join against the rate limit of its source and that of all joins, if both allow it.
    fn keep_pace(&mut self, source: Option<IpAddr>, now: Instant) -> Result<(), NoPlace> {
        self.paces.retain(|_, pace| pace.is_used(now));
        let own = self.paces.get(&source).copied().unwrap_or_default();
        let own = own.after_one(now, JOIN_PACE_OF_SOURCE).ok_or(NoPlace::TooSoon)?;
        self.pace = self.pace.after_one(now, JOIN_PACE_OF_ALL).ok_or(NoPlace::TooSoon)?;
        self.paces.insert(source, own);
        Ok(())
    }
}

impl JoinUnderWay {
    /// Runs `act` if the cluster that the joiner was told is still served; returns whether it was. A call of
    /// [`Joins::serve`] waits meanwhile.
    pub(crate) fn while_served(&self, act: impl FnOnce()) -> bool {
        let desk = self.joins.lock();
        let served = desk.served == Some(self.cluster);
        if served {
            act();
        }
        served
    }
}

impl Drop for JoinUnderWay {
    fn drop(&mut self) {
        let mut desk = self.joins.lock();
        desk.under_way = desk.under_way.saturating_sub(1);
        desk.sources.remove(&self.source);
    }
}

/// How much of a burst is used at a given time.
#[derive(Debug, Clone, Copy, Default)]
struct JoinPace {
    /// When the whole burst is available again.
    rested_at: Option<Instant>,
}

impl JoinPace {
    /// The state after one more join, if the limit allows it now.
    fn after_one(self, now: Instant, limit: PaceLimit) -> Option<Self> {
        let begin = self.rested_at.map_or(now, |at| at.max(now));
        let used = begin.saturating_duration_since(now);
        let allowed = used <= limit.period * limit.burst.saturating_sub(1);
        allowed.then(|| Self { rested_at: Some(begin + limit.period) })
    }

    fn is_used(&self, now: Instant) -> bool {
        self.rested_at.is_some_and(|at| at > now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::timeout;

    use super::*;
    use crate::testing::{LONG, node};
    use crate::{Incoming, JoinError, TransportState};

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("address"))
    }

    fn serving() -> Arc<Joins> {
        let joins = Arc::new(Joins::default());
        joins.serve(Some(CLUSTER));
        joins
    }

    #[test]
    fn a_join_gets_no_place_unless_joins_are_served() {
        let joins = Arc::new(Joins::default());
        assert_eq!(joins.begin(ip("192.0.2.1"), Instant::now()).err(), Some(NoPlace::NotServed));
        let other = ClusterId::from_bytes([2; 16]);
        assert!(joins.serve(Some(CLUSTER)));
        let under_way = joins.begin(ip("192.0.2.1"), Instant::now()).expect("a place");
        assert!(under_way.while_served(|| ()));
        assert!(!joins.serve(Some(other)), "some are taken as before");
        assert!(!under_way.while_served(|| panic!("another cluster")));
        assert!(joins.serve(None));
        assert!(!under_way.while_served(|| panic!("none")));
    }

    #[test]
    fn joins_are_limited_in_all_and_to_one_per_source() {
        let (joins, now) = (serving(), Instant::now());
        let mut held = vec![joins.begin(ip("2001:db8::1"), now).expect("a place")];
        assert_eq!(joins.begin(ip("2001:db8::2"), now).err(), Some(NoPlace::Crowded), "the same network");
        held.push(joins.begin(None, now).expect("a place"));
        assert_eq!(joins.begin(None, now).err(), Some(NoPlace::Crowded), "unknown as the other");
        let others = (0..200).map_while(|n| joins.begin(ip(&format!("192.0.2.{n}")), now).ok());
        held.extend(others.collect::<Vec<_>>());
        assert_eq!((held.len(), joins.stats().under_way), (JOINS_MAX, JOINS_MAX));
        drop(held);
        assert!(joins.stats().under_way == 0 && joins.lock().sources.is_empty());
        assert!(joins.begin(ip("2001:db8::2"), now).is_ok());
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_each_period() {
        let (joins, begin) = (serving(), Instant::now());
        let allowed = |now, most: u32| (0..most).take_while(|_| joins.begin(None, now).is_ok()).count();
        let PaceLimit { burst, period } = JOIN_PACE_OF_SOURCE;
        let burst = usize::try_from(burst).expect("few");
        assert_eq!(allowed(begin, 100), burst);
        assert_eq!(joins.begin(None, begin).err(), Some(NoPlace::TooSoon));
        let later = begin + period - Duration::from_millis(1);
        assert_eq!(allowed(later, 100), 0);
        assert_eq!(allowed(begin + period, 100), 1);
        assert_eq!(allowed(begin + period * 3, 100), 2);
        assert_eq!(allowed(begin + period * 1000, 100), burst, "it does not grow");
        // A clock that seems to go back does not make the burst available again.
        assert_eq!(allowed(begin, 100), 0);
    }

    #[test]
    fn a_few_sources_that_ask_all_the_time_keep_no_other_out() {
        let (joins, begin) = (serving(), Instant::now());
        let mut refused = 0;
        // Ten minutes, in which each of four strangers asks ten times a second.
        for step in 0..6_000 {
            let now = begin + Duration::from_millis(100) * step;
            for n in 0..4 {
                let asked = joins.begin(ip(&format!("192.0.2.{n}")), now);
                refused += usize::from(asked.is_err_and(|why| why == NoPlace::TooSoon));
            }
            if step % 50 == 49 {
                let joiner = joins.begin(ip("198.51.100.1"), now);
                assert!(joiner.is_ok(), "{step}: {joiner:?}");
            }
        }
        assert!(refused > 4 * 6_000 * 8 / 10, "each of them is held to its pace: {refused}");
        // Many sources: what they may do together is bounded, and so is what is remembered of them.
        let now = begin + Duration::from_secs(3_600);
        let many = (0..=255).flat_map(|a| (0..=255).map(move |b| format!("203.0.{a}.{b}")));
        let taken = many.filter(|source| joins.begin(ip(source), now).is_ok()).count();
        let most = usize::try_from(JOIN_PACE_OF_ALL.burst).expect("few");
        assert_eq!(taken, most);
        assert!(joins.lock().paces.len() <= most);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_endpoint_that_is_opened_again_takes_joins_as_before() {
        let (mut a, joiner) = (node().await, node().await);
        a.net.serve_joins(Some(CLUSTER));
        for served in [true, false] {
            let mut transport = a.net.transport();
            let endpoint = a.net.endpoint().expect("up");
            let noticed = async {
                let down = timeout(LONG, transport.wait_for(|state| !state.is_up())).await;
                assert!(down.is_ok_and(|down| down.is_ok()), "noticed");
            };
            tokio::join!(endpoint.close(), noticed);
            drop(endpoint);
            if !served {
                // While there is no endpoint.
                a.net.serve_joins(None);
            }
            timeout(LONG, transport.wait_for(TransportState::is_up)).await.expect("up").expect("open");
            let contact = a.as_contact();
            let asked = joiner.net.join(&contact, CLUSTER, Bytes::from_static(b"in"), LONG);
            let answered = async {
                match timeout(LONG, a.incoming.recv()).await.expect("it is asked") {
                    Some(Incoming::Join { reply, .. }) => reply.send(Bytes::from_static(b"yes")),
                    other => panic!("expected a join, got {other:?}"),
                }
            };
            if served {
                let (answer, ()) = tokio::join!(asked, answered);
                assert_eq!(answer, Ok(Bytes::from_static(b"yes")));
            } else {
                assert_eq!(asked.await, Err(JoinError::NotServed));
            }
        }
    }
}
