//! The QUIC endpoint on its UDP socket: opening it, keeping it open, the relays it uses, and the table of
//! protocols that are spoken on it.

pub(crate) mod bind_error;
pub(crate) mod endpoint;
pub(crate) mod families;
pub(crate) mod keeper;
pub(crate) mod path;
pub(crate) mod protocol;
pub(crate) mod relay_list;
pub(crate) mod relays;
pub(crate) mod transport;
pub(crate) mod udp;
