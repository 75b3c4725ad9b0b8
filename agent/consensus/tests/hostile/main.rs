//! What a broken member sends and what a broken disk holds.

mod log;
mod messages;
mod nowhere;
