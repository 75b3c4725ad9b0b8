//! Who gets in: inbound connections from the first packet until a protocol takes them, and the list of peers.

pub(crate) mod accept;
pub(crate) mod gate;
pub(crate) mod half_open;
pub(crate) mod peers;
