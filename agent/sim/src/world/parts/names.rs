//! How things of a world are called, and where they are.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use blixard_model::VmName;

use super::event::MachineId;

/// Where a machine is reached.
pub(crate) fn address(machine: MachineId) -> SocketAddr {
    let last = u8::try_from(machine + 1).unwrap_or(u8::MAX);
    SocketAddr::from(([10, 0, 0, last], 7431))
}

/// Texts that are made here are valid.
pub(crate) fn text_id<T: FromStr>(text: &str) -> T
where
    T::Err: fmt::Debug,
{
    text.parse().expect("a valid id")
}

/// One of the names that clients give to VMs.
pub(crate) fn client_vm(number: usize) -> VmName {
    text_id(&format!("v{number}"))
}
