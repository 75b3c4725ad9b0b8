//! The plans of the leader, with reasons: pure functions of the state and of what is reachable.

pub mod explain;
pub mod membership;
pub mod placement;
