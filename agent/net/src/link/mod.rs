//! Links to peers: one task per peer dials, greets and keeps one connection, on which Raft messages, requests
//! and snapshots travel.

pub(crate) mod answer;
pub(crate) mod greet;
pub(crate) mod hello;
pub(crate) mod peer;
pub(crate) mod peer_keeper;
pub(crate) mod queue;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod rival;
pub(crate) mod shares;
pub(crate) mod snapshot;
pub(crate) mod snapshot_arrival;
pub(crate) mod snapshot_room;
pub(crate) mod stream_kind;
pub(crate) mod streams;
pub(crate) mod traffic;
pub(crate) mod whereabouts;
