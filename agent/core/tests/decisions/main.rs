//! The decisions, one file for each kind.

mod common;
mod hostile;
mod members;
mod membership;
mod reconciler;
mod state;
