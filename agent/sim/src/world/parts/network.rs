//! Which directions of the network are cut, and how late what is sent over it may come.

use std::collections::BTreeSet;

use super::event::MachineId;

/// How late a straggler is at most, in µs.
pub(crate) const STRAGGLES_US: u64 = 3_000_000;
/// As above for one of four: as late as what an agent reads that stood still meanwhile.
pub(crate) const STRAGGLES_LONG_US: u64 = 10_000_000;

/// Who cannot send to whom.
#[derive(Debug)]
pub(crate) struct Network {
    cuts: BTreeSet<(MachineId, MachineId)>,
    /// Since when a direction carries nothing, or something again.
    pub(crate) changed_us: Vec<Vec<u64>>,
    /// Which directions carry what is sent.
    pub(crate) carries: Vec<Vec<bool>>,
}

impl Network {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            cuts: BTreeSet::new(),
            changed_us: vec![vec![0; nodes]; nodes],
            carries: vec![vec![false; nodes]; nodes],
        }
    }

    pub(crate) fn is_cut(&self, from: MachineId, to: MachineId) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(crate) fn set_cut(&mut self, from: MachineId, to: MachineId, cut: bool) {
        if cut {
            self.cuts.insert((from, to));
        } else {
            self.cuts.remove(&(from, to));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }
}
