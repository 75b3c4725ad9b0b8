//! The network on real sockets of the loopback interface, as one test binary.

mod admission;
mod aside;
mod close;
mod exchange;
mod half_open;
mod hostile;
mod join;
mod join_overload;
mod join_replayed;
mod key;
mod measure;
mod overload;
mod recorded;
mod relay;
mod relay_server;
mod relink;
mod removed;
mod rival;
mod support;
mod transport;
