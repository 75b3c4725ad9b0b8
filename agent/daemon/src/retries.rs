//! What failed and is tried again: the tasks note it here, `status` and the metrics show it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blixard_model::EndpointId;
use blixard_model::api::RetryKind;
use blixard_net::{LinkState, Net, TransportState};
use tokio::time::Instant;

/// Most notes of tasks kept, writes under way apart: peers come and go.
const NOTES_MAX: usize = 1_024;
/// Most writes under way that are looked at; others are tried again as well, and not shown.
const WRITES_MAX: usize = 1_024;
/// Longest error shown, in bytes.
const ERROR_LEN_MAX: usize = 512;

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

/// A try that failed.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    /// In a row.
    pub(crate) failures: u32,
    /// When the next one is.
    pub(crate) next_try: Option<Instant>,
    /// Why.
    pub(crate) why: String,
}

/// The table of them.
#[derive(Debug, Default)]
pub(crate) struct Retries(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    tasks: BTreeMap<(RetryKind, Option<EndpointId>), Noted>,
    writes: BTreeMap<u64, Noted>,
    last_write: u64,
}

/// The last failure, and when the first one in a row was.
#[derive(Debug, Clone)]
struct Noted {
    since: Instant,
    last: Failed,
}

impl Noted {
    /// After what was noted before of the same.
    fn after(before: Option<&Self>, last: Failed) -> Self {
        Self { since: before.map_or_else(Instant::now, |before| before.since), last }
    }
}

impl Retries {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It failed, and is tried again.
    pub(crate) fn failed(&self, what: RetryKind, peer: Option<EndpointId>, mut failed: Failed) {
        cut(&mut failed.why);
        let mut notes = self.lock();
        if notes.tasks.len() < NOTES_MAX || notes.tasks.contains_key(&(what, peer)) {
            let noted = Noted::after(notes.tasks.get(&(what, peer)), failed);
            notes.tasks.insert((what, peer), noted);
        }
    }

    /// It went well, or is not tried any more.
    pub(crate) fn done(&self, what: RetryKind, peer: Option<EndpointId>) {
        self.lock().tasks.remove(&(what, peer));
    }

    /// A write begins; it is under way until this is dropped.
    pub(crate) fn write(&self) -> Write<'_> {
        let mut notes = self.lock();
        notes.last_write += 1;
        Write { retries: self, id: notes.last_write }
    }

    /// All of them, with what the network says of itself.
    pub(crate) fn list(&self, net: &Net) -> Vec<Retrying> {
        let mut all = network(net);
        all.extend(self.noted());
        all.sort_by_key(|retrying| (retrying.what, retrying.peer));
        all
    }

    fn noted(&self) -> Vec<Retrying> {
        let notes = self.lock();
        let tasks = notes.tasks.iter().map(|((what, peer), noted)| retrying(*what, *peer, noted.clone()));
        tasks.chain(writes(&notes.writes)).collect()
    }
}

/// A write under way.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    retries: &'a Retries,
    id: u64,
}

impl Write<'_> {
    /// An attempt failed, and there will be another.
    pub(crate) fn failed(&self, mut failed: Failed) {
        cut(&mut failed.why);
        let mut notes = self.retries.lock();
        if notes.writes.len() < WRITES_MAX || notes.writes.contains_key(&self.id) {
            let noted = Noted::after(notes.writes.get(&self.id), failed);
            notes.writes.insert(self.id, noted);
        }
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.retries.lock().writes.remove(&self.id);
    }
}

/// One line for all writes: the one that failed most often speaks for them, and the oldest trouble counts.
fn writes(writes: &BTreeMap<u64, Noted>) -> Option<Retrying> {
    let worst = writes.values().max_by_key(|noted| noted.last.failures)?;
    let mut all = worst.clone();
    all.since = writes.values().map(|noted| noted.since).min().unwrap_or(all.since);
    // One that is under way is the next of them.
    let next = writes.values().map(|noted| noted.last.next_try.filter(|at| left(*at).is_some()));
    all.last.next_try = next.min().flatten();
    if writes.len() > 1 {
        all.last.why = format!("{} writes wait; {}", writes.len(), worst.last.why);
    }
    Some(retrying(RetryKind::Forward, None, all))
}

fn retrying(what: RetryKind, peer: Option<EndpointId>, noted: Noted) -> Retrying {
    let Noted { since, last: Failed { failures, next_try, why } } = noted;
    let next_try_in = next_try.and_then(left);
    Retrying { what, peer, failures, next_try_in, last_error: why, failing_for: since.elapsed() }
}

