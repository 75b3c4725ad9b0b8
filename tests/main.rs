//! Integration tests.

mod binary;
mod cli;
#[cfg(feature = "measure")]
mod measure;
mod scenario;
mod style;
mod supervisor;
