//! What Raft must keep through crashes, cuts and changes.

mod agreement;
mod changes;
mod nodes;
mod writes;
