//! Bugs planted into what the simulator does in place of a real store, disk and shell. Production code has no
//! place for them: a store writes what it is given, and a disk is the kernel's.

use blixard_consensus::{Durable, LogWrite};
use blixard_model::{EndpointId, NodeName, mutant};
use blixard_node::host::Effect;
use blixard_node::host::disk::{self, DiskError, Write, Written};
use blixard_store::{FILE_NAME, OpenError, Store};

/// The name under which a store makes its file.
const FRESH_NAME: &str = "store.redb.new";

/// Carries out a write.
pub(crate) fn carry_out(
    store: &mut Store,
    me: (EndpointId, &NodeName),
    write: &Write,
) -> Result<Written, DiskError> {
    let Write::Log(log) = write else { return disk::carry_out(store, me, write) };
    if !cfg!(blixard_mutants) {
        return disk::carry_out(store, me, write);
    }
    for part in parts(store, log)? {
        disk::carry_out(store, me, &Write::Log(Box::new(part)))?;
    }
    Ok(Written::Log)
}

/// The transactions that a write of the log becomes: itself, unless a bug lives.
fn parts(store: &Store, write: &LogWrite) -> Result<Vec<LogWrite>, OpenError> {
    let mut write = write.clone();
    let is_hard_state = write.entries.is_empty() && write.snapshot.is_none();
    if mutant::lives("ack-before-fsync")
        || mutant::lives("entries-not-synced") && !write.entries.is_empty() && write.snapshot.is_none()
        || mutant::lives("vote-not-synced") && is_hard_state && is_vote(store, &write)?
    {
        write.sync = false;
    }
    if mutant::lives("hard-state-not-written")
        || mutant::lives("snapshot-without-hard-state") && write.clear_log
        || mutant::lives("vote-not-persisted") && is_hard_state
    {
        write.hard_state = None;
    }
    // What is synced although nobody voted says who votes.
    if mutant::lives("configuration-not-synced") && is_hard_state && write.sync && !is_vote(store, &write)? {
        return Ok(Vec::new());
    }
    if mutant::lives("hard-state-apart") && write.hard_state.is_some() {
        let entries = LogWrite { entries: write.entries.clone(), sync: write.sync, ..LogWrite::default() };
        return Ok(vec![entries, write]);
    }
    if mutant::lives("log-cut-before-snapshot") && write.snapshot.is_some() {
        return Ok(cut_first(store.load()?, write));
    }
    if mutant::lives("snapshot-leaves-log") && write.snapshot.is_some() {
        let end = write.entries.first().map_or(u64::MAX, |entry| entry.index);
        let left = store.load()?.entries.into_iter().filter(|entry| entry.index < end);
        write.entries = left.chain(std::mem::take(&mut write.entries)).collect();
    }
    if mutant::lives("suffix-stays-on-disk")
        && !write.clear_log
        && let Some(last) = write.entries.last().map(|entry| entry.index)
    {
        write.entries.extend(store.load()?.entries.into_iter().filter(|entry| entry.index > last));
    }
    Ok(vec![write])
}

/// Whether it holds another term or vote than the store.
fn is_vote(store: &Store, write: &LogWrite) -> Result<bool, OpenError> {
    let known = store.load()?.hard_state;
    Ok(write.hard_state.is_some_and(|new| (new.term, new.vote) != (known.term, known.vote)))
}

/// The log goes, and the snapshot that stands for it comes in the next transaction.
fn cut_first(known: Durable, mut write: LogWrite) -> Vec<LogWrite> {
    let index = write.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
    if !write.clear_log {
        write.entries = known.entries.into_iter().filter(|entry| entry.index > index).collect();
    }
    let cut = LogWrite { snapshot: known.snapshot, clear_log: true, sync: true, ..LogWrite::default() };
    vec![cut, write]
}

/// What an agent that starts reads from its store.
pub(crate) fn read(mut durable: Durable) -> Durable {
    if mutant::lives("hard-state-by-default") {
        durable.hard_state = blixard_consensus::HardState::default();
    }
    durable
}

/// Takes a write of the log out of its turn, to be carried out when all that rests on it has happened.
pub(crate) fn put_off(effect: Effect, late: &mut Vec<Write>) -> Option<Effect> {
    match effect {
        Effect::Write(write @ Write::Log(_)) if mutant::lives("effects-before-their-write") => {
            late.push(write);
            None
        }
        effect => Some(effect),
    }
}

/// The name of a file that the disk is asked for.
pub(crate) fn file_name(name: &str) -> &str {
    if name == FRESH_NAME && mutant::lives("store-made-in-place") { FILE_NAME } else { name }
}

/// Whether a file that gets a second name loses the first.
pub(crate) fn links_move() -> bool {
    mutant::lives("replaced-store-moved-away-first")
}

/// Whether a sync that failed is repeated.
pub(crate) fn repeats_sync() -> bool {
    mutant::lives("sync-repeated")
}
