//! Leases: which nodes may run VMs that other nodes may take over, and when one of them is lost.
//!
//! ```text
//!   node (Holder)                               leader (Grantor)
//!   RenewLease {boot, quote}  ───────────────▶  begins a ReadIndex round after it arrived
//!   counts from before this was sent            the round ends: it led all the time until then
//!   applies its log to `index`        ◀───────  Granted {grant, length, index}, and notes its own time
//!   writes the file that supervisors obey
//! ```
//!
//! What makes a second copy of a VM impossible: a node counts its lease from before the renewal was sent, the
//! leader from after it was granted, and waits for the longer of both clocks' errors and the time that a
//! supervisor takes; a leader that has just begun waits that long for everybody, because any lease of the
//! leader before it was counted from before it won its election; and after a node was found to be lost
//! nothing is granted to it until the log says that its VMs are elsewhere.
//!
//! Both are pure: times are milliseconds of the CLOCK_BOOTTIME of the machine they are on.

mod grantor;
mod holder;

pub use grantor::Grantor;
pub use holder::{Holder, LeaseFound, LeaseStep, permits};
