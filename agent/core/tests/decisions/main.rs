//! The decisions, one file for each kind.

mod common;
mod membership;
mod reconciler;
mod state;
