//! A second machine with the key and the store of a first, as when its disk was cloned: both run. Only what
//! it does about leases is simulated. Two machines that vote under one raft id are outside what Raft
//! promises, so it takes no part in that: it knows the log as far as anybody does, and says so.

use std::collections::BTreeMap;

use blixard_core::lease::Holder;
use blixard_model::{BootId, VmName};

use super::event::MachineId;

/// The copy, while it runs.
#[derive(Debug)]
pub(crate) struct NodeCopy {
    pub(crate) of: MachineId,
    /// The run of its agent: different from all others.
    pub(crate) run: u64,
    pub(crate) boot_id: BootId,
    pub(crate) began_us: u64,
    pub(crate) ends_us: u64,
    /// None until there is a cluster.
    pub(crate) holder: Option<Holder>,
    pub(crate) last_call: u64,
    /// When the renewals were sent that are not answered, by its own clock.
    pub(crate) sent: BTreeMap<u64, u64>,
    /// The guests that run there under a lease, each with the generation of its placement.
    pub(crate) guests: BTreeMap<VmName, u64>,
}
