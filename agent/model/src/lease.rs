//! Leases: the right of a node to run the VMs that may be failed over.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::boot::BootId;
use crate::id::{ClusterId, VmName};
use crate::mutant;

/// Which grant of a lease it is: the leader of a term counts those that it gives to one node. Of two, the one
/// of the later term is newer, then the one with the later index: the leader counts by names, and from 1
/// again for a node that comes back under another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GrantId {
    /// The term of the leader that gave it.
    pub term: u64,
    /// Counted from 1, for each node.
    pub number: u64,
    /// How far the leader had applied its log. The node counts on the grant once its own is applied to here.
    pub index: u64,
}

impl GrantId {
    /// By what the newer of two is told.
    fn age(&self) -> (u64, u64, u64) {
        match mutant::lives("grants-by-number") {
            true => (self.term, self.number, self.index),
            false => (self.term, self.index, self.number),
        }
    }
}

impl PartialOrd for GrantId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for GrantId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.age().cmp(&other.age())
    }
}

/// How long a guest runs on at most, in milliseconds, after its supervisor has looked for the last time at a
/// file without an end: systemd's watchdog, which the supervisor has told that much, ends it then. An agent
/// that gives its file an end waits as long before it says that this node obeys leases: until then a
/// supervisor that stands still may let its guest run on without knowing of the end.
pub const ENDLESS_WATCHDOG_MS: u64 = 60_000;

/// What a node's agent lets the supervisors of its VMs know, as JSON: how long its lease holds, and which VMs
/// may run under it. Nothing else allows a VM to run that needs a lease; no file is no lease.
///
/// Supervisors outlive the release that they began with and read what later agents write: what a file says
/// beside this is for those who know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFile {
    /// The boot of the machine whose CLOCK_BOOTTIME `until_ms` is of. In another boot the file means nothing.
    pub boot_id: BootId,
    /// The cluster that placed the VMs. A VM of another one may not run.
    pub cluster_id: ClusterId,
    /// Until when the VMs may run, in milliseconds of CLOCK_BOOTTIME. None: without an end, because nobody
    /// may fail them over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// The newest grant that the node received: an agent that starts again shows it to the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// The time of enforcement at which the node says that it obeys leases, or said so: the log may have it
    /// although the node does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforces: Option<u64>,
    /// The VMs that may run here, each with the generation of its placement.
    pub vms: BTreeMap<VmName, u64>,
}

/// How long leases hold, and what is added before a node counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// How long a lease holds, in milliseconds of the node's clock from before its renewal was sent.
    pub lease_ms: u64,
    /// How long it takes at most until a VM whose lease has ended is gone, in milliseconds.
    pub stop_ms: u64,
    /// Added to all that, in milliseconds.
    pub margin_ms: u64,
    /// After supervisors were allowed to run without an end so much time passes, in milliseconds, before
    /// their node says that it obeys leases: each has read of the end by then, or was ended by systemd's
    /// watchdog.
    pub settle_ms: u64,
}

/// How far a clock may be from true time, in parts of 1,000: the leader's may run too fast by this and the
/// node's too slow.
const DRIFT_PERMILLE: u64 = 10;

impl LeaseTerms {
    /// Those of a cluster for which nobody chose others.
    pub const DEFAULT: Self =
        Self { lease_ms: 10_000, stop_ms: 5_000, margin_ms: 2_000, settle_ms: ENDLESS_WATCHDOG_MS + 5_000 };

    /// How long after a grant a leader waits, in milliseconds of its clock, until the node that got it
    /// certainly runs none of the VMs that may be failed over.
    pub fn wait_ms(&self) -> u64 {
        self.wait_after_ms(self.lease_ms)
    }

    /// The same after a lease of this length, in milliseconds.
    pub fn wait_after_ms(&self, lease_ms: u64) -> u64 {
        let counted = lease_ms.saturating_add(self.stop_ms);
        let slow = counted.saturating_mul(1_000 + DRIFT_PERMILLE).div_ceil(1_000 - DRIFT_PERMILLE);
        slow.saturating_add(self.margin_ms)
    }

