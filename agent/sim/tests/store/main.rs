//! The production store over a disk that crashes, tears, refuses and forgets.

mod crash;
mod disk;
mod refuse;
mod repeat;
mod replace;
mod rot;
mod workload;
