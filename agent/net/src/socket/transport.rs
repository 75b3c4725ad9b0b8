//! The endpoint of the moment, which may be missing, and what is known about it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use iroh::Endpoint;
use tokio::sync::watch;

use crate::socket::bind_error::EndpointBindError;
use crate::socket::families::IpFamilies;
use crate::stats::Counter;

/// Whether this node can talk to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportState {
    /// It listens.
    Up {
        /// The address, with the port that was taken. An unspecified one stands for all of `families`.
        local_addr: SocketAddr,
        /// The IP families that are heard.
        families: IpFamilies,
        /// Since when.
        since: Instant,
    },
    /// There is no endpoint: no link can be up, and attempts to open one go on for as long as it takes.
    Down {
        /// Since when.
        since: Instant,
        /// Why, and what to do.
        reason: TransportDown,
        /// Failed attempts to open it since then.
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
    /// The node stops: there will be none any more.
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

/// The endpoint, set by its keeper alone and shared with the peers' tasks.
#[derive(Debug)]
pub(crate) struct Transport {
    endpoint: Mutex<Option<Endpoint>>,
    state: watch::Sender<TransportState>,
    /// Attempts to open an endpoint that failed.
    pub(crate) failures: Counter,
    /// Times one was opened after another had ended.
    pub(crate) rebuilds: Counter,
}

impl Transport {
    /// Nothing was tried yet.
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

    /// The endpoint. While there is none the state is down, or about to be up.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.lock().clone()
    }

    /// The state, as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<TransportState> {
        self.state.subscribe()
    }

    /// True while there is an endpoint.
    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().is_up()
    }

    /// The address, with the port that was taken; `None` without an endpoint.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match *self.state.borrow() {
            TransportState::Up { local_addr, .. } => Some(local_addr),
            TransportState::Down { .. } => None,
        }
    }

    /// The IP families that are heard; `None` without an endpoint.
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

    /// From here on it is used.
    pub(crate) fn set_up(&self, endpoint: Endpoint, local_addr: SocketAddr, sockets: &[SocketAddr]) {
        *self.lock() = Some(endpoint);
        let families = IpFamilies::of(sockets);
        self.state.send_replace(TransportState::Up { local_addr, families, since: Instant::now() });
    }

    /// As [`Transport::set_down`], for good.
    pub(crate) fn stop(&self) -> Option<Endpoint> {
        self.set_down(TransportDown::Stopping, 0, None)
    }

    /// From here on nobody uses it; gives it back to be closed.
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
