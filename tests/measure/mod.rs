//! Measurements with real agents over loopback: how long it takes to grow and to shrink a cluster, how much a
//! snapshot under way delays others, how large the disk gets.
//!
//! They are built only with the feature `measure`, because they take minutes and a number is neither right
//! nor wrong. Each measurement prints its numbers as one line of JSON, with the machine's load, and fails
//! only where a promise is broken (a lost write, an election, a link that outlives its peer).

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
mod supervisor;
