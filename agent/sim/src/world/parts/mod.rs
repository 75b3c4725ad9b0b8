//! What a world is made of. Each part holds its own state and knows of no world: what happens to it, and
//! when, stands in the files beside this folder.

pub(crate) mod client;
pub(crate) mod event;
pub(crate) mod hypervisor;
pub(crate) mod lease_dir;
pub(crate) mod liveness;
pub(crate) mod machine;
pub(crate) mod mirror;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod node_copy;
pub(crate) mod operator;
pub(crate) mod supervised;
