//! The host's shell: the one task that owns the [`Host`] and its store, and the tasks that carry out its
//! effects. It decides nothing.
//!
//! A pass: wait for a tick, a wake-up or messages, take all that wait, let the host have its turn, carry
//! out what it says. Ticks and messages are awaited fairly, so that a full inbox starves no tick. Any error
//! of the store ends the task, and with it the process.

mod effects;
mod fences;
pub(crate) mod handle;
mod notices;
mod units;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blixard_consensus::TICK_MS;
use blixard_model::removal::RemovedFrom;
use blixard_model::wire::{JoinResponse, KeyHeldTwice, PeerResponse};
use blixard_model::{BootId, RaftId};
use blixard_net::{DownReason, LinkState, Links};
use blixard_node::host::disk::DiskError;
use blixard_node::host::{Answer, CallId, HolderRefusal, Host, HostEnd, Input, Moment, PeerCallId, WaiterId};
use blixard_store::Store;
use blixard_systemd::SystemdVms;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::task::TaskTracker;

use super::clock;
use super::context::Agent;
use super::supervise;
use notices::Notices;

pub(crate) use handle::{HostHandle, HostMessage, HostStanding, INBOX_MAX, Look, millis};

/// Most messages taken in one pass.
const BATCH_MAX: usize = 256;
/// The watchdog is fed this often.
const WATCHDOG_PERIOD: Duration = Duration::from_secs(2);
/// After so many ticks it is looked whether this is still the same boot.
const BOOT_TICKS: u64 = 10;
/// A host that has nothing to wait for is looked at this often all the same.
const IDLE_PERIOD: Duration = Duration::from_secs(60);

/// Why the host task ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    /// The host has to end.
    #[error(transparent)]
    Host(#[from] HostEnd),
    /// What had to be made durable was not.
    #[error("the store failed")]
    Disk(#[from] DiskError),
}

/// What the task is made of.
pub(crate) struct HostTask {
    pub(crate) agent: Arc<Agent>,
    pub(crate) host: Host,
    pub(crate) store: Store,
    pub(crate) boot_id: BootId,
    pub(crate) inbox: mpsc::Receiver<HostMessage>,
    pub(crate) standing: watch::Sender<HostStanding>,
}

/// The task, and what it waits for.
struct Shell {
    agent: Arc<Agent>,
    host: Host,
    store: Store,
    standing: watch::Sender<HostStanding>,
    links: watch::Receiver<Links>,
    /// The host was told last that two agents run with some key.
    held_twice: bool,
    units: Arc<SystemdVms>,
    /// Tasks that carry out effects. They end with the process at the latest.
    tasks: TaskTracker,
    /// Questions to peers under way.
    calls: BTreeMap<CallId, AbortHandle>,
    peers: BTreeMap<PeerCallId, oneshot::Sender<PeerResponse>>,
    joiners: BTreeMap<PeerCallId, oneshot::Sender<JoinResponse>>,
    waiters: BTreeMap<WaiterId, (Instant, oneshot::Sender<Answer>)>,
    deliveries: FuturesUnordered<BoxFuture<'static, (RaftId, bool)>>,
    notices: Notices,
    boot_id: BootId,
    ticks: u64,
    fed: Instant,
}

impl HostTask {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// See [`ShellError`].
    pub(crate) async fn run(self) -> Result<(), ShellError> {
        let Self { agent, host, store, boot_id, mut inbox, standing } = self;
        let mut links = agent.net.links();
        links.mark_changed();
        let mut shell = Shell {
            notices: Notices::new(Arc::clone(&agent)),
            agent,
            host,
            store,
            standing,
            links,
            held_twice: false,
            units: Arc::new(SystemdVms::default()),
            tasks: TaskTracker::new(),
            calls: BTreeMap::new(),
            peers: BTreeMap::new(),
            joiners: BTreeMap::new(),
            waiters: BTreeMap::new(),
            deliveries: FuturesUnordered::new(),
            boot_id,
            ticks: 0,
            fed: Instant::now(),
        };
        shell.watch_units();
        shell.watch_fences();
        let ended = shell.run(&mut inbox).await;
        for call in shell.calls.values() {
            call.abort();
        }
        ended
    }
}

impl Shell {
    async fn run(&mut self, inbox: &mut mpsc::Receiver<HostMessage>) -> Result<(), ShellError> {
        let mut ticks = interval(Duration::from_millis(TICK_MS));
        // After a pause the missed ticks would come at once and end every election timeout.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.take_turns()?;
        loop {
            let wake = self.wake_at();
            let mut stops = false;
            tokio::select! {
                _ = ticks.tick() => self.tick()?,
                () = sleep_until(wake) => self.give(Input::Wake)?,
                message = inbox.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    stops |= self.take(message)?;
                    for _ in 1..BATCH_MAX {
                        let Ok(message) = inbox.try_recv() else { break };
                        stops |= self.take(message)?;
                    }
                }
                Some((member, delivered)) = self.deliveries.next() => {
                    self.give(Input::SnapshotSent { member, delivered })?;
                }
            }
            if stops {
                return Ok(());
            }
            self.take_turns()?;
            self.feed_watchdog();
        }
    }

    /// The watchdog measures whether this loop goes on, and not how much there is to do in it.
    fn feed_watchdog(&mut self) {
        if is_watchdog_due(self.fed.elapsed()) {
            self.fed = Instant::now();
            supervise::feed_watchdog();
        }
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let wait = self.host.wake_at_ms().map(|at| at.saturating_sub(clock::boottime_ms()));
        now + wait.map_or(IDLE_PERIOD, Duration::from_millis).min(IDLE_PERIOD)
    }

    fn tick(&mut self) -> Result<(), ShellError> {
        self.ticks += 1;
        if self.ticks.is_multiple_of(BOOT_TICKS) {
            self.boot_id = clock::boot_id().unwrap_or(self.boot_id);
        }
        self.give(Input::Tick)
    }

    fn now(&self) -> Moment {
        clock::moment(self.boot_id)
    }

    fn give(&mut self, input: Input) -> Result<(), ShellError> {
        self.note_links()?;
        let now = self.now();
        Ok(self.host.handle(now, input)?)
    }

    fn note_links(&mut self) -> Result<(), ShellError> {
        if !self.links.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let links = self.links.borrow_and_update();
        let up = links.iter().filter(|(_, link)| LinkState::is_up(link)).map(|(id, _)| *id).collect();
        let removed: Vec<RemovedFrom> = links.values().filter_map(removed_as).collect();
        let (seen, refusals) = held_twice(&links);
        drop(links);
        let now = self.now();
        self.host.handle(now, Input::Links { up, removed })?;
        let any = !seen.is_empty() || !refusals.is_empty();
        if any || self.held_twice {
            self.host.handle(now, Input::HeldTwice { seen, refusals })?;
        }
        self.held_twice = any;
        Ok(())
    }

    /// Takes a message. True: the task is to stop.
    fn take(&mut self, message: HostMessage) -> Result<bool, ShellError> {
        match message {
            HostMessage::Input(input) => {
                if let Input::PeerAnswered { call, .. } | Input::JoinAnswered { call, .. } = &input {
                    self.calls.remove(call);
                }
                if let Input::WaiterGaveUp { waiter } = &input {
                    self.waiters.remove(waiter);
                }
                if let Input::PeerGaveUp { call } = &input {
                    self.peers.remove(call);
                    self.joiners.remove(call);
                }
                self.give(input)?;
            }
            HostMessage::PeerAsked(call, input, reply) => {
                self.peers.insert(call, reply);
                self.give(input)?;
            }
            HostMessage::JoinAsked(call, input, reply) => {
                self.joiners.insert(call, reply);
                self.give(input)?;
            }
            HostMessage::Wanted(waiter, input, reply) => {
                self.waiters.insert(waiter, (Instant::now(), reply));
                self.give(input)?;
            }
            HostMessage::Look(look) => {
                let (now, store) = (self.now(), self.store.stats());
                look(&Look { host: &self.host, now, store });
            }
            HostMessage::Stop => return Ok(true),
        }
        Ok(false)
    }

    /// Lets the host go on until it has nothing more to do, and carries out what it says. Writes wait for the
    /// disk: the runtime's other tasks go on meanwhile.
    fn take_turns(&mut self) -> Result<(), ShellError> {
        let (begun, before) = (Instant::now(), self.applied());
        loop {
            let now = self.now();
            for effect in self.host.turn(now)? {
                self.carry_out(effect)?;
            }
            if !self.host.wants_turn() {
                break;
            }
        }
        if self.applied() != before {
            self.agent.metrics.turn(begun.elapsed());
        }
        let now = HostStanding::of(&self.host);
        self.standing.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                *known = now;
            }
            changed
        });
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.host.member().map_or(0, |member| member.replica().summary().applied)
    }
}

