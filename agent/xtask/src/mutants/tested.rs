//! Planted bugs that the simulator's runs do not reach. For each of them, a test of the mechanism has to
//! fail.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::place::Place;

/// A planted bug and the test that has to notice it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tested {
    /// The value of `BLIXARD_MUTANT` that switches it on.
    pub(super) name: &'static str,
    /// What the bug is.
    pub(super) source: &'static str,
    /// Package and test target.
    target: (&'static str, &'static str),
    /// The beginning of the test's name.
    test: &'static str,
}

/// The name here for the unit tests in the library.
const LIBRARY: &str = "lib";

/// All bugs that a test has to notice.
pub(super) const TESTED: &[Tested] = &[
    Tested {
        name: "started-as-the-stopped-placement",
        source: "local stop: what a node says once more of a stop takes back a start that came since",
        target: ("blixard-core", "decisions"),
        test: "stops::the_word_of_a_node",
    },
    Tested {
        name: "stopped-by-hand-for-ever",
        source: "local stop: a stop by hand counts for every later placement as well",
        target: ("blixard-core", "decisions"),
        test: "stops::what_was_stopped_by_hand_is_stopped_and_told",
    },
    Tested {
        name: "unknown-stopped-at-once",
        source: "reconciler: a unit of a VM that the log does not know is stopped before anybody is told",
        target: ("blixard-core", "decisions"),
        test: "reconciler::a_unit_of_a_vm_that_nobody_knows",
    },
    Tested {
        name: "stop-follows-renewals",
        source: "leases: a stop waits for a frozen supervisor for as long as its node's lease is renewed",
        target: ("blixard-launcher", LIBRARY),
        test: "stop_watch::tests::a_stop_does_not_wait",
    },
    Tested {
        name: "stop-left-to-sigterm",
        source: "leases: a stop is not watched once the supervisor was asked, which may stand still then",
        target: ("blixard-launcher", LIBRARY),
        test: "stop_watch::tests::a_supervisor_that_stands_still_after",
    },
    Tested {
        name: "told-before-not-noted",
        source: "leases: an agent gives itself a lease after the one before may have said that it obeys them",
        target: ("blixard-core", "decisions"),
        test: "lease::an_agent_that_follows",
    },
    Tested {
        name: "short-without-a-grant",
        source: "holds: one is ended when little is left of it, although no lease was granted since",
        target: ("blixard-core", "decisions"),
        test: "holds::a_hold_without_a_grant",
    },
    Tested {
        name: "lease-without-a-quorum",
        source: "leases: a leader grants them although nobody confirms that it leads",
        target: ("blixard-node", "node"),
        test: "host::leases::a_lease_takes",
    },
    Tested {
        name: "leader-grants-itself",
        source: "leases: a leader needs no quorum for its own",
        target: ("blixard-node", "node"),
        test: "host::leases::a_lease_takes",
    },
    Tested {
        name: "lease-counted-from-the-answer",
        source: "reliability M7: a lease is counted from the answer, not from before it was asked for",
        target: ("blixard-node", "node"),
        test: "host::leases::a_lease_takes",
    },
    Tested {
        name: "shared-disk-of-a-node",
        source: "disks: a disk that several nodes have is taken for another one on each of them",
        target: ("blixard-core", "decisions"),
        test: "shared_disks::a_shared_disk_that_is_written",
    },
    Tested {
        name: "lease-boot-ignored",
        source: "leases: another boot of a machine is granted one while the first may have one",
        target: ("blixard-core", "decisions"),
        test: "lease::another_boot_waits",
    },
    Tested {
        name: "lost-node-granted-again",
        source: "leases: a node is granted one while its VMs are being given to others",
        target: ("blixard-core", "decisions"),
        test: "lease::a_node_is_lost",
    },
    Tested {
        name: "lease-quote-ignored",
        source: "leases: a node that receives nothing is granted more and more",
        target: ("blixard-core", "decisions"),
        test: "lease::who_does_not_show",
    },
    Tested {
        name: "lost-after-the-lease-alone",
        source: "leases: stop time, margin and wrong clocks are not waited for",
        target: ("blixard-core", "decisions"),
        test: "lease::a_node_is_lost",
    },
    Tested {
        name: "wait-skipped-after-election",
        source: "reliability M8: a new leader does not wait for what the one before granted",
        target: ("blixard-core", "decisions"),
        test: "lease::a_node_is_lost",
    },
    Tested {
        name: "own-lease-not-waited-out",
        source: "leases: a node that has just begun to obey them is lost at once",
        target: ("blixard-core", "decisions"),
        test: "lease::a_node_that_begins",
    },
    Tested {
        name: "enforces-before-the-file",
        source: "leases: a node says that it obeys them before its supervisors know",
        target: ("blixard-core", "decisions"),
        test: "lease::alone_a_node",
    },
    Tested {
        name: "lease-before-its-index",
        source: "leases: a grant counts before the log is applied to it",
        target: ("blixard-core", "decisions"),
        test: "lease::a_lease_is_counted",
    },
    Tested {
        name: "taken-over-unconfirmed",
        source: "leases: a VM is taken over whose unit may run without one",
        target: ("blixard-core", "decisions"),
        test: "lease::a_vm_that_was_kept",
    },
    Tested {
        name: "taken-over-by-the-same-order",
        source: "leases: a VM that was taken over has the order that it had before",
        target: ("blixard-core", "decisions"),
        test: "lease::the_vms_of_a_lost",
    },
    Tested {
        name: "lost-file-not-settled",
        source: "leases: an agent that finds units and no file says at once that it obeys leases",
        target: ("blixard-core", "decisions"),
        test: "lease::an_agent_that_finds_units",
    },
    Tested {
        name: "kept-at-once",
        source: "leases: a VM that may not be failed over any more starts before the lease of then is over",
        target: ("blixard-core", "decisions"),
        test: "reconciler::a_vm_that_may_not_be_failed_over_any_more",
    },
    Tested {
        name: "deleted-unheard",
        source: "removal: a VM that a removed machine may still run is deleted, and its disks are free",
        target: ("blixard-core", "decisions"),
        test: "leading::a_vm_that_a_removed_machine",
    },
    Tested {
        name: "lineage-keeps-leases",
        source: "recovery: what was said of leases in the old cluster holds in the new one",
        target: ("blixard-core", "decisions"),
        test: "lease::a_cluster_made_of_another_waits",
    },
    Tested {
        name: "grants-by-number",
        source: "leases: the newest grant is the one of the highest number, also another node's",
        target: ("blixard-core", "decisions"),
        test: "lease::a_node_that_comes_back_under",
    },
    Tested {
        name: "lineage-keeps-tickets",
        source: "recovery: tickets of the old cluster admit to the new one",
        target: ("blixard-core", "decisions"),
        test: "lineage::whatever_the_state",
    },
    Tested {
        name: "other-generation-kept",
        source: "restore: a unit of another placement is taken for the wanted one, by its name",
        target: ("blixard-core", "decisions"),
        test: "reconciler::a_unit_of_another_placement",
    },
    Tested {
        name: "hold-not-waited-out",
        source: "holds: a node that announced one is lost when the usual lease is over",
        target: ("blixard-core", "decisions"),
        test: "holds::a_hold_is_waited",
    },
    Tested {
        name: "late-hold-not-seen",
        source: "holds: a node is lost that took one after that was decided",
        target: ("blixard-core", "decisions"),
        test: "holds::a_node_that_took",
    },
    Tested {
        name: "hold-of-any-length",
        source: "holds: the log forgets how long one is",
        target: ("blixard-core", "decisions"),
        test: "holds::a_hold_is_waited",
    },
    Tested {
        name: "old-hold-counts",
        source: "holds: a node goes on counting on one that the log may not have any more",
        target: ("blixard-core", "decisions"),
        test: "holds::an_agent_that_ends",
    },
    Tested {
        name: "hold-ended-early",
        source: "holds: a node gives one back before its supervisors know",
        target: ("blixard-core", "decisions"),
        test: "holds::an_agent_that_ends",
    },
    Tested {
        name: "hold-ended-while-disarmed",
        source: "holds: one is given back that the node counts on again",
        target: ("blixard-core", "decisions"),
        test: "holds::a_disarmed_cluster",
    },
    Tested {
        name: "longer-terms-forgotten",
        source: "leases: after a change nobody waits for those by the longer terms",
        target: ("blixard-core", "decisions"),
        test: "holds::shorter_terms",
    },
    Tested {
        name: "retired-at-once",
        source: "removal: a VM that may still run is forgotten with its node",
        target: ("blixard-core", "decisions"),
        test: "holds::the_vms_of_a_removed",
    },
    Tested {
        name: "removed-node-runs-on",
        source: "removal: a node that was removed lets its VMs run on",
        target: ("blixard-node", "node"),
        test: "host::a_host_that_was_removed_stops",
    },
    Tested {
        name: "indices-repeat",
        source: "recovery: a new cluster's order passes for one of the old cluster",
        target: ("blixard-core", "decisions"),
        test: "lineage::what_a_new_cluster",
    },
    Tested {
        name: "old-release-admitted",
        source: "upgrades: a node that does not support the cluster's version becomes a member",
        target: ("blixard-core", "decisions"),
        test: "version::a_node_whose_release_is_too_old",
    },
    Tested {
        name: "only-starts-paced",
        source: "a stop that fails is tried again at once, many times a second",
        target: ("blixard-core", "decisions"),
        test: "ongoing::every_action_that_fails_is_paced",
    },
    Tested {
        name: "stop-waits-for-start",
        source: "faults 19: a VM that does not come up is stopped only when its start has failed",
        target: ("blixard-core", "decisions"),
        test: "ongoing::a_stop_supersedes_a_start",
    },
    Tested {
        name: "confirmed-by-an-old-look",
        source: "a unit is said to be gone by a list from before it was started",
        target: ("blixard-core", "decisions"),
        test: "ongoing::nothing_is_confirmed_by_a_look",
    },
    Tested {
        name: "lineage-uses-raft-id-again",
        source: "recovery, R10: the founder goes on under a raft id that was given before",
        target: ("blixard-core", "decisions"),
        test: "lineage::whatever_the_state",
    },
    Tested {
        name: "recovery-drops-uncommitted",
        source: "recovery: entries that may have been acknowledged are cut off",
        target: ("blixard-node", "node"),
        test: "rebirth::a_recovered_node_has_all_of_its_log",
    },
    Tested {
        name: "removed-node-recovers",
        source: "recovery: a node that its own log has removed begins a cluster",
        target: ("blixard-node", "node"),
        test: "rebirth::changes_of_the_members",
    },
    // The simulator's leaders never hear of such a node, because the nodes that keep it out have no link to
    // it.
    Tested {
        name: "removed-node-admitted-again",
        source: "M12: a node that an operator removed is let in again because it is listed",
        target: ("blixard-core", "decisions"),
        test: "changes::a_removed_node_comes_back",
    },
    Tested {
        name: "replaced-store-moved-away-first",
        source: "recovery: a crash while a store is replaced leaves none",
        target: ("blixard-sim", "store"),
        test: "replace::a_crash_at_any_boundary",
    },
    Tested {
        name: "late-admission-believed",
        source: "found here: a late word of an earlier store, with a ticket, removes who was admitted",
        target: ("blixard-node", "node"),
        test: "changing::a_lost_store_gives_its_place_up",
    },
    Tested {
        name: "removed-for-ever",
        source: "found here: a node that was removed and joined anew is not let in by who is behind",
        target: ("blixard-node", "node"),
        test: "changing::who_was_removed_and_joined_anew",
    },
    Tested {
        name: "foreign-relay-used",
        source: "relays: one that a member names and this node does not list is contacted",
        target: ("blixard-net", LIBRARY),
        test: "relays::tests::a_peer_is_dialled",
    },
    Tested {
        name: "held-inputs-dropped",
        source: "host: what came while the log was written is forgotten",
        target: ("blixard-node", "node"),
        test: "host::what_comes_while_the_log_is_written",
    },
    Tested {
        name: "promise-told-early",
        source: "host: a promise is told before it is durable",
        target: ("blixard-node", "node"),
        test: "host::a_promise_is_told_once",
    },
    Tested {
        name: "report-of-another-believed",
        source: "host: a node says what runs on another one",
        target: ("blixard-node", "node"),
        test: "host::peers::a_report_of_another_node",
    },
    Tested {
        name: "who-gave-up-waits-on",
        source: "host: a leader waits on for the outcome of a change that its asker has given up",
        target: ("blixard-node", "node"),
        test: "host::peers::a_change_of_a_peer_that_gave_up",
    },
];

