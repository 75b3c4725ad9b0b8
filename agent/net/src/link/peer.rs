//! The task that owns everything about one peer: whether to dial, which connection is kept, when it is up.
//!
//! ```text
//!            set_peers                     welcome, or inbound accepted
//!               |            +--------------------------------------------+
//!               v            |                                            v
//!            Dialling -------+---- failed ----> Waiting (backoff) ----> Serving
//!               ^                                  |   |  inbound         |
//!               +------ backoff over, new address -+   +------------------|
//!               +--------------------- lost, with backoff ----------------+
//! ```
//!
//! Without an endpoint the task neither dials nor counts failures. It waits for an endpoint, and then dials
//! at once.
//!
//! Both sides dial, so that whichever side restarts is back at once. One connection is kept. These rules
//! decide which, and need no clock and no third message:
//! - A hello that arrives while no link is up is accepted and ends this side's own attempt. If this side has
//!   already sent its own hello, however, the side with the lower endpoint id first waits for the end of its
//!   own attempt, and the other side gives way.
//! - A hello that arrives while a link is up replaces the link, because the peer dials only when it has none.
//!   If the peer did not know of the link yet when it said hello, however, the hello is refused: by now the
//!   peer knows, and has given up its attempt itself.
//! - A hello of another run of the peer has to wait until it is certain that the earlier run has ended: see
//!   [`crate::link::rival`].

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use blixard_model::EndpointId;
use futures_util::StreamExt;
use iroh::Endpoint;
use iroh::endpoint::Connection;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admission::peers::{GreetedConnection, Slot};
use crate::context::Context;
use crate::key;
use crate::limits::{CONNECT_BACKOFF, CONNECT_TIMEOUT, HELLO_LEN_MAX, HELLO_TIMEOUT, STABLE_AFTER};
use crate::link::hello::{self, DialId, Hello, Welcome};
use crate::link::rival::{Newcomer, Resolved, Rivals, refuse};
use crate::link::traffic::{self, LinkOrigin, OutgoingQueues, PeerLink};
use crate::link::whereabouts::Whereabouts;
use crate::socket::path::{self, LinkPath};
use crate::socket::transport::TransportState;
use crate::state::{DownReason, LinkState};
use crate::stats::PeerCounters;
use crate::wire;
use crate::wire::close::{self, Close, ConnectionEnd};
use crate::wire::frame;

/// The task that owns everything about one peer.
#[derive(Debug)]
pub(crate) struct PeerTask {
    pub(crate) context: Arc<Context>,
    pub(crate) id: EndpointId,
    pub(crate) whereabouts: watch::Receiver<Whereabouts>,
    pub(crate) inbox: mpsc::Receiver<GreetedConnection>,
    pub(crate) outgoing: OutgoingQueues,
    pub(crate) slot: Arc<Slot>,
    pub(crate) cancel: CancellationToken,
    /// What to tell the peer when it is cut off.
    pub(crate) parting: Arc<OnceLock<Close>>,
    pub(crate) counters: Arc<PeerCounters>,
    pub(crate) transport: watch::Receiver<TransportState>,
    /// True while this node stands aside for another agent with its key.
    pub(crate) aside: watch::Receiver<bool>,
    pub(crate) progress: DialProgress,
}

/// What the task remembers from one state to the next.
#[derive(Debug)]
pub(crate) struct DialProgress {
    /// The number of the last attempt to connect in this run.
    dials: u64,
    /// The peer's connection that was accepted last.
    accepted: Option<DialId>,
    /// Attempts that failed since the last stable link.
    failures: u32,
    /// When the link went down.
    down_since: Instant,
    /// The reason that was logged last, so that it is logged only once.
    logged: Option<DownReason>,
}

impl Default for DialProgress {
    fn default() -> Self {
        Self { dials: 0, accepted: None, failures: 0, down_since: Instant::now(), logged: None }
    }
}

/// The state that the task goes to next.
enum LinkNext {
    Dial,
    Wait,
    AwaitTransport,
    StandAside,
    Serve(PeerLink),
    Stop,
}

/// How a link ended.
enum LinkEnd {
    Ended(ConnectionEnd),
    Replaced(GreetedConnection),
    StandAside,
    Stop,
}

