//! What a commit of the store costs on the simulated disk: CPU time alone, as no disk waits.
//!
//! `cargo run -p blixard-sim --release --example commit_cost`

use std::time::Instant;

use blixard_consensus::{HardState, LogWrite, StoredEntry, StoredSnapshot};
use blixard_model::{EndpointId, StoreId};
use blixard_sim::SimRng;
use blixard_sim::disk::SimDisk;
use blixard_store::{LogStore, Store};

const COMMITS: u64 = 20_000;
const ENTRY_BYTES: usize = 200;
const COMPACT_EVERY: u64 = 1_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, sync, entries) in
        [("synced, 1 entry", true, 1), ("unsynced, hard state", false, 0), ("synced, 64 entries", true, 64)]
    {
        let disk = SimDisk::new("/sim", SimRng::new(1));
        let mut store = open(&disk)?;
        let before = disk.operations();
        let start = Instant::now();
        let mut next = 1;
        for commit in 0..COMMITS {
            let entry = |index| StoredEntry { index, bytes: vec![7; ENTRY_BYTES] };
            let write = LogWrite {
                entries: (next..next + entries).map(entry).collect(),
                hard_state: Some(HardState { term: 1, vote: 1, commit }),
                sync,
                snapshot: (entries > 0 && commit % COMPACT_EVERY == COMPACT_EVERY - 1)
                    .then(|| StoredSnapshot { index: next - 1, bytes: vec![1; 4096] }),
                ..LogWrite::default()
            };
            store.write(&write)?;
            next += entries;
        }
        let us = start.elapsed().as_secs_f64() * 1e6 / COMMITS as f64;
        let operations = (disk.operations() - before) as f64 / COMMITS as f64;
        println!("{name:<22} {us:7.1} us, {operations:5.1} operations, {} KiB", disk.used_bytes() / 1024);
    }
    openings()
}

/// What a start costs: a new store, and one with a thousand entries.
fn openings() -> Result<(), Box<dyn std::error::Error>> {
    const OPENINGS: u32 = 500;
    let start = Instant::now();
    for _ in 0..OPENINGS {
        open(&SimDisk::new("/sim", SimRng::new(1)))?;
    }
    println!("make and open          {:7.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(OPENINGS));
    let disk = SimDisk::new("/sim", SimRng::new(1));
    let entries = (1..1000).map(|index| StoredEntry { index, bytes: vec![7; ENTRY_BYTES] }).collect();
    open(&disk)?.write(&LogWrite { entries, sync: true, ..LogWrite::default() })?;
    let start = Instant::now();
    for _ in 0..OPENINGS {
        open(&disk)?.load()?;
    }
    println!("open and read 1000     {:7.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(OPENINGS));
    Ok(())
}

fn open(disk: &SimDisk) -> Result<Store, Box<dyn std::error::Error>> {
    let cluster = "lab".parse()?;
    Ok(Store::open(disk, EndpointId::from_bytes([1; 32]), &cluster, StoreId::from_bytes([9; 16]))?)
}
