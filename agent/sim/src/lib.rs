//! The world of a simulated node: what stands in for the machine while the production crates run.
//!
//! Everything here is deterministic: the same seed and the same calls give the same run, in every process. No
//! clock, no thread, no random source but [`SimRng`].

pub mod disk;
mod rng;

pub use rng::SimRng;