/// Until a time that is not past. Once it is, the try that was planned for it is under way.
fn left(at: Instant) -> Option<Duration> {
    at.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(ERROR_LEN_MAX));
}

fn network(net: &Net) -> Vec<Retrying> {
    let transport = match &*net.transport().borrow() {
        TransportState::Down { attempts, reason, next_try, since } if *attempts > 0 => {
            let next_try = next_try.map(Instant::from_std);
            let last = Failed { failures: *attempts, next_try, why: reason.to_string() };
            Some(retrying(RetryKind::Transport, None, Noted { since: Instant::from_std(*since), last }))
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failures: u32, why: &str) -> Failed {
        Failed { failures, next_try: None, why: why.to_owned() }
    }

    #[test]
    fn what_went_well_is_shown_no_more() {
        let retries = Retries::default();
        let peer = Some(EndpointId::from_bytes([1; 32]));
        retries.failed(RetryKind::Report, peer, failed(1, "a"));
        retries.failed(RetryKind::Report, peer, failed(2, "b"));
        let [shown] = &retries.noted()[..] else { panic!("one") };
        assert_eq!((shown.failures, shown.last_error.as_str()), (2, "b"));
        retries.done(RetryKind::Report, peer);
        assert_eq!(retries.noted(), []);
    }

    #[test]
    fn a_try_whose_time_has_come_is_under_way() {
        let retries = Retries::default();
        let now = Instant::now();
        let planned = |next_try| Failed { next_try: Some(next_try), ..failed(1, "a") };
        retries.failed(RetryKind::Register, None, planned(now));
        assert_eq!(retries.noted()[0].next_try_in, None);
        retries.failed(RetryKind::Register, None, planned(now + Duration::from_secs(60)));
        let left = retries.noted()[0].next_try_in.expect("planned");
        assert!(left > Duration::from_secs(1) && left <= Duration::from_secs(60), "{left:?}");
        retries.done(RetryKind::Register, None);

        let (a, b) = (retries.write(), retries.write());
        a.failed(planned(now + Duration::from_secs(60)));
        assert!(retries.noted()[0].next_try_in.is_some());
        b.failed(planned(now));
        assert_eq!(retries.noted()[0].next_try_in, None, "one of the writes is being tried");
    }

    #[test]
    fn writes_are_one_line_and_end_with_their_writers() {
        let retries = Retries::default();
        let (a, b) = (retries.write(), retries.write());
        assert_eq!(retries.noted(), []);
        a.failed(failed(3, "no link"));
        b.failed(failed(1, "other"));
        let [shown] = &retries.noted()[..] else { panic!("one") };
        assert_eq!((shown.what, shown.failures), (RetryKind::Forward, 3));
        assert_eq!(shown.last_error, "2 writes wait; no link");
        drop(a);
        assert_eq!(retries.noted()[0].last_error, "other");
        drop(b);
        assert_eq!(retries.noted(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_lasts_from_the_first_failure_to_the_first_success() {
        let retries = Retries::default();
        let pass = tokio::time::advance;
        retries.failed(RetryKind::Report, None, failed(1, "a"));
        pass(Duration::from_secs(50)).await;
        retries.failed(RetryKind::Report, None, failed(2, "b"));
        pass(Duration::from_secs(11)).await;
        assert_eq!(retries.noted()[0].failing_for.as_secs(), 61);
        retries.done(RetryKind::Report, None);
        retries.failed(RetryKind::Report, None, failed(1, "a"));
        assert_eq!(retries.noted()[0].failing_for.as_secs(), 0);
        retries.done(RetryKind::Report, None);

        let (a, b) = (retries.write(), retries.write());
        a.failed(failed(1, "a"));
        pass(Duration::from_secs(5)).await;
        b.failed(failed(3, "b"));
        assert_eq!(retries.noted()[0].failing_for.as_secs(), 5, "the oldest of the writes");
    }

    #[test]
    fn an_error_and_their_number_are_bounded() {
        let retries = Retries::default();
        for n in 0..NOTES_MAX + 9 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            let peer = Some(EndpointId::from_bytes(id));
            retries.failed(RetryKind::Identify, peer, failed(1, &"ä".repeat(ERROR_LEN_MAX)));
        }
        let noted = retries.noted();
        assert_eq!(noted.len(), NOTES_MAX);
        assert!(noted.iter().all(|retrying| retrying.last_error.len() <= ERROR_LEN_MAX));
    }
}
