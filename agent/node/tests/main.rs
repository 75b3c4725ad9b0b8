//! One node's part in its cluster: real consensus and state machine, frames carried by hand.

mod backup;
mod birth;
mod changing;
mod explain;
mod group;
mod host;
mod membership;
mod messages;
mod pace;
mod rebirth;
mod strangers;
mod submission;
mod waiting;
