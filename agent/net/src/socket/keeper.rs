//! The task that keeps an endpoint open: it opens the endpoint, notices its end, and opens it again.
//!
//! Nothing here gives up and nothing here is fatal. When the address is in use, is not on the machine yet or
//! is taken away later, that is a state with a reason, and the agent lives on without links until it is
//! mended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iroh::Endpoint;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::admission::accept;
use crate::context::Context;
use crate::key::NodeKey;
use crate::limits::{BIND_BACKOFF, CLOSE_TIMEOUT, SOCKET_CHECK_PERIOD};
use crate::socket::bind_error::EndpointBindError;
use crate::socket::endpoint::{self, OpenEndpoint};
use crate::socket::families::IpFamilies;
use crate::socket::protocol::Protocols;
use crate::socket::transport::TransportDown;
use crate::socket::udp;

/// Attempts during which an address in use is taken to be still held by the endpoint that ended.
const LINGER_ATTEMPTS: u32 = 6;

/// Keeps an endpoint open on `address` until the node stops. The endpoint then stays open, so that
/// [`crate::Net::close`] can close it and tell every peer.
pub(crate) async fn keep(
    context: Arc<Context>,
    protocols: Arc<Protocols>,
    key: NodeKey,
    mut address: SocketAddr,
) {
    let mut attempts: u32 = 0;
    let mut logged: Option<TransportDown> = None;
    let mut opened_before = false;
    loop {
        let opened = tokio::select! {
            () = context.cancel.cancelled() => return,
            opened = endpoint::open(&key, address, &context.relays, &protocols) => opened,
        };
        let down = match opened {
            Ok(OpenEndpoint { endpoint, sockets }) => {
                // The same address is used again, because peers look for this node where it was.
                if let Some(first) = sockets.first() {
                    address = *first;
                }
                if opened_before {
                    context.transport.rebuilds.add(1);
                }
                (opened_before, attempts, logged) = (true, 0, None);
                log_listening(&sockets);
                context.transport.set_up(endpoint.clone(), address, &sockets);
                // The offered protocols may have changed while the endpoint was being opened.
                protocols.announce(&context.transport);
                match use_until_end(&context, &protocols, &endpoint, &sockets).await {
                    None => return,
                    Some(down) => down,
                }
            }
            Err(error) => {
                context.transport.failures.add(1);
                failed(error, logged.as_ref(), attempts)
            }
        };
        attempts = attempts.saturating_add(1);
        let wait = Duration::from_millis(BIND_BACKOFF.jittered_ms(attempts, context.jitter_seed()));
        if logged.as_ref() != Some(&down) {
            let most = BIND_BACKOFF.longest_ms / 1_000;
            tracing::warn!("no network: {down}; tried again at least every {most} s");
            logged = Some(down.clone());
        }
        if let Some(ended) = context.transport.set_down(down.clone(), attempts, Some(Instant::now() + wait)) {
            context.cancel.run_until_cancelled(close(ended)).await;
        }
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = sleep(wait) => {}
        }
        // The next attempt is under way from here on.
        context.transport.set_down(down, attempts, None);
    }
}

/// Why there is no endpoint after a failed attempt; `before` is the reason before that attempt.
fn failed(error: EndpointBindError, before: Option<&TransportDown>, attempts: u32) -> TransportDown {
    match before {
        // The socket of the ended endpoint is closed with its last user: no other program is to be blamed
        // yet.
        Some(ended @ TransportDown::Ended(_))
            if attempts < LINGER_ATTEMPTS && matches!(error, EndpointBindError::InUse { .. }) =>
        {
            ended.clone()
        }
        _ => TransportDown::Bind(error),
    }
}

/// Accepts connections. Returns `None` when the node stops, otherwise why the endpoint cannot be used any
/// more.
async fn use_until_end(
    context: &Arc<Context>,
    protocols: &Arc<Protocols>,
    endpoint: &Endpoint,
    sockets: &[SocketAddr],
) -> Option<TransportDown> {
    tokio::select! {
        () = context.cancel.cancelled() => None,
        () = accept::accept_all(context, protocols, endpoint) => {
            Some(TransportDown::Ended("the QUIC endpoint ended".to_owned()))
        }
        down = lost_socket(sockets) => Some(down),
        () = context.relays.follow_home(endpoint) => None,
    }
}

fn log_listening(sockets: &[SocketAddr]) {
    let families = IpFamilies::of(sockets);
    let texts: Vec<String> = sockets.iter().map(SocketAddr::to_string).collect();
    tracing::info!("listens on {} (UDP, {families})", texts.join(" and "));
}

/// Resolves when the endpoint does not hold one of its addresses any more. The endpoint does not say so
/// itself: iroh closes its sockets when the machine's addresses change, and goes on without those that cannot
/// be opened again.
async fn lost_socket(sockets: &[SocketAddr]) -> TransportDown {
    let mut checks = interval(SOCKET_CHECK_PERIOD);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        if let Some(down) = sockets.iter().find_map(|address| socket_fault(*address)) {
            return down;
        }
    }
}

/// Tries to bind the address, which has to fail while the endpoint holds it.
fn socket_fault(local_addr: SocketAddr) -> Option<TransportDown> {
    match udp::try_bind(local_addr) {
        Ok(()) => Some(TransportDown::Ended("the endpoint let go of its socket".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            Some(TransportDown::Bind(EndpointBindError::NotLocal { address: local_addr }))
        }
        // The address is in use, as it has to be, or the error says nothing about the endpoint.
        Err(_) => None,
    }
}

/// Closes an endpoint that cannot be used any more.
async fn close(endpoint: Endpoint) {
    if timeout(CLOSE_TIMEOUT, endpoint.close()).await.is_err() {
        tracing::debug!("an endpoint that ended did not close in time");
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_socket_that_is_no_longer_held_is_a_fault() {
        let held = UdpSocket::bind("127.0.0.1:0").expect("socket");
        let address = held.local_addr().expect("address");
        assert_eq!(socket_fault(address), None);
        drop(held);
        assert!(matches!(socket_fault(address), Some(TransportDown::Ended(_))));
    }

    #[test]
    fn an_address_in_use_is_not_blamed_on_another_program_while_the_old_socket_may_linger() {
        let address = "127.0.0.1:7431".parse().expect("address");
        let (in_use, ended) = (EndpointBindError::InUse { address }, TransportDown::Ended("x".to_owned()));
        assert_eq!(failed(in_use.clone(), Some(&ended), LINGER_ATTEMPTS - 1), ended);
        let named = TransportDown::Bind(in_use.clone());
        assert_eq!(failed(in_use.clone(), Some(&ended), LINGER_ATTEMPTS), named);
        assert_eq!(failed(in_use, None, 0), named);
        let foreign = EndpointBindError::NotLocal { address };
        assert_eq!(failed(foreign.clone(), Some(&ended), 1), TransportDown::Bind(foreign));
    }

    #[test]
    fn an_address_that_left_the_machine_is_reported() {
        let address = "192.0.2.7:7431".parse().expect("address");
        assert_eq!(socket_fault(address), Some(TransportDown::Bind(EndpointBindError::NotLocal { address })));
    }
}