impl PeerTask {
    /// Runs until the peer is taken off the list or the node stops.
    pub(crate) async fn run(mut self) {
        self.publish_down(DownReason::Starting);
        let mut next = LinkNext::Dial;
        loop {
            next = match next {
                LinkNext::Dial => self.dial().await,
                LinkNext::Wait => self.wait().await,
                LinkNext::AwaitTransport => self.await_transport().await,
                LinkNext::StandAside => self.stand_aside().await,
                LinkNext::Serve(link) => self.serve(link).await,
                LinkNext::Stop => break,
            };
        }
        self.outgoing.clear();
    }

    async fn wait(&mut self) -> LinkNext {
        // These messages were sent before the link was seen to be down.
        self.outgoing.clear();
        let seed = self.context.jitter_seed();
        let delay = Duration::from_millis(CONNECT_BACKOFF.jittered_ms(self.progress.failures, seed));
        let nowhere_to_dial = self.whereabouts.borrow().is_empty();
        let next_try = (!nowhere_to_dial).then(|| Instant::now() + delay);
        self.counters.note_wait(self.progress.failures, next_try);
        let next = tokio::select! {
            () = self.cancel.cancelled() => LinkNext::Stop,
            inbound = self.inbox.recv() => self.accept(inbound),
            changed = self.whereabouts.changed() => match changed {
                Ok(()) => LinkNext::Dial,
                Err(_) => LinkNext::Stop,
            },
            () = sleep(delay), if !nowhere_to_dial => LinkNext::Dial,
        };
        self.counters.note_wait(self.progress.failures, None);
        next
    }

    /// Waits for this node's own endpoint. Messages that cannot be sent meanwhile are counted where they are
    /// refused.
    async fn await_transport(&mut self) -> LinkNext {
        self.outgoing.clear();
        self.publish_down(DownReason::NoTransport);
        self.progress.logged = Some(DownReason::NoTransport);
        tokio::select! {
            () = self.cancel.cancelled() => LinkNext::Stop,
            inbound = self.inbox.recv() => self.accept(inbound),
            up = is_up(&mut self.transport) => {
                // A peer that cannot be dialled would keep this reason until it comes.
                self.progress.logged = None;
                if up { LinkNext::Dial } else { LinkNext::Stop }
            }
        }
    }

    /// Waits until this node no longer has to stand aside.
    async fn stand_aside(&mut self) -> LinkNext {
        self.outgoing.clear();
        self.publish_down(DownReason::StandsAside);
        self.progress.logged = Some(DownReason::StandsAside);
        tokio::select! {
            () = self.cancel.cancelled() => LinkNext::Stop,
            inbound = self.inbox.recv() => match inbound {
                None => LinkNext::Stop,
                Some(inbound) => {
                    refuse(inbound, Close::Aside);
                    LinkNext::StandAside
                }
            },
            over = self.aside.wait_for(|aside| !aside) => {
                // A peer that cannot be dialled would keep this reason until it comes.
                self.progress.logged = None;
                if over.is_ok() { LinkNext::Dial } else { LinkNext::Stop }
            }
        }
    }

    async fn dial(&mut self) -> LinkNext {
        // A peer that refused this node because of the other agent is still dialled: its answer tells when
        // that is over.
        let refused = matches!(self.progress.logged, Some(DownReason::HeldElsewhere(_)));
        if *self.aside.borrow() && !refused {
            return LinkNext::StandAside;
        }
        let whereabouts = self.whereabouts.borrow_and_update().clone();
        if whereabouts.is_empty() {
            // This is not an attempt, and the reason why the last link ended is kept.
            if self.progress.logged.is_none() {
                self.publish_down(DownReason::Unreachable(
                    "no address and no relay of this node's own list is known: it has to come".to_owned(),
                ));
            }
            return LinkNext::Wait;
        }
        let transport = &self.context.transport;
        let (Some(endpoint), Some(families)) = (transport.endpoint(), transport.families()) else {
            return LinkNext::AwaitTransport;
        };
        let whereabouts = match whereabouts.within(families) {
            Ok(whereabouts) => whereabouts,
            Err(why) => return self.failed(ConnectionEnd::For(DownReason::Unreachable(why.to_string()))),
        };
        self.progress.dials += 1;
        self.counters.connect_attempts.add(1);
        let id = DialId { incarnation: self.context.incarnation, dial: self.progress.dials };
        let connected = tokio::select! {
            () = self.cancel.cancelled() => return LinkNext::Stop,
            inbound = self.inbox.recv() => return self.accept(inbound),
            connected = connect(&endpoint, &self.id, whereabouts) => connected,
        };
        // Not held longer than it is used, because the endpoint's socket is closed with the last handle.
        drop(endpoint);
        let connection = match connected {
            Ok(connection) => connection,
            Err(ended) => return self.failed(ended),
        };
        let hello = Hello::new(&self.context.cluster_name, id, self.progress.accepted);
        match self.introduce(&connection, &hello).await {
            Introduced::Welcome(welcome) => LinkNext::Serve(PeerLink {
                connection,
                origin: LinkOrigin::Dialled(id),
                peer_incarnation: welcome.incarnation,
            }),
            Introduced::Failed(ended) => {
                Close::Broken("the hello failed".to_owned()).apply(&connection);
                self.failed(ended)
            }
            Introduced::GaveWay(inbound) => {
                Close::Duplicate.apply(&connection);
                self.accept(Some(inbound))
            }
            Introduced::Stop => {
                self.stopping().apply(&connection);
                LinkNext::Stop
            }
        }
    }

