//! The local API: HTTP and JSON over the agent's Unix socket, for the command line and for `curl
//! --unix-socket`.

mod backup;
mod error;
#[cfg(test)]
mod fuzz;
mod leases;
mod local;
mod members;
mod peer_cred;
mod request;
mod routes;
mod server;
mod status;
mod vms;

pub(crate) use server::{listen, serve};
