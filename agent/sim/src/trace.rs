//! The trace of a run: a hash over everything that happened, and on demand the lines.

use std::hash::Hasher;

use rustc_hash::FxHasher;

/// Hashes bytes; the same in every process.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// Adds up what happens.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self { print, ..Self::default() }
    }

    /// Something happened: kind, where, and what.
    pub(crate) fn add(&mut self, now_us: u64, kind: u8, machine: usize, what: u64) {
        self.events += 1;
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.hash);
        hasher.write_u64(now_us);
        hasher.write_u64(u64::from(kind) << 32 | machine as u64);
        hasher.write_u64(what);
        self.hash = hasher.finish().rotate_left(23) ^ self.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// A line for people; made only when somebody reads.
    pub(crate) fn line(&self, now_us: u64, text: impl FnOnce() -> String) {
        if self.print {
            println!("{:>10.6} {}", now_us as f64 / 1e6, text());
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
