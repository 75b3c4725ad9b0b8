//! What a judged run is like: as a seed draws it, but short and with few names, so that clients meet and a
//! history stays small.

use crate::{Faults, Options};

/// Names that clients use.
const NAMES: usize = 4;
/// The phase in which things go wrong, in simulated seconds.
const SAFETY_S: u64 = 30;
/// A client's pause between two operations, in ms.
const THINK_MS: u64 = 200;

impl Options {
    /// The options of a judged seed.
    pub fn judged(seed: u64) -> Self {
        let drawn = Self::of(seed, None);
        let clients = 3 + usize::from(drawn.clients > 2);
        let fault_ms = drawn.fault_ms.min(2_000);
        let faults = faults(drawn.faults);
        // An operator who removes a dead node makes VMs vanish without a client's word.
        let (churn, spares) = (false, 0);
        let (names, think_ms, safety_s) = (NAMES, THINK_MS, SAFETY_S);
        Self { clients, names, think_ms, safety_s, fault_ms, faults, churn, spares, ..drawn }
    }
}

/// Those that a history can be judged under, each by its name: a kind that makes a VM vanish or come back
/// without a client's word needs another reference first.
fn faults(drawn: Faults) -> Faults {
    let Faults { power, kill, partition, one_way, pause, clock_jump, slow_disk, .. } = drawn;
    let Faults { disk_full, disk_error, wipe, roll_back, guest_ends, restart, .. } = drawn;
    let Faults { lost_store, stranger, .. } = drawn;
    #[rustfmt::skip]
    #[allow(clippy::needless_update, reason = "a kind that is added stays off until it is named here")]
    let faults = Faults {
        power, kill, partition, one_way, pause, clock_jump, slow_disk, disk_full, disk_error, wipe,
        roll_back, guest_ends, restart, lost_store, stranger, ..Faults::default()
    };
    faults
}
