//! The current endpoint, which may be missing, and what is known about it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use iroh::Endpoint;
use tokio::sync::watch;

use crate::socket::bind_error::EndpointBindError;
use crate::socket::families::IpFamilies;
use crate::stats::Counter;

/// Whether this node has an endpoint, without which it can talk to nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportState {
    /// The endpoint is open and listens.
    Up {
        /// The address, with the actual port. An unspecified address stands for all of `families`.
        local_addr: SocketAddr,
        /// The IP families that the endpoint listens on.
        families: IpFamilies,
        /// When the endpoint was opened.
        since: Instant,
    },
    /// There is no endpoint: no link can be up, and opening one is tried again until it succeeds.
    Down {
        /// When the endpoint was lost, or the network was started.
        since: Instant,
        /// Why there is no endpoint, and what to do.
        reason: TransportDown,
        /// Failed attempts to open an endpoint since then.
        attempts: u32,
        /// When the next attempt is made; `None` while one is under way.
        next_try: Option<Instant>,
    },
}

impl TransportState {
    /// True while there is an endpoint.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// Why there is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportDown {
    /// The first attempt has not ended yet.
    Starting,
    /// The endpoint cannot be opened.
    Bind(EndpointBindError),
    /// The endpoint was open and ended by itself.
    Ended(String),
    /// The node stops: no endpoint is opened any more.
    Stopping,
}

impl fmt::Display for TransportDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("the UDP socket is being opened"),
            Self::Bind(error) => error.fmt(f),
            Self::Stopping => f.write_str("the node stops"),
            Self::Ended(why) => write!(f, "the UDP socket was lost ({why}); it is opened again"),
        }
    }
}

/// The current endpoint, shared with the peers' tasks. Only its keeper sets it.
#[derive(Debug)]
pub(crate) struct Transport {
    endpoint: Mutex<Option<Endpoint>>,
    state: watch::Sender<TransportState>,
    /// Attempts to open an endpoint that failed.
    pub(crate) failures: Counter,
    /// How often an endpoint was opened after another one had ended.
    pub(crate) rebuilds: Counter,
}

impl Transport {
    /// The state before the first attempt.
    pub(crate) fn new() -> Self {
        let reason = TransportDown::Starting;
        let state = TransportState::Down { since: Instant::now(), reason, attempts: 0, next_try: None };
        Self {
            endpoint: Mutex::default(),
            state: watch::Sender::new(state),
            failures: Counter::default(),
            rebuilds: Counter::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Endpoint>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoint. While it is `None`, the state is [`TransportState::Down`].
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.lock().clone()
    }

    /// A receiver of the state and its changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<TransportState> {
        self.state.subscribe()
    }

    /// True while there is an endpoint.
    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().is_up()
    }

    /// The address, with the actual port; `None` without an endpoint.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match *self.state.borrow() {
            TransportState::Up { local_addr, .. } => Some(local_addr),
            TransportState::Down { .. } => None,
        }
    }

    /// The IP families that the endpoint listens on; `None` without an endpoint.
    pub(crate) fn families(&self) -> Option<IpFamilies> {
        match *self.state.borrow() {
            TransportState::Up { families, .. } => Some(families),
            TransportState::Down { .. } => None,
        }
    }

    /// Why there is no endpoint; `None` while there is one.
    pub(crate) fn missing(&self) -> Option<String> {
        match &*self.state.borrow() {
            TransportState::Up { .. } => None,
            TransportState::Down { reason, .. } => Some(reason.to_string()),
        }
    }

    /// Makes this the endpoint that is used.
    pub(crate) fn set_up(&self, endpoint: Endpoint, local_addr: SocketAddr, sockets: &[SocketAddr]) {
        *self.lock() = Some(endpoint);
        let families = IpFamilies::of(sockets);
        self.state.send_replace(TransportState::Up { local_addr, families, since: Instant::now() });
    }

    /// Like [`Transport::set_down`], for good.
    pub(crate) fn stop(&self) -> Option<Endpoint> {
        self.set_down(TransportDown::Stopping, 0, None)
    }

    /// Ends the use of the endpoint, and returns it to be closed.
    pub(crate) fn set_down(
        &self,
        reason: TransportDown,
        attempts: u32,
        next_try: Option<Instant>,
    ) -> Option<Endpoint> {
        self.state.send_modify(|state| {
            let since = match state {
                TransportState::Up { .. } => Instant::now(),
                TransportState::Down { since, .. } => *since,
            };
            *state = TransportState::Down { since, reason, attempts, next_try };
        });
        self.lock().take()
    }
}