    /// Says hello and waits for the welcome, or for the peer's own hello if the peer's attempt goes first.
    async fn introduce(&mut self, connection: &Connection, hello: &Hello) -> Introduced {
        let keeps_its_attempt = self.context.local < self.id;
        let mut welcome = pin!(say_hello(connection, hello));
        // The peer's attempt, kept in case this side's attempt fails.
        let mut held: Option<GreetedConnection> = None;
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return Introduced::Stop,
                result = &mut welcome => return match (result, held) {
                    (Ok(welcome), held) => {
                        held.into_iter().for_each(|inbound| refuse(inbound, Close::Duplicate));
                        Introduced::Welcome(welcome)
                    }
                    (Err(_), Some(inbound)) => Introduced::GaveWay(inbound),
                    (Err(ended), None) => Introduced::Failed(ended),
                },
                inbound = self.inbox.recv() => match inbound {
                    None => return Introduced::Stop,
                    Some(inbound) if keeps_its_attempt => {
                        if let Some(older) = held.replace(inbound) {
                            refuse(older, Close::Replaced);
                        }
                    }
                    Some(inbound) => return Introduced::GaveWay(inbound),
                },
            }
        }
    }

    fn accept(&mut self, inbound: Option<GreetedConnection>) -> LinkNext {
        let Some(inbound) = inbound else { return LinkNext::Stop };
        let GreetedConnection { connection, hello, verdict } = inbound;
        if verdict.send(Ok(())).is_err() {
            let why = "the peer's new connection ended before it was accepted";
            return self.failed(ConnectionEnd::For(DownReason::Lost(why.to_owned())));
        }
        self.progress.accepted = Some(hello.id());
        LinkNext::Serve(PeerLink {
            connection,
            origin: LinkOrigin::Accepted,
            peer_incarnation: hello.incarnation,
        })
    }

    async fn serve(&mut self, link: PeerLink) -> LinkNext {
        // The connection was asked for before this node had to stand aside, or the peer refuses this node no
        // longer. To know that is all that this node wants of it: the other agent may come back to the peer
        // while other peers still refuse this node. A change from here on ends the link.
        if *self.aside.borrow_and_update() {
            Close::Aside.apply(&link.connection);
            return LinkNext::StandAside;
        }
        let started = Instant::now();
        let path = LinkPath::of(&link.connection, &self.context.relays);
        self.slot.set(Some(link.connection.clone()));
        let dialled = link.origin != LinkOrigin::Accepted;
        self.publish(path.state(started, dialled, None));
        self.progress.logged = None;
        self.counters.note_wait(self.progress.failures, None);
        let peer = self.id.short();
        tracing::info!(PEER = peer, dialled, "link to {peer} up ({path})");

        let end = self.serve_until_end(&link, (started, path)).await;
        self.slot.set(None);
        self.outgoing.clear();
        self.progress.down_since = Instant::now();
        // Short links count as failures, so that two nodes with one key do not fight at full speed.
        self.progress.failures =
            if started.elapsed() >= STABLE_AFTER { 0 } else { self.progress.failures.saturating_add(1) };
        match end {
            LinkEnd::Stop => {
                let close = self.stopping();
                close.apply(&link.connection);
                tracing::info!(PEER = peer, "link to {peer} down: {}", close.text());
                LinkNext::Stop
            }
            LinkEnd::StandAside => {
                Close::Aside.apply(&link.connection);
                tracing::info!(PEER = peer, "link to {peer} down: {}", Close::Aside.text());
                LinkNext::StandAside
            }
            LinkEnd::Replaced(inbound) => {
                Close::Replaced.apply(&link.connection);
                tracing::info!(PEER = peer, "link to {peer} down: replaced by its newer connection");
                self.accept(Some(inbound))
            }
            LinkEnd::Ended(ended) => {
                let reason = match ended {
                    ConnectionEnd::For(reason) => reason,
                    ConnectionEnd::Duplicate => {
                        DownReason::Lost("the peer keeps another connection".to_owned())
                    }
                };
                let reason = if self.context.transport.is_up() { reason } else { DownReason::NoTransport };
                self.counters.note_error(reason.to_string());
                tracing::info!(PEER = peer, "link to {peer} down: {reason}");
                let since = self.progress.down_since;
                self.publish(LinkState::Down { since, reason: reason.clone(), attempts: 0 });
                let next = match reason {
                    DownReason::NoTransport => LinkNext::AwaitTransport,
                    _ => LinkNext::Wait,
                };
                self.progress.logged = Some(reason);
                next
            }
        }
    }

    async fn serve_until_end(&mut self, link: &PeerLink, (since, mut path): (Instant, LinkPath)) -> LinkEnd {
        let token = self.cancel.child_token();
        // However this function ends, this ends the tasks of the link's streams.
        let _ends_streams = token.clone().drop_guard();
        let outgoing = (&mut self.outgoing, &*self.counters);
        let cut = (&*self.slot, &token);
        let running = traffic::run(&self.context, self.id, &link.connection, outgoing, cut);
        let mut running = Box::pin(running);
        let mut changes = pin!(path::changes(&link.connection, &self.context.relays));
        let dialled = link.origin != LinkOrigin::Accepted;
        let (context, id, cancel) = (&self.context, self.id, &self.cancel);
        let publish = |path: &LinkPath, rivals: &Rivals| {
            publish(context, id, cancel, path.state(since, dialled, rivals.named()));
        };
        let mut rivals = Rivals::default();
        loop {
            tokio::select! {
                // Polled first, so that nothing of a removed peer is read any more.
                biased;
                () = self.cancel.cancelled() => return LinkEnd::Stop,
                Ok(()) = self.aside.changed() => if *self.aside.borrow_and_update() {
                    rivals.give_up();
                    return LinkEnd::StandAside;
                },
                ended = &mut running => return match rivals.take_challenger() {
                    Some(inbound) => LinkEnd::Replaced(inbound),
                    None => LinkEnd::Ended(ended),
                },
                Some(now) = changes.next() => if now != path {
                    if now.is_relayed() != path.is_relayed() {
                        let peer = self.id.short();
                        tracing::info!(PEER = peer, "link to {peer} goes another way ({now})");
                    }
                    publish(&now, &rivals);
                    path = now;
                },
                inbound = self.inbox.recv() => {
                    let Some(inbound) = inbound else { return LinkEnd::Stop };
                    match Newcomer::of(link, &inbound.hello) {
                        Newcomer::Replaces => {
                            rivals.give_up();
                            return LinkEnd::Replaced(inbound);
                        }
                        Newcomer::Duplicate => refuse(inbound, Close::Duplicate),
                        Newcomer::OtherRun => {
                            let before = rivals.wait(&link.connection, inbound);
                            before.into_iter().for_each(|before| refuse(before, Close::Replaced));
                        }
                    }
                },
                resolved = rivals.resolve(&link.connection) => match resolved {
                    Resolved::Takes(inbound) => return LinkEnd::Replaced(inbound),
                    Resolved::BothLive(inbound) => {
                        let theirs = LinkPath::of(&inbound.connection, &context.relays);
                        if rivals.turn_away(inbound, (id, since), (&path, &theirs)) {
                            publish(&path, &rivals);
                        }
                    }
                    Resolved::Forgotten => publish(&path, &rivals),
                },
            }
        }
    }

    fn failed(&mut self, ended: ConnectionEnd) -> LinkNext {
        self.counters.connect_failures.add(1);
        if !self.context.transport.is_up() {
            return LinkNext::AwaitTransport;
        }
        self.progress.failures = self.progress.failures.saturating_add(1);
        // A duplicate is not a failure: the peer's own connection is on its way.
        let ConnectionEnd::For(reason) = ended else { return LinkNext::Wait };
        let (peer, attempts) = (self.id.short(), self.progress.failures);
        // Compared as shown, because a reason may hold a time that grows.
        let said = |logged: &DownReason| logged.to_string() == reason.to_string();
        if self.progress.logged.as_ref().is_some_and(said) {
            tracing::debug!(PEER = peer, attempts, "no link to {peer}: {reason}");
        } else if matches!(
            reason,
            DownReason::Refused(_) | DownReason::Removed(_) | DownReason::HeldElsewhere(_)
        ) {
            tracing::warn!(PEER = peer, attempts, "no link to {peer}: {reason}");
        } else {
            tracing::info!(PEER = peer, attempts, "no link to {peer}: {reason}");
        }
        self.progress.logged = Some(reason.clone());
        self.counters.note_error(reason.to_string());
        self.publish_down(reason);
        LinkNext::Wait
    }

    /// What to tell the peer when this task ends.
    fn stopping(&self) -> Close {
        match self.parting.get() {
            _ if self.context.cancel.is_cancelled() => Close::Shutdown,
            Some(parting) => parting.clone(),
            None => Close::Unlisted,
        }
    }

    fn publish_down(&self, reason: DownReason) {
        let (since, attempts) = (self.progress.down_since, self.progress.failures);
        self.publish(LinkState::Down { since, reason, attempts });
    }

    fn publish(&self, state: LinkState) {
        publish(&self.context, self.id, &self.cancel, state);
    }
}

