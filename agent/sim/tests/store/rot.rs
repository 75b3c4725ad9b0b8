//! Bits that flip in what was synced, while nobody has it open.

use blixard_sim::SimRng;
use blixard_sim::disk::{Image, SimDisk};
use blixard_store::{FILE_NAME, OpenError};

use super::workload::{Held, Workload, held, id, open};

/// redb's header and some more: every bit of it is tried.
const HEADER_BITS: u64 = 512 * 8;
/// Bits elsewhere, drawn.
const DRAWN: u64 = 3_000;
/// Sectors in which many bits flip at once, drawn.
const SECTORS: u64 = 300;
const SECTOR_BITS: u64 = 512 * 8;
/// The bit that says which of redb's two commit slots counts. No checksum covers it: after an abrupt end, a
/// flip brings the commit before the last one back. After a clean one the file shows the contradiction.
const SLOT_BIT: u64 = 9 * 8;

/// What a start makes of a damaged store.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Same,
    Refused,
    /// An earlier state, by its number.
    Earlier(usize),
}

struct Damage {
    disk: SimDisk,
    image: Image,
    workload: Workload,
}

impl Damage {
    /// A store with a whole workload in it, left by a clean or by an abrupt end.
    fn new(clean: bool) -> Self {
        let workload = Workload::fixed();
        let disk = SimDisk::new("/sim", SimRng::new(0));
        let mut store = open(&disk, id(1)).expect("made");
        for step in &workload.steps {
            step.write(&mut store).expect("written");
        }
        if clean {
            drop(store);
        }
        let image = disk.image();
        Self { disk, image, workload }
    }

    fn len_bits(&self) -> u64 {
        self.disk.len(FILE_NAME).expect("there") as u64 * 8
    }

    /// Puts the whole store back, flips these bits of it and opens it.
    fn see(&self, bits: &[u64]) -> Seen {
        self.disk.restore(&self.image);
        for bit in bits {
            assert!(self.disk.flip_bit(FILE_NAME, *bit), "bit {bit}");
        }
        match open(&self.disk, id(2)).and_then(|store| held(&store)) {
            Ok(held) => self.known(&held, bits),
            Err(OpenError::Broken { .. }) => Seen::Refused,
            Err(error) => panic!("bits {bits:?}: {error}"),
        }
    }

    fn known(&self, held: &Held, bits: &[u64]) -> Seen {
        let at = self.workload.states.iter().position(|state| state == held);
        let Some(at) = at else { panic!("bits {bits:?}: content that was never written") };
        if at == self.workload.steps.len() { Seen::Same } else { Seen::Earlier(at) }
    }
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    for clean in [true, false] {
        let damage = Damage::new(clean);
        let mut rng = SimRng::new(1);
        let pages = damage.len_bits() - HEADER_BITS;
        let drawn = (0..DRAWN).map(|_| HEADER_BITS + rng.below(pages));
        let (mut refused, mut earlier) = (0, Vec::new());
        for bit in (0..HEADER_BITS).chain(drawn) {
            match damage.see(&[bit]) {
                Seen::Same => {}
                Seen::Refused => refused += 1,
                Seen::Earlier(at) => earlier.push((bit, at)),
            }
        }
        println!("clean {clean}: {refused} of {} flips refused", HEADER_BITS + DRAWN);
        assert!(refused > 1000, "{refused}");
        let last = damage.workload.steps.len() - 1;
        let known = if clean { vec![] } else { vec![(SLOT_BIT, last)] };
        assert_eq!(earlier, known, "clean {clean}");
    }
}

#[test]
fn a_damaged_sector_is_refused_or_changes_nothing() {
    let damage = Damage::new(true);
    let mut rng = SimRng::new(2);
    let mut refused = 0;
    for _ in 0..SECTORS {
        let sector = rng.below(damage.len_bits() / SECTOR_BITS) * SECTOR_BITS;
        let bits: Vec<u64> = (0..64).map(|_| sector + rng.below(SECTOR_BITS)).collect();
        match damage.see(&bits) {
            Seen::Same => {}
            Seen::Refused => refused += 1,
            Seen::Earlier(at) => panic!("sector {sector}: state {at}"),
        }
    }
    assert!(refused > 5, "{refused}");
}
