//! What the leader would do, and why: pure functions of the state and of what is reachable.

pub mod explain;
pub mod membership;
pub mod placement;
