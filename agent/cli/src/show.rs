//! Views as text for people. Pure; every text passes through [`clean`](crate::text::clean).

mod fence;
mod kit;
pub(crate) mod local;
pub(crate) mod node;
pub(crate) mod status;
pub(crate) mod ticket;
pub(crate) mod vm;