impl Tested {
    /// Whether the test passes without the bug and fails with it.
    ///
    /// # Errors
    /// The test does not pass without the bug, and then its failure would mean nothing.
    pub(super) fn is_caught(&self, place: &Place) -> Result<bool> {
        ensure!(self.passes(place, None)?, "{} does not pass without a planted bug", self.test);
        Ok(!self.passes(place, Some(self.name))?)
    }

    fn passes(&self, place: &Place, mutant: Option<&str>) -> Result<bool> {
        let (package, target) = self.target;
        let mut cargo = place.cargo();
        cargo
            .env("RUSTFLAGS", "--cfg blixard_mutants")
            .env("CARGO_TARGET_DIR", place.target().join("mutants"))
            .env_remove("BLIXARD_MUTANT")
            // A failure that a planted bug causes is no case for proptest to keep.
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true")
            .args(["test", "--quiet", "--package", package]);
        if target == LIBRARY {
            cargo.args(["--lib", self.test]);
        } else {
            cargo.args(["--test", target, self.test]);
        }
        if let Some(name) = mutant {
            cargo.env("BLIXARD_MUTANT", name);
        }
        let ran = cargo.stdout(Stdio::null()).stderr(Stdio::null()).status();
        Ok(ran.context("cargo could not be run")?.success())
    }
}