fn publish(context: &Context, id: EndpointId, cancel: &CancellationToken, state: LinkState) {
    context.links.send_if_modified(|links| {
        // Checked under the lock: once the peer is off the list, its entry must not come back.
        if cancel.is_cancelled() {
            return false;
        }
        links.insert(id, state);
        true
    });
}

/// How the exchange of hello and welcome ended.
enum Introduced {
    Welcome(Welcome),
    Failed(ConnectionEnd),
    GaveWay(GreetedConnection),
    Stop,
}

/// Waits for an endpoint; returns false when there will never be one again.
async fn is_up(transport: &mut watch::Receiver<TransportState>) -> bool {
    transport.wait_for(TransportState::is_up).await.is_ok()
}

async fn connect(
    endpoint: &Endpoint,
    id: &EndpointId,
    whereabouts: Whereabouts,
) -> Result<Connection, ConnectionEnd> {
    let key = key::public_key(id)
        .map_err(|error| ConnectionEnd::For(DownReason::Unreachable(error.to_string())))?;
    match timeout(CONNECT_TIMEOUT, endpoint.connect(whereabouts.of(key), wire::LINK_ALPN)).await {
        Err(_) => Err(ConnectionEnd::For(DownReason::Unreachable("no answer".to_owned()))),
        Ok(Err(error)) => Err(close::not_connected(&error).ended()),
        Ok(Ok(connection)) => Ok(connection),
    }
}