    /// These, with what somebody chose instead.
    pub fn with(self, choice: Option<LeaseTermsChoice>) -> Self {
        let choice = choice.unwrap_or_else(|| self.into());
        let LeaseTermsChoice { lease_ms, stop_ms, margin_ms } = choice;
        Self { lease_ms, stop_ms, margin_ms, ..self }
    }

    /// How long the hardware of a machine whose kernel hangs may take to restart it, in whole seconds. It
    /// may hang when its lease is nearly over and a moment after its watchdog was fed, and has to be gone
    /// when the wait is over, whatever the clocks of all three are worth.
    pub fn hardware_watchdog_s_max(&self) -> u64 {
        let left = self.stop_ms.saturating_add(self.margin_ms);
        left.saturating_mul(1_000 - DRIFT_PERMILLE) / (1_000 + DRIFT_PERMILLE) / 1_000
    }

    /// How often a lease is renewed, in milliseconds.
    pub fn renewal_ms(&self) -> u64 {
        self.lease_ms / 3
    }
}

/// Longest lease that a node can announce, in milliseconds, and longest time that a cluster can be disarmed:
/// a day.
pub const HOLD_MS_MAX: u64 = 86_400_000;
/// Shortest time that a cluster can be disarmed for, in milliseconds.
pub const DISARM_MS_MIN: u64 = 10_000;
/// Shortest lease that a node can announce, in milliseconds.
pub const HOLD_MS_MIN: u64 = 1_000;

/// A *hold*: a long lease that a node announces through the log, so that whoever leads later knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HoldAsk {
    /// The boot of its machine.
    pub boot_id: BootId,
    /// When it begins, in milliseconds of CLOCK_BOOTTIME of that boot: the node asked no earlier.
    pub begins_ms: u64,
    /// How long it is, in milliseconds, from [`HOLD_MS_MIN`] to [`HOLD_MS_MAX`].
    pub length_ms: u64,
}

impl HoldAsk {
    /// When it ends, in milliseconds of CLOCK_BOOTTIME of its boot.
    pub fn until_ms(&self) -> u64 {
        self.begins_ms.saturating_add(self.length_ms)
    }

    /// Whether its length is one that can be announced.
    pub fn is_valid(&self) -> bool {
        (HOLD_MS_MIN..=HOLD_MS_MAX).contains(&self.length_ms)
    }
}

/// The terms of leases that somebody chose for the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseTermsChoice {
    /// See [`LeaseTerms::lease_ms`].
    pub lease_ms: u64,
    /// See [`LeaseTerms::stop_ms`].
    pub stop_ms: u64,
    /// See [`LeaseTerms::margin_ms`].
    pub margin_ms: u64,
}

/// Terms that cannot be promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "term", rename_all = "snake_case")]
pub enum LeaseTermsRefused {
    /// A lease that is renewed too late or too often.
    #[error(
        "a lease is 3 to 300 s long: with a shorter one a leader that is replaced costs VMs, with a longer \
         one nobody takes them over"
    )]
    Lease,
    /// The time in which a VM whose lease has ended is certainly gone.
    #[error(
        "the stop time is 3 to 60 s: systemd's watchdog ends a VM up to 2 s after its lease, and a machine \
         under load needs a moment"
    )]
    Stop,
    /// What is added.
    #[error("the margin is 0.5 to 60 s")]
    Margin,
}

impl LeaseTermsChoice {
    /// Checks that they can be kept.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), LeaseTermsRefused> {
        let one_of = |value: u64, range: std::ops::RangeInclusive<u64>, why| {
            if range.contains(&value) { Ok(()) } else { Err(why) }
        };
        one_of(self.lease_ms, 3_000..=300_000, LeaseTermsRefused::Lease)?;
        one_of(self.stop_ms, 3_000..=60_000, LeaseTermsRefused::Stop)?;
        one_of(self.margin_ms, 500..=60_000, LeaseTermsRefused::Margin)
    }
}

