//! The version of a cluster: what its log and its wire may hold.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the log of a cluster, and what its members say to each other, may hold. It stands in the replicated
/// state and only grows: the leader raises it once every member has said that it supports the next one, so
/// during an upgrade nobody is sent what it cannot read, and replicas of different releases apply the same
/// entry to the same effect. A node whose release does not support the version of its cluster is not let in,
/// and an agent that was replaced by an older release ends instead of applying what it does not know.
///
/// | version | brings |
/// |---|---|
/// | 1 | what the releases before versions were counted write and say |
/// | 2 | [`crate::Command::RaiseVersion`]; reasons of refusals as codes; specs that change |
/// | 3 | leases, and VMs that other nodes take over: [`crate::OnNodeLoss`], [`crate::Command::NodeLost`] |
/// | 4 | long leases, disarmed clusters, other terms ([`crate::HoldAsk`]); [`crate::Command::NoteStopped`] |
/// | 4 | disks that several nodes have: [`crate::Offer::shared_dirs`] |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ClusterVersion(u32);

impl ClusterVersion {
    /// That of releases that do not count versions.
    pub const FIRST: Self = Self(1);
    /// From this one on, specs of VMs can be changed.
    pub const SPECS_CHANGE: Self = Self(2);
    /// From this one on, the log keeps the reasons of refusals as codes, and not in words.
    pub const CODED_REASONS: Self = Self(2);
    /// From this one on, nodes have leases, and other nodes take over the VMs of one that is lost.
    pub const LEASES: Self = Self(3);
    /// From this one on, a node can announce a long lease, and the terms of leases can be changed.
    pub const HOLDS: Self = Self(4);
    /// From this one on, a node says of VMs that they stay stopped, and VMs have restart policies.
    pub const STOPS_NOTED: Self = Self(4);
    /// From this one on, nodes say which directories of disks they share, and VMs whose disks lie there are
    /// taken over as well.
    pub const SHARED_DISKS: Self = Self(4);
    /// The newest that this release supports; it supports all before it.
    pub const NEWEST: Self = Self(4);

    /// Whether it is the first one: that one is left out where it is written, as it was before there was a
    /// second.
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

/// There is no version 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the versions of a cluster are counted from 1")]
pub struct NoVersion;

impl TryFrom<u32> for ClusterVersion {
    type Error = NoVersion;
    fn try_from(number: u32) -> Result<Self, NoVersion> {
        if number == 0 { Err(NoVersion) } else { Ok(Self(number)) }
    }
}

impl From<ClusterVersion> for u32 {
    fn from(version: ClusterVersion) -> Self {
        version.0
    }
}

/// What is not said is what a release says that does not count versions.
impl Default for ClusterVersion {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_number_from_1_on() {
        assert_eq!(serde_json::to_string(&ClusterVersion::NEWEST).expect("json"), "4");
        assert_eq!(serde_json::from_str::<ClusterVersion>("7").expect("a version").to_string(), "7");
        for wrong in ["0", "-1", "4294967296", "\"2\"", "null", "1.5"] {
            assert!(serde_json::from_str::<ClusterVersion>(wrong).is_err(), "{wrong}");
        }
    }
}
