//! Integration tests.

mod binary;
mod cli;
mod scenario;
mod style;
