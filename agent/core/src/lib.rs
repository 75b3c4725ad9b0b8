//! Every decision of the product, pure and deterministic: what a command does to the cluster, where a VM
//! goes, who may become a member, when a cluster is born, what a node does to its units.
//!
//! Nothing here waits, reads a clock, draws a random number or iterates over a hash map. Time comes in as
//! milliseconds, the world as observations; out come commands, actions and words for people.

pub mod declared;
pub mod fences;
pub mod formation;
pub mod genesis;
pub mod lease;
pub mod lineage;
pub mod planner;
pub mod ports;
pub mod reconciler;
pub mod report;
pub mod state;
pub mod ticket;

pub use state::{ClusterState, VmRecord};
