//! What came of a run.

use std::fmt;

use blixard_model::Outcome;

use crate::disk::CrashPoints;

/// Something that must hold did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// When, in µs of simulated time.
    pub at_us: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}.{:06} s: {}",
            self.invariant,
            self.at_us / 1_000_000,
            self.at_us % 1_000_000,
            self.what
        )
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Hash over everything that happened.
    pub trace_hash: u64,
    /// What happened, in numbers.
    pub counts: Counts,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened in a run.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
            /// Where power was lost.
            pub crash_points: CrashPoints,
        }

        impl Counts {
            /// The numbers by name.
            pub fn numbers(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counts! {
    /// Simulated time, in µs.
    simulated_us,
    /// Events in the trace.
    events,
    /// Turns of consensus tasks.
    turns,
    /// Messages sent.
    messages,
    /// Messages lost.
    lost,
    /// Messages that arrived twice.
    duplicated,
    /// Power losses.
    crashes,
    /// Of these, in the middle of an operation of the disk: between a write and its sync, or inside one.
    crashes_in_writes,
    /// kill -9.
    kills,
    /// Orderly restarts.
    restarts,
    /// Partitions that cut both directions.
    partitions,
    /// Partitions that cut one direction.
    one_way_partitions,
    /// Units started by hand that nobody had placed.
    strangers,
    /// Cuts that stayed.
    lasting_cuts,
    /// Times a process stood still for a while.
    pauses,
    /// Machines that were suspended.
    sleeps,
    /// Machines that moved to another address.
    moves,
    /// Agents that started with another capacity to offer than the run before.
    other_capacities,
    /// Disks that became slow.
    slow_disks,
    /// Disks without space.
    full_disks,
    /// Agents that ended for lack of space.
    full_disk_ends,
    /// Machines that were upgraded from an older release.
    upgrades,
    /// Versions that clusters were raised to.
    versions_raised,
    /// Disks lost: wiped, failed, or recognised as rolled back.
    lost_disks,
    /// Disks rolled back.
    rolled_back,
    /// Of these, recognised.
    recognised,
    /// Guests that ended by themselves.
    guest_ends,
    /// Units started.
    vm_starts,
    /// Guests that ended because their machine's lease had.
    lease_ends,
    /// Changes by which a VM that may be failed over is to be kept, or the other way round.
    fates_changed,
    /// Machines that were copied, and ran beside their copies.
    node_copies,
    /// Guests that ran on a copy under a lease.
    guests_of_copies,
    /// Supervisors that stood still before their guests ran.
    frozen_starting,
    /// Supervisors that stood still while their guests ran.
    frozen_running,
    /// Supervisors that stood still while they were being stopped.
    frozen_stopping,
    /// Units that the service manager's watchdog ended.
    watchdog_kills,
    /// Units that it ended because they did not stop in time.
    stop_timeouts,
    /// Starts that ended because no lease came in time.
    starts_without_lease,
    /// Lease files that could not be written.
    lease_writes_refused,
    /// Directories of lease files that somebody removed.
    lease_files_lost,
    /// Power losses that left the lease file of the boot before.
    old_files_kept,
    /// Lease files that were exchanged for one of an earlier boot.
    old_files_put_back,
    /// Looks of a supervisor at the file of another boot.
    old_files_refused,
    /// Agents that ended in order and whose VMs could run on meanwhile, by long leases that the log knew.
    holds,
    /// VMs that were given to another node because theirs was lost.
    failovers,
    /// Times that VMs which may be failed over ran twice because clocks were further off than leases allow.
    beyond_clocks,
    /// Times that an operator asked for no failover for a while.
    disarms,
    /// Times that an operator took that back.
    arms,
    /// Times that an operator chose other terms of leases.
    terms_chosen,
    /// Times that a node began to lead.
    elections,
    /// States replaced by a leader's snapshot.
    snapshots,
    /// Membership changes applied, on all nodes.
    membership_changes,
    /// Nodes that were admitted with a ticket.
    joins,
    /// Nodes that an operator removed.
    removals,
    /// Of these, that learned it and ended.
    learned_removed,
    /// Tickets that admitted nobody.
    tickets_refused,
    /// Operations that clients invoked.
    operations,
    /// Writes acknowledged.
    acknowledged,
    /// Writes acknowledged with a change, and not refused.
    done,
    /// Reads served.
    reads,
    /// Attempts repeated because the end was not known.
    retries,
    /// Operations that clients gave up.
    gave_up,
    /// Highest index applied.
    applied,
    /// From the mending until everything was at rest, in µs.
    settled_us,
}

impl Counts {
    pub(crate) fn count_outcome(&mut self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Done { .. }) {
            self.done += 1;
        }
    }
}
