//! How a power loss tears a write: which parts of it are on the disk afterwards.

use std::ops::Range;

use crate::SimRng;

/// What a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// How a power loss tears a write that was on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Sectors of 512 bytes are kept or lost, as disks promise.
    Sectors,
    /// Runs of any length, down to one byte: worse than disks are.
    Bytes,
}

impl Tear {
    /// The parts that are kept of a write of so many bytes at this offset; each run is kept in `kept_of_4` of
    /// four cases.
    pub(super) fn kept(
        self,
        rng: &mut SimRng,
        kept_of_4: u64,
        (offset, len): (usize, usize),
    ) -> Vec<Range<usize>> {
        if rng.chance(1, 2) {
            let whole = rng.chance(kept_of_4, 4).then_some(0..len);
            return whole.into_iter().collect();
        }
        let run_max = 1_u64 << rng.below(12);
        let (mut kept, mut at) = (Vec::new(), 0);
        while at < len {
            let run = match self {
                Self::Sectors => SECTOR_BYTES - (offset + at) % SECTOR_BYTES,
                Self::Bytes => 1 + usize::try_from(rng.below(run_max)).unwrap_or_default(),
            };
            let end = len.min(at + run);
            if rng.chance(kept_of_4, 4) {
                kept.push(at..end);
            }
            at = end;
        }
        kept
    }
}
