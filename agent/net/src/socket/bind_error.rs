//! Why the endpoint cannot be opened.

use std::net::SocketAddr;

/// Why the endpoint could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointBindError {
    /// Another program listens on the address.
    #[error(
        "UDP address {address} is in use: stop the program that uses it (`ss -lunp` shows it; is another \
         agent running?) or set another port"
    )]
    InUse {
        /// The wanted address.
        address: SocketAddr,
    },
    /// The machine has no such address.
    #[error(
        "{address} is not an address of this machine: correct listen_address (`ip address` shows those there \
         are)"
    )]
    NotLocal {
        /// The wanted address.
        address: SocketAddr,
    },
    /// The kernel refused for another reason.
    #[error("cannot listen on UDP {address}: {cause}")]
    Socket {
        /// The wanted address.
        address: SocketAddr,
        /// The cause.
        cause: String,
    },
    /// The QUIC stack could not start.
    #[error("cannot open the QUIC endpoint on UDP {address}: {cause}")]
    Endpoint {
        /// The wanted address.
        address: SocketAddr,
        /// The cause.
        cause: String,
    },
}
