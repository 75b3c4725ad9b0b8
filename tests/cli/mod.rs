//! The command line as a process: its exit codes, what it prints where, and what it sends, against an agent
//! of the test.

mod completions;
mod errors;
mod fake_agent;
mod help;
mod joins;
mod logs;
mod reads;
mod status;
mod views;
mod waits;
mod writes;
