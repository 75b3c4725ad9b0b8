//! What waits for the log, proposals for their outcome and reads for their index; and the answers that are
//! due with the next turn.

use std::collections::BTreeMap;

use blixard_model::mutant;

use crate::attempt::AttemptEnd;

/// A read that was not answered after this many ticks is asked again: Raft drops reads silently.
const READ_RETRY_TICKS: u64 = 5;

/// Somebody who waits for an answer and may give up.
pub trait Waits {
    /// Nobody would hear the answer any more.
    fn gave_up(&self) -> bool;
}

/// The table of both. `P` waits for a proposal, `R` for a read.
#[derive(Debug)]
pub(super) struct Waiting<P, R> {
    proposals: BTreeMap<u64, P>,
    reads: BTreeMap<u64, WaitingRead<R>>,
    /// Decided, to be handed out with the next turn.
    answers: Vec<(P, AttemptEnd)>,
}

#[derive(Debug)]
struct WaitingRead<R> {
    waiter: R,
    since_tick: u64,
}

impl<P, R> Default for Waiting<P, R> {
    fn default() -> Self {
        Self { proposals: BTreeMap::new(), reads: BTreeMap::new(), answers: Vec::new() }
    }
}

impl<P: Waits, R: Waits> Waiting<P, R> {
    pub(super) fn add_proposal(&mut self, key: u64, waiter: P) {
        self.proposals.insert(key, waiter);
    }

    pub(super) fn add_read(&mut self, key: u64, waiter: R, tick: u64) {
        self.reads.insert(key, WaitingRead { waiter, since_tick: tick });
    }

    /// Proposals and reads that wait.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.proposals.len(), self.reads.len())
    }

    /// The proposal has this result.
    pub(super) fn answer(&mut self, key: u64, result: AttemptEnd) {
        if let Some(waiter) = self.proposals.remove(&key) {
            self.end(waiter, result);
        }
    }

    /// One that waits for nothing in the log: it has this result.
    pub(super) fn end(&mut self, waiter: P, result: AttemptEnd) {
        self.answers.push((waiter, result));
    }

    /// What is to be handed out now.
    pub(super) fn take_answers(&mut self) -> Vec<(P, AttemptEnd)> {
        std::mem::take(&mut self.answers)
    }

    /// This node will not answer these proposals any more. Returns their keys.
    pub(super) fn abandon_proposals(&mut self, why: &str) -> Vec<u64> {
        let proposals = std::mem::take(&mut self.proposals);
        let keys = proposals.keys().copied().collect();
        let end = |why: String| match mutant::lives("lost-leadership-is-refusal") {
            true => AttemptEnd::NotTaken { why },
            false => AttemptEnd::Unknown { why },
        };
        self.answers.extend(proposals.into_values().map(|waiter| (waiter, end(why.to_owned()))));
        keys
    }

    /// The proposals nobody waits for any more.
    pub(super) fn take_given_up(&mut self) -> Vec<u64> {
        let gone: Vec<u64> =
            self.proposals.iter().filter(|(_, waiter)| waiter.gave_up()).map(|(key, _)| *key).collect();
        for key in &gone {
            self.proposals.remove(key);
        }
        gone
    }

    /// The proposals of these, which wait no more. Returns the keys.
    pub(super) fn take_proposals_of(&mut self, is: impl Fn(&P) -> bool) -> Vec<u64> {
        let of = self.proposals.iter().filter(|(_, waiter)| is(waiter));
        let keys: Vec<u64> = of.map(|(key, _)| *key).collect();
        for key in &keys {
            self.proposals.remove(key);
        }
        keys
    }

    /// The reads of these, which wait no more. Returns the keys.
    pub(super) fn take_reads_of(&mut self, is: impl Fn(&R) -> bool) -> Vec<u64> {
        let of = self.reads.iter().filter(|(_, read)| is(&read.waiter));
        let keys: Vec<u64> = of.map(|(key, _)| *key).collect();
        for key in &keys {
            self.reads.remove(key);
        }
        keys
    }

    /// The reads that are to be asked again, and the keys that they had.
    pub(super) fn take_due_reads(&mut self, tick: u64) -> Vec<(u64, Option<R>)> {
        if mutant::lives("reads-not-repeated") {
            return Vec::new();
        }
        let due = |read: &WaitingRead<R>| tick.saturating_sub(read.since_tick) >= READ_RETRY_TICKS;
        let keys: Vec<u64> = self.reads.iter().filter(|(_, read)| due(read)).map(|(key, _)| *key).collect();
        let taken = keys.into_iter().filter_map(|key| self.reads.remove(&key).map(|read| (key, read.waiter)));
        taken.map(|(key, waiter)| (key, (!waiter.gave_up()).then_some(waiter))).collect()
    }

    pub(super) fn take_read(&mut self, key: u64) -> Option<R> {
        self.reads.remove(&key).map(|read| read.waiter)
    }
}