impl From<LeaseTerms> for LeaseTermsChoice {
    fn from(terms: LeaseTerms) -> Self {
        let LeaseTerms { lease_ms, stop_ms, margin_ms, settle_ms: _ } = terms;
        Self { lease_ms, stop_ms, margin_ms }
    }
}

/// A node asks for its lease to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRenewal {
    /// The boot of its machine.
    pub boot_id: BootId,
    /// The newest grant that its supervisors know of in this boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<GrantId>,
}

/// A lease that is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// Which grant it is.
    pub grant: GrantId,
    /// How long it holds, in milliseconds from before the renewal was sent.
    pub length_ms: u64,
}

/// What becomes of a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "lease", rename_all = "snake_case")]
pub enum RenewalAnswer {
    /// The lease is renewed.
    Granted(LeaseGrant),
    /// It is not.
    Denied {
        /// Why it is not.
        why: LeaseDenial,
    },
}

/// How a node stands with the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LeaseStanding {
    /// It renews its lease.
    Holds {
        /// For how long it still has one, in milliseconds, as the leader counts; 0 where a release before
        /// this one says nothing of it.
        #[serde(default)]
        left_ms: u64,
    },
    /// It has not renewed its lease for a while, or not since this node leads: it counts as lost after so
    /// many milliseconds.
    Suspect {
        /// Until it counts as lost.
        lost_in_ms: u64,
    },
    /// It certainly runs no VM that may be failed over.
    Lost,
}

/// Why a lease is not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum LeaseDenial {
    /// The log does not say that the node obeys leases in this boot, or that it was lost since; the node has
    /// to say so, or to say so anew.
    #[error(
        "the log does not say that this boot of the machine obeys leases, or says that it was lost since"
    )]
    NotEnforced,
    /// Another boot, or another machine of this name, may still have one.
    #[error("an earlier boot of this machine, or another one of its name, may have a lease for {wait_ms} ms")]
    EarlierBoot {
        /// For how long, in milliseconds.
        wait_ms: u64,
    },
    /// The node did not receive the grants before, so it may not know of this one either.
    #[error("the last grants did not reach the node")]
    NotReceived,
    /// Its VMs are being given to other nodes.
    #[error("the node counts as lost: its VMs are being given to other nodes")]
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_covers_a_slow_holder_and_a_fast_leader() {
        let terms = LeaseTerms::DEFAULT;
        assert_eq!((terms.wait_ms(), terms.renewal_ms()), (17_304, 3_333));
        // 15 s of a clock that is 1 % slow, on one that is 1 % fast.
        let (slow_ms, true_ms) = (15_000_u64, 15_000 * 1_000 / 990);
        assert!(true_ms > slow_ms && terms.wait_ms() - terms.margin_ms >= true_ms * 1_010 / 1_000);
        let all = LeaseTerms { lease_ms: u64::MAX, ..LeaseTerms::DEFAULT };
        assert!(all.wait_ms() > u64::MAX / 1_000, "no overflow");
    }

    #[test]
    fn a_machine_that_hangs_at_the_end_of_its_lease_is_restarted_before_the_wait_is_over() {
        for (lease_ms, stop_ms, margin_ms) in
            [(10_000, 5_000, 2_000), (3_000, 3_000, 500), (300_000, 60_000, 60_000)]
        {
            let terms = LeaseTerms { lease_ms, stop_ms, margin_ms, ..LeaseTerms::DEFAULT };
            let restart_ms = terms.hardware_watchdog_s_max() * 1_000;
            // In millionths of true time: the clocks of the machine are slow, the leader's is fast.
            let restarted = (lease_ms + restart_ms) * 1_000_000 / 990;
            assert!(restarted <= terms.wait_ms() * 1_000_000 / 1_010, "{terms:?}");
            assert!(
                restart_ms + 1_000 + restart_ms / 20 > stop_ms + margin_ms,
                "no shorter than it has to be: {terms:?}"
            );
        }
        assert_eq!(LeaseTerms::DEFAULT.hardware_watchdog_s_max(), 6);
    }
}
