//! The command line as a process: its exit codes, what it prints to which stream, and what it sends. The
//! agent is one of the test's own.

mod completions;
mod errors;
mod fake_agent;
mod help;
mod joins;
mod leases;
mod local;
mod logs;
mod reads;
mod status;
mod views;
mod waits;
mod writes;
