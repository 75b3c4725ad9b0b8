//! Measurements with real agents over loopback: how long growing and shrinking take, what a snapshot under way
//! costs everybody else, how large the disk gets.
//!
//! Ignored unless asked for by name; each prints its numbers as one line of JSON, with the machine's load. They
//! fail only where a promise is broken (a lost write, an election, a file without bound), not at a number.

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
