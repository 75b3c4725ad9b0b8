//! One file: what reads see, what is durable, and the way from one to the other.

use std::io;

use super::tear::Tear;
use crate::SimRng;

/// The file system's allocation unit.
const BLOCK_BYTES: usize = 4096;
/// No file grows beyond it.
const FILE_MAX_BYTES: usize = 1 << 30;

/// A change that is not durable yet.
#[derive(Debug, Clone)]
enum Pending {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

/// How likely one unsynced change is kept at a power loss, in quarters.
const KEPT_NEVER: u64 = 0;
const KEPT_ALWAYS: u64 = 4;

/// A file's bytes. `cache` is `durable` with every change of `pending`, unless a failed sync dropped some.
#[derive(Debug, Clone, Default)]
pub(super) struct SimFile {
    cache: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
    allocated: Vec<bool>,
}

impl SimFile {
    /// A file with this durable content.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        let allocated = vec![true; bytes.len().div_ceil(BLOCK_BYTES)];
        Self { cache: bytes.clone(), durable: bytes, pending: Vec::new(), allocated }
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn durable_bytes(&self) -> &[u8] {
        &self.durable
    }

    /// What the file occupies, in bytes.
    pub(super) fn used_bytes(&self) -> usize {
        self.allocated.iter().filter(|allocated| **allocated).count() * BLOCK_BYTES
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = index(offset)?;
        let end = start.checked_add(out.len()).filter(|end| *end <= self.cache.len());
        let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(&self.cache[start..end]);
        Ok(())
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = index(len)?;
        self.cache.resize(len, 0);
        self.allocated.resize(len.div_ceil(BLOCK_BYTES), false);
        self.pending.push(Pending::SetLen(len));
        Ok(())
    }

    /// Writes, with at most `free_bytes` of new blocks. What fits is written when not all does, as Linux
    /// does.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], free_bytes: usize) -> io::Result<()> {
        let start = index(offset)?;
        let end = index(offset.saturating_add(data.len() as u64))?;
        if end > self.cache.len() {
            self.set_len(end as u64)?;
        }
        let fits = self.allocate(start, end, free_bytes / BLOCK_BYTES);
        if fits > start {
            self.cache[start..fits].copy_from_slice(&data[..fits - start]);
            self.pending.push(Pending::Write { offset: start, data: data[..fits - start].to_vec() });
        }
        if fits < end { Err(super::DiskRefusal::Full.error()) } else { Ok(()) }
    }

    /// Takes the missing blocks of the range, at most `free`; returns the end of what has blocks.
    fn allocate(&mut self, start: usize, end: usize, mut free: usize) -> usize {
        for block in start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            if self.allocated[block] {
                continue;
            }
            if free == 0 {
                return (block * BLOCK_BYTES).max(start);
            }
            free -= 1;
            self.allocated[block] = true;
        }
        end
    }

    /// Everything so far becomes durable.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Pending::Write { offset, data } => overlay(&mut self.durable, offset, &data),
                Pending::SetLen(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// A sync that failed: each unsynced write reached the disk or never will, and no later sync says so.
    /// Reads go on showing all of them until the cache is gone.
    pub(super) fn fail_sync(&mut self, rng: &mut SimRng) {
        let mut lengths = Vec::new();
        for change in self.pending.drain(..) {
            match change {
                Pending::Write { offset, data } if rng.chance(1, 2) => {
                    let end = offset + data.len();
                    if end > self.durable.len() {
                        self.durable.resize(end, 0);
                    }
                    overlay(&mut self.durable, offset, &data);
                }
                Pending::Write { .. } => {}
                length @ Pending::SetLen(_) => lengths.push(length),
            }
        }
        self.pending = lengths;
    }

    /// The power goes: of what was not synced, any part may be there. Lengths go in order, as a journal does.
    pub(super) fn lose_power(&mut self, rng: &mut SimRng, tear: Tear) {
        let kept_of_4 = rng.below(KEPT_ALWAYS + 1);
        let mut lengths_kept = true;
        for change in std::mem::take(&mut self.pending) {
            match change {
                Pending::SetLen(len) => {
                    lengths_kept = lengths_kept && rng.chance(kept_of_4.max(1), 4);
                    if lengths_kept {
                        self.durable.resize(len, 0);
                    }
                }
                Pending::Write { offset, data } => match kept_of_4 {
                    KEPT_NEVER => {}
                    KEPT_ALWAYS => overlay(&mut self.durable, offset, &data),
                    _ => {
                        for kept in tear.kept(rng, kept_of_4, (offset, data.len())) {
                            overlay(&mut self.durable, offset + kept.start, &data[kept]);
                        }
                    }
                },
            }
        }
        self.cache.clone_from(&self.durable);
        self.allocated.resize(self.cache.len().div_ceil(BLOCK_BYTES), false);
    }

    /// Flips one bit of what is durable, and of what reads see. False if the file is not that long.
    pub(super) fn flip(&mut self, bit: u64) -> bool {
        let Ok(at) = index(bit / 8) else { return false };
        let mask = 1u8 << (bit % 8);
        match (self.durable.get_mut(at), self.cache.get_mut(at)) {
            (Some(durable), Some(cached)) => {
                *durable ^= mask;
                *cached ^= mask;
                true
            }
            _ => false,
        }
    }
}

/// Copies `data` to `offset`; what lies behind the end is cut off: no block of the file holds it.
fn overlay(bytes: &mut [u8], offset: usize, data: &[u8]) {
    let Some(room) = bytes.get_mut(offset..) else { return };
    let len = room.len().min(data.len());
    room[..len].copy_from_slice(&data[..len]);
}

fn index(offset: u64) -> io::Result<usize> {
    let index = usize::try_from(offset).ok().filter(|index| *index <= FILE_MAX_BYTES);
    index.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))
}