/// Whether the watchdog is fed at the end of this pass: by the time alone, however many ticks or messages
/// there were in between. After a slow write it is fed at once.
fn is_watchdog_due(since_fed: Duration) -> bool {
    since_fed >= WATCHDOG_PERIOD
}

/// The keys with which two agents run: those of peers, and this node's own by the word of peers.
fn held_twice(links: &Links) -> (Vec<KeyHeldTwice>, Vec<HolderRefusal>) {
    let (mut seen, mut refusals) = (Vec::new(), Vec::new());
    for (id, link) in links {
        match link {
            LinkState::Up { rival: Some(rival), remote_addr, .. } => {
                let addresses = remote_addr.iter().chain(&rival.remote_addr).copied().collect();
                seen.push(KeyHeldTwice { endpoint_id: *id, addresses });
            }
            LinkState::Down { reason: DownReason::HeldElsewhere(held), .. } => {
                let addresses = held.other_addr.into_iter().chain(held.own_addr).collect();
                refusals.push(HolderRefusal { peer: *id, addresses, for_ms: held.for_ms });
            }
            _ => {}
        }
    }
    (seen, refusals)
}

/// From where this node was removed, when the peer says so.
fn removed_as(link: &LinkState) -> Option<RemovedFrom> {
    match link {
        LinkState::Down { reason: DownReason::Removed(word), .. } => word.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_by_the_time_that_has_passed() {
        assert!(!is_watchdog_due(Duration::ZERO));
        assert!(!is_watchdog_due(WATCHDOG_PERIOD - Duration::from_millis(1)));
        assert!(is_watchdog_due(WATCHDOG_PERIOD));
        assert!(is_watchdog_due(Duration::from_secs(29)), "one write took so long");
    }

    /// A disk whose syncs take most of a second makes passes long; systemd must be far more patient.
    #[test]
    fn systemd_waits_for_many_times_the_period() {
        let unit = include_str!("../../../dist/systemd/blixard.service");
        let limits: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("WatchdogSec=")).collect();
        let [limit] = limits[..] else { panic!("one WatchdogSec=") };
        let limit_s: u64 = limit.strip_suffix('s').and_then(|limit| limit.parse().ok()).expect("seconds");
        assert!(Duration::from_secs(limit_s) >= 10 * WATCHDOG_PERIOD);
    }
}
