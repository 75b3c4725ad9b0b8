//! Where a member may be found, as nodes tell each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::EndpointId;
use crate::relay::RelayUrl;

/// A member and where it may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its identity.
    pub endpoint_id: EndpointId,
    /// Where it may be reached.
    pub addresses: Vec<SocketAddr>,
    /// The relay it may be reached through.
    #[serde(default)]
    pub relay_url: Option<RelayUrl>,
}
