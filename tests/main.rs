//! Integration tests.

mod cli;
mod style;
