//! Joins: how a node that is no member asks a member to let it in, with a ticket.

pub(crate) mod ask;
pub(crate) mod desk;
pub(crate) mod serve;
pub mod ticket;
