//! The list of the bugs that are planted for the simulator. Each name stands in a `mutant::lives` in the
//! sources.
//!
//! Some historical bugs would change nothing here, and are planted in a form that does. Raft does not ask for
//! `term()` and `entries()` that lie about the compacted part of the log as long as `first_index` is right,
//! and a wrong `first_index` alone changes nothing: `holes-skipped` and `empty-log-forgets-snapshot` lie
//! about both. A promise that is not durable has no effect that the promises of the other nodes do not
//! prevent: `forms-without-everybody` stands for it, and a test for a promise that is told too early.
//!
//! Bugs of a store, a disk or a shell are planted in the simulator's own (`sim/src/planted.rs`), bugs of the
//! pump and its log in what these work with (`consensus/src/planted.rs`).

/// A planted bug.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mutant {
    /// The value of `BLIXARD_MUTANT` that switches it on.
    pub(super) name: &'static str,
    /// Where such a bug was met or is feared, and what it is.
    pub(super) source: &'static str,
    /// Whether the whole run fails when this bug is not caught.
    pub(super) must: bool,
}

/// All bugs that are planted for the simulator.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "ack-before-fsync",
        source: "reliability M1, raft-rs R4: what is acknowledged was never synced",
        must: true,
    },
    Mutant {
        name: "entries-not-synced",
        source: "M1: entries are acknowledged before they are synced, term and vote are not",
        must: true,
    },
    Mutant {
        name: "vote-not-persisted",
        source: "M2: term and vote are written only together with entries",
        must: true,
    },
    Mutant { name: "vote-not-synced", source: "M2: a vote is given before its write is synced", must: true },
    Mutant {
        name: "hard-state-not-written",
        source: "previous attempt: what Raft resumes from is not all in its tables",
        must: true,
    },
    Mutant {
        name: "stale-conf-state",
        source: "M3, R1: snapshots and restarts use the configuration of the last start",
        must: true,
    },
    Mutant {
        name: "conf-state-of-self",
        source: "previous attempt, driver 6: after a restart the only voter is the node itself",
        must: true,
    },
    Mutant {
        name: "applied-not-atomic",
        source: "M4, R5: the snapshot's index is behind the state in it",
        must: true,
    },
    Mutant {
        name: "log-cut-before-snapshot",
        source: "M4: the log is cut in one transaction, the snapshot written in the next",
        must: true,
    },
    Mutant {
        name: "hard-state-apart",
        source: "previous attempt, storage: entries and hard state in two transactions",
        must: true,
    },
    Mutant {
        name: "snapshot-without-hard-state",
        source: "M5, R3: a leader's snapshot is stored without the hard state",
        must: true,
    },
    Mutant {
        name: "snapshot-leaves-log",
        source: "M5: a snapshot is stored, and the log before it stays",
        must: true,
    },
    Mutant {
        name: "requests-not-in-snapshot",
        source: "M10: a snapshot forgets which requests were applied",
        must: true,
    },
    Mutant {
        name: "vms-not-in-snapshot",
        source: "previous attempt, storage: a snapshot lists fewer tables than there are",
        must: true,
    },
    Mutant {
        name: "read-without-read-index",
        source: "M6: a read is served at once from what is applied here",
        must: true,
    },
    Mutant {
        name: "round-joined-late",
        source: "leases: a renewal joins a round of confirmations that began before it came",
        must: false,
    },
    Mutant {
        name: "grants-outlive-the-term",
        source: "leases: a node that leads again goes by what it granted in an earlier term",
        must: false,
    },
    Mutant {
        name: "guest-runs-unwatched",
        source: "leases: a guest is let run before systemd's watchdog is armed, and that never is",
        must: false,
    },
    Mutant {
        name: "watchdog-much-later",
        source: "leases: the watchdog is told half a minute more than the lease has left",
        must: false,
    },
    Mutant {
        name: "stop-arms-no-watchdog",
        source: "leases: a stop takes the watchdog away, and its program does not arm it again",
        must: false,
    },
    Mutant {
        name: "stop-goes-on-unwatched",
        source: "found here: the program of a stop ends before the watchdog that it has armed",
        must: false,
    },
    Mutant {
        name: "stop-not-watched-on",
        source: "leases: a supervisor that stops its VM does not arm the watchdog again",
        must: false,
    },
    Mutant {
        name: "file-of-another-boot-obeyed",
        source: "leases: a supervisor goes by the times of another boot",
        must: false,
    },
    Mutant {
        name: "any-generation-permitted",
        source: "leases: a unit of another placement runs under the lease of the present one",
        must: false,
    },
    Mutant {
        name: "no-file-no-end",
        source: "leases: where there is no file a guest may run without an end",
        must: false,
    },
    Mutant {
        name: "found-file-of-another-boot",
        source: "leases: an agent goes on with the lease of another boot",
        must: false,
    },
    Mutant {
        name: "settling-not-waited-out",
        source: "leases: a node obeys them while supervisors may not know of their end",
        must: false,
    },
    Mutant {
        name: "refused-file-taken-for-written",
        source: "leases: a file that could not be written counts as what supervisors know",
        must: false,
    },
    Mutant { name: "read-by-lease", source: "M6: a read trusts the leader's clock", must: false },
    Mutant {
        name: "capacity-checked-before-propose-only",
        source: "M11: room is looked for when a create is proposed, not when it is applied",
        must: true,
    },
    Mutant {
        name: "late-words-believed",
        source: "found here: a late word of an earlier store lets the leader remove who was just admitted",
        must: false,
    },
    Mutant {
        name: "reads-sent-on",
        source: "found here: who led before sends a read on under the asker's raft id",
        must: true,
    },
    Mutant {
        name: "lateness-is-a-lie",
        source: "found here: what an honest member said too late is told as a lie",
        must: true,
    },
    Mutant {
        name: "left-store-not-recognised",
        source: "M12, R10: a store that the cluster let go takes part as if it were a member",
        must: false,
    },
    Mutant {
        name: "raft-id-used-again",
        source: "M12, R10, R13: the raft id of a member that left is given again",
        must: true,
    },
    Mutant {
        name: "light-ready-dropped",
        source: "previous attempt, driver 1: committed entries of the light Ready are dropped",
        must: true,
    },
    Mutant {
        name: "persisted-messages-not-sent",
        source: "previous attempt, driver 2: messages that wait for the write are never sent",
        must: true,
    },
    Mutant {
        name: "apply-ends-the-agent",
        source: "previous attempt, driver 3: applying a create ends the agent, on each start again",
        must: true,
    },
    Mutant {
        name: "restart-resets-term",
        source: "previous attempt, driver 4: a restart forgets term, vote and commit",
        must: true,
    },
    Mutant {
        name: "local-value-in-apply",
        source: "previous attempt, driver 5: applying uses a value that differs from node to node",
        must: true,
    },
    Mutant {
        name: "answered-at-propose",
        source: "previous attempt, driver 6: the client hears done when it is only proposed",
        must: true,
    },
    Mutant {
        name: "failed-step-ends-node",
        source: "previous attempt, driver 7: a message that Raft refuses ends the node",
        must: true,
    },
    Mutant {
        name: "dead-peer-stalls-all",
        source: "previous attempt, driver 8: what follows a message to a dead peer is not sent",
        must: true,
    },
    Mutant {
        name: "second-of-two-lost",
        source: "previous attempt, driver 9: the second of two commands in one turn is lost",
        must: true,
    },
    Mutant {
        name: "no-pre-vote-no-check-quorum",
        source: "previous attempt, driver 10, R6: Raft's defaults",
        must: true,
    },
    Mutant {
        name: "suffix-stays-on-disk",
        source: "previous attempt, storage: appending leaves what conflicts in the file",
        must: true,
    },
    Mutant {
        name: "suffix-stays-in-memory",
        source: "previous attempt, storage: the same in memory",
        must: true,
    },
    Mutant {
        name: "holes-skipped",
        source: "previous attempt, storage: the log says it begins at 1, term 0, holes skipped",
        must: true,
    },
    Mutant {
        name: "hard-state-by-default",
        source: "previous attempt, storage: an unreadable hard state becomes the default one",
        must: true,
    },
    Mutant {
        name: "empty-log-forgets-snapshot",
        source: "previous attempt, storage: an empty log after a snapshot is one without any",
        must: true,
    },
    Mutant {
        name: "state-written-past-the-log",
        source: "previous attempt, storage: a node writes the state itself",
        must: true,
    },
    Mutant {
        name: "snapshot-end-not-reported",
        source: "R8: Raft does not hear how the sending of a snapshot ended",
        must: false,
    },
    Mutant {
        name: "reads-not-repeated",
        source: "R7: a read that Raft dropped is not asked again",
        must: false,
    },
    Mutant {
        name: "names-used-again",
        source: "R7: reads and proposals are named the same after a restart",
        must: false,
    },
    Mutant {
        name: "rolled-back-disk-not-recognised",
        source: "R4: an older copy of a disk goes on as if nothing was lost",
        must: false,
    },
    Mutant {
        name: "lost-store-not-recognised",
        source: "R13: a member with an empty disk is neither let go nor admitted anew",
        must: false,
    },
    Mutant {
        name: "forms-without-everybody",
        source: "previous attempt: each forms with those who answered",
        must: false,
    },
    Mutant {
        name: "forms-without-promises",
        source: "formation: a node forms before the others have promised the same",
        must: false,
    },
    Mutant {
        name: "request-table-not-consulted",
        source: "invariant 3: a request sent twice is applied twice",
        must: false,
    },
    Mutant {
        name: "lost-leadership-is-refusal",
        source: "invariant 3: a leader that lost its term says that nothing happened",
        must: false,
    },
    Mutant {
        name: "name-free-before-unit-gone",
        source: "M9, for names: a deleted VM's name is free while its unit runs",
        must: true,
    },
    Mutant {
        name: "acts-on-old-log",
        source: "invariant 9: units are started from a log that was not read up to date",
        must: false,
    },
    Mutant { name: "store-made-in-place", source: "redb: the file is made under its own name", must: false },
    Mutant { name: "sync-repeated", source: "R15: a sync that failed is repeated and believed", must: false },
    Mutant {
        name: "late-confirmation-believed",
        source: "M9, for names: that a unit is gone is believed of a later one of that name",
        must: false,
    },
    Mutant {
        name: "strangers-left-running",
        source: "invariant 9: a unit that nobody placed there goes on",
        must: false,
    },
    Mutant {
        name: "other-revision-kept",
        source: "specs that change: a unit goes on with the guest that the VM was before",
        must: true,
    },
    Mutant {
        name: "revision-stays",
        source: "specs that change: the new spec cannot be told from the one before",
        must: true,
    },
    Mutant {
        name: "earlier-spec-let-go",
        source: "specs that change: what the spec before took is given away while its unit runs",
        must: true,
    },
    Mutant {
        name: "version-raised-unasked",
        source: "upgrades: the cluster's version is raised although a member said nothing",
        must: true,
    },
    Mutant { name: "log-never-cut", source: "queues bounded: the log grows for ever", must: false },
    Mutant {
        name: "generation-used-again",
        source: "invariant 9: a VM created anew cannot be told from the one deleted before",
        must: false,
    },
    Mutant {
        name: "ticket-used-again",
        source: "tickets: one that has admitted a node admits another",
        must: true,
    },
    Mutant {
        name: "revoked-ticket-stays-open",
        source: "tickets: one that was taken back admits a node",
        must: true,
    },
    Mutant {
        name: "expired-ticket-admits",
        source: "tickets: one whose time is over admits a node",
        must: true,
    },
    Mutant {
        name: "removal-only-told",
        source: "members: an operator is told that a node is removed, and it is a member still",
        must: true,
    },
    Mutant {
        name: "move-not-told",
        source: "members: a node that has another address keeps it to itself",
        must: true,
    },
    Mutant { name: "witness-given-a-vm", source: "witness: a VM is placed on one", must: true },
    Mutant {
        name: "lost-voter-not-replaced",
        source: "members: a voter that is lost for good keeps its vote while a learner could take it",
        must: false,
    },
    Mutant {
        name: "configuration-not-synced",
        source: "found here: who votes is forgotten in a crash by those who count the votes",
        must: false,
    },
    Mutant {
        name: "effects-before-their-write",
        source: "host: messages and answers leave before the write that they rest on",
        must: true,
    },
    Mutant {
        name: "inputs-not-held",
        source: "host: an input reaches the replica while the log is written",
        must: true,
    },
    Mutant {
        name: "call-number-used-again",
        source: "host: a late answer of an earlier call is taken for the one of a newer call",
        must: true,
    },
    Mutant {
        name: "own-removal-not-learned",
        source: "host: what peers say of its own removal is not heard",
        must: true,
    },
];
