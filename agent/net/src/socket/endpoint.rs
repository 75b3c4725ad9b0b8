//! Opening the QUIC endpoint: one UDP socket for each IP family on a fixed port, and the relays of this
//! node's own list, if it has any. There are no other relays, no public discovery and no port mapping. Only
//! the machine's own resolver is used, and only for a relay's name. So nothing is sent to anybody but the
//! configured peers and relays.

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
use crate::socket::families;
use crate::socket::protocol::Protocols;
use crate::socket::relays::Relays;
use crate::socket::udp;

/// An endpoint that listens.
pub(crate) struct OpenEndpoint {
    pub(crate) endpoint: Endpoint,
    /// The addresses of its sockets, with the actual ports: at least one, those of the wanted family first.
    pub(crate) sockets: Vec<SocketAddr>,
}

/// Opens an endpoint on an address. An unspecified address stands for both IP families.
pub(crate) async fn open(
    key: &NodeKey,
    address: SocketAddr,
    relays: &Relays,
    protocols: &Arc<Protocols>,
) -> Result<OpenEndpoint, EndpointBindError> {
    let other = |cause: String| EndpointBindError::Endpoint { address, cause };
    let wanted = to_bind(address)?;
    let mut builder = Endpoint::builder(presets::Minimal)
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
        .clear_ip_transports();
    for address in &wanted {
        builder = builder.bind_addr(*address).map_err(|error| other(error.to_string()))?;
    }
    // iroh does not say which address failed. Trying them only after a failure would blame the wrong one,
    // because iroh may still hold the socket that it could open.
    for address in &wanted {
        udp::try_bind(*address).map_err(|error| socket_error(*address, &error))?;
    }
    let endpoint = builder.bind().await.map_err(|error| bind_error(address, error))?;
    let mut sockets = endpoint.bound_sockets();
    if sockets.is_empty() {
        return Err(other("no socket".to_owned()));
    }
    sockets.sort_by_key(|socket| socket.is_ipv4() != address.is_ipv4());
    Ok(OpenEndpoint { endpoint, sockets })
}

/// The addresses to bind. If two families are wanted, one that this machine does not have is left out, and
/// port 0 is replaced by a free port, the same for both.
fn to_bind(address: SocketAddr) -> Result<Vec<SocketAddr>, EndpointBindError> {
    let mut wanted = families::wanted(address);
    if wanted.len() > 1 {
        wanted.retain(|address| udp::has_family(*address));
    }
    let Some(first) = wanted.first().copied().filter(|_| wanted.len() > 1) else {
        return Ok(if wanted.is_empty() { vec![address] } else { wanted });
    };
    if first.port() == 0 {
        let port = udp::free_port(first).map_err(|error| socket_error(first, &error))?;
        wanted.iter_mut().for_each(|address| address.set_port(port));
    }
    Ok(wanted)
}

fn transport() -> Result<QuicTransportConfig, iroh::endpoint::VarIntBoundsExceeded> {
    Ok(QuicTransportConfig::builder()
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT)?))
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .default_path_max_idle_timeout(IDLE_TIMEOUT)
        .default_path_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_PEER_MAX))
        // The stream of Raft messages.
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
    socket_error(address, &source)
}

fn socket_error(address: SocketAddr, error: &io::Error) -> EndpointBindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => EndpointBindError::InUse { address },
        io::ErrorKind::AddrNotAvailable => EndpointBindError::NotLocal { address },
        _ => EndpointBindError::Socket { address, cause: error.to_string() },
    }
}
