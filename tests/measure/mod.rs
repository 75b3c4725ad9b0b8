//! Measurements with real agents over loopback: how long growing and shrinking take, what a snapshot under
//! way costs everybody else, how large the disk gets.
//!
//! Built with the feature `measure` alone: they take minutes, and a number is no verdict. Each prints its
//! numbers as one line of JSON, with the machine's load, and fails only where a promise is broken (a lost
//! write, an election, a link that outlives its peer).

mod bench;
mod churn;
mod client;
mod disk;
mod growth;
mod latency;
mod load;
mod numbers;
mod removal;
mod snapshot;
