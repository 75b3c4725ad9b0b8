//! Opening the QUIC endpoint: one UDP socket on a fixed port, and the relays of this node's own list, if it
//! has any. No other relay, no public discovery, no port mapping, no resolver but the machine's own, and that
//! one only for a relay's name: nothing is sent to anybody but the configured peers and relays.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use iroh::Endpoint;
use iroh::endpoint::{IdleTimeout, PortmapperConfig, QuicTransportConfig, VarInt, presets};

use crate::admission::gate::Gate;
use crate::key::NodeKey;
use crate::limits::{
    CONNECTION_WINDOW, IDLE_TIMEOUT, INITIAL_RTT, KEEP_ALIVE_INTERVAL, STREAM_WINDOW, STREAMS_PER_PEER_MAX,
};
use crate::socket::bind_error::EndpointBindError;
use crate::socket::protocol::Protocols;
use crate::socket::relays::Relays;

/// Opens an endpoint; the address comes back with the port that was taken.
pub(crate) async fn open(
    key: &NodeKey,
    address: SocketAddr,
    relays: &Relays,
    protocols: &Arc<Protocols>,
) -> Result<(Endpoint, SocketAddr), EndpointBindError> {
    let other = |cause: String| EndpointBindError::Endpoint { address, cause };
    let builder = Endpoint::builder(presets::Minimal)
        .secret_key(key.secret().clone())
        .alpns(protocols.offered())
        .relay_mode(relays.mode())
        .ca_tls_config(relays.tls())
        .dns_resolver(relays.resolver())
        .net_report_config(relays.probes())
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport().map_err(|error| other(error.to_string()))?)
        .hooks(Gate::new(Arc::downgrade(protocols)))
        .clear_ip_transports()
        .bind_addr(address)
        .map_err(|error| other(error.to_string()))?;
    let endpoint = builder.bind().await.map_err(|error| bind_error(address, error))?;
    let local_addr =
        endpoint.bound_sockets().first().copied().ok_or_else(|| other("no socket".to_owned()))?;
    Ok((endpoint, local_addr))
}

fn transport() -> Result<QuicTransportConfig, iroh::endpoint::VarIntBoundsExceeded> {
    Ok(QuicTransportConfig::builder()
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT)?))
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .default_path_max_idle_timeout(IDLE_TIMEOUT)
        .default_path_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_PEER_MAX))
        // The one of Raft messages.
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .build())
}

fn bind_error(address: SocketAddr, error: iroh::endpoint::BindError) -> EndpointBindError {
    let source = match error {
        iroh::endpoint::BindError::Sockets { source, .. }
        | iroh::endpoint::BindError::CreateQuicEndpoint { source, .. } => source,
        other => return EndpointBindError::Endpoint { address, cause: other.to_string() },
    };
    match source.kind() {
        io::ErrorKind::AddrInUse => EndpointBindError::InUse { address },
        io::ErrorKind::AddrNotAvailable => EndpointBindError::NotLocal { address },
        _ => EndpointBindError::Socket { address, cause: source.to_string() },
    }
}
