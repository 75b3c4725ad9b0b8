//! Real agents over loopback: with their own processes, stores, keys and sockets, but without systemd.
//!
//! What needs units and VMs is tested by the lab's stories instead.

pub(crate) mod cluster;
mod formation;
mod held_twice;
mod hostile;
mod joining;
mod loss;
mod metrics;
mod namespaces;
mod packets;
mod recovery;
mod refusals;
mod registration;
mod relay;
mod retries;
mod rolled_back;
mod secrets;
mod status;
mod systemd;
mod three_nodes;
mod transport;
mod writes;
