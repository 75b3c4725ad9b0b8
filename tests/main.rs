//! Integration tests.

mod binary;
mod cli;
mod measure;
mod scenario;
mod style;
