//! Those who wait for something else than a change: reads, the leader's word, the end of the leadership; and
//! peers that wait for a change that this node leads.

use std::collections::BTreeMap;

use crate::host::input::{PeerCallId, WaiterId};

/// Without a leader for this long, in milliseconds, a read is given up.
pub(super) const READ_MS: u64 = crate::submission::NO_LEADER_PATIENCE_MS;

/// A read's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadState {
    /// No leader is known.
    NoLeader,
    /// Raft was asked.
    Asked,
}

/// The tables of them, each with its deadline.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    reads: BTreeMap<WaiterId, (ReadState, u64)>,
    hand_overs: BTreeMap<WaiterId, u64>,
    holds: BTreeMap<WaiterId, u64>,
    served: BTreeMap<PeerCallId, u64>,
}

impl Waiters {
    pub(super) fn add_read(&mut self, waiter: WaiterId, state: ReadState, until_ms: u64) {
        self.reads.insert(waiter, (state, until_ms));
    }

    /// The reads that wait for a leader; they are asked now.
    pub(super) fn begin_reads(&mut self) -> Vec<WaiterId> {
        let waits = self.reads.iter_mut().filter(|(_, (state, _))| *state == ReadState::NoLeader);
        waits
            .map(|(waiter, (state, _))| {
                *state = ReadState::Asked;
                *waiter
            })
            .collect()
    }

    /// It was served, or nobody waits any more. False: it had ended before.
    pub(super) fn end_read(&mut self, waiter: WaiterId) -> bool {
        self.reads.remove(&waiter).is_some()
    }

    pub(super) fn add_hand_over(&mut self, waiter: WaiterId, until_ms: u64) {
        self.hand_overs.insert(waiter, until_ms);
    }

    pub(super) fn take_hand_overs(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.hand_overs).into_keys().collect()
    }

    /// Somebody waits until then for this node's long lease.
    pub(super) fn add_hold(&mut self, waiter: WaiterId, until_ms: u64) {
        self.holds.insert(waiter, until_ms);
    }

    pub(super) fn has_holds(&self) -> bool {
        !self.holds.is_empty()
    }

    pub(super) fn take_holds(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.holds).into_keys().collect()
    }

    /// A peer waits until then for what this node leads.
    pub(super) fn add_served(&mut self, call: PeerCallId, until_ms: u64) {
        self.served.insert(call, until_ms);
    }

    /// The peer was answered or waits no more. False: it did not wait.
    pub(super) fn end_served(&mut self, call: PeerCallId) -> bool {
        self.served.remove(&call).is_some()
    }

    /// Nobody waits for this waiter's answer any more.
    pub(super) fn give_up(&mut self, waiter: WaiterId) {
        self.reads.remove(&waiter);
        self.hand_overs.remove(&waiter);
        self.holds.remove(&waiter);
    }

    pub(super) fn due_ms(&self) -> Option<u64> {
        let reads = self.reads.values().map(|(_, until)| *until);
        let others = [&self.hand_overs, &self.holds].into_iter().flat_map(BTreeMap::values);
        reads.chain(others.copied()).chain(self.served.values().copied()).min()
    }

    pub(super) fn take_overdue_reads(&mut self, now_ms: u64) -> Vec<(WaiterId, ReadState)> {
        let is_over = |(_, (_, until)): &(&WaiterId, &(ReadState, u64))| *until <= now_ms;
        let over: Vec<_> =
            self.reads.iter().filter(is_over).map(|(waiter, (state, _))| (*waiter, *state)).collect();
        for (waiter, _) in &over {
            self.reads.remove(waiter);
        }
        over
    }

    pub(super) fn take_overdue_hand_overs(&mut self, now_ms: u64) -> Vec<WaiterId> {
        take_overdue(&mut self.hand_overs, now_ms)
    }

    pub(super) fn take_overdue_holds(&mut self, now_ms: u64) -> Vec<WaiterId> {
        take_overdue(&mut self.holds, now_ms)
    }

    pub(super) fn take_overdue_served(&mut self, now_ms: u64) -> Vec<PeerCallId> {
        take_overdue(&mut self.served, now_ms)
    }

    /// Everybody who waits here, because this node goes on no more.
    pub(super) fn abandon(&mut self) -> (Vec<WaiterId>, Vec<WaiterId>, Vec<PeerCallId>) {
        let reads = std::mem::take(&mut self.reads).into_keys().collect();
        let hand_overs = std::mem::take(&mut self.hand_overs).into_keys().collect();
        (reads, hand_overs, std::mem::take(&mut self.served).into_keys().collect())
    }
}

fn take_overdue<K: Copy + Ord>(table: &mut BTreeMap<K, u64>, now_ms: u64) -> Vec<K> {
    let over: Vec<K> = table.iter().filter(|(_, until)| **until <= now_ms).map(|(key, _)| *key).collect();
    for key in &over {
        table.remove(key);
    }
    over
}
