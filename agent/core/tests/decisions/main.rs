//! The decisions, one file for each kind.

mod changes;
mod common;
mod explain;
mod holds;
mod hostile;
mod leading;
mod lease;
mod lineage;
mod members;
mod membership;
mod ongoing;
mod reconciler;
mod shared_disks;
mod specs;
mod state;
mod stops;
mod version;