async fn say_hello(connection: &Connection, hello: &Hello) -> Result<Welcome, ConnectionEnd> {
    let by = tokio::time::Instant::now() + HELLO_TIMEOUT;
    let exchange = async {
        let bytes = hello::encode(hello)?;
        let (mut send, mut receive) =
            wire::open_bi(connection, by).await.map_err(|error| error.to_string())?;
        let header = frame::header(bytes.len(), HELLO_LEN_MAX).map_err(|error| error.to_string())?;
        let mut chunks = [bytes::Bytes::copy_from_slice(&header), bytes.into()];
        wire::write(&mut send, &mut chunks).await.map_err(|error| error.to_string())?;
        let answer = wire::read_frame(&mut receive, HELLO_LEN_MAX, HELLO_TIMEOUT).await;
        let answer = answer.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer).map_err(|_| "the peer's welcome is malformed".to_owned())
    };
    let why = match timeout_at(by, exchange).await {
        Ok(Ok(welcome)) => return Ok(welcome),
        Ok(Err(why)) => why,
        Err(_) => "no welcome in time".to_owned(),
    };
    // The peer refuses by closing the connection.
    Err(match connection.close_reason() {
        Some(error) => close::ended(&error),
        None => ConnectionEnd::For(DownReason::Unreachable(why)),
    })
}
