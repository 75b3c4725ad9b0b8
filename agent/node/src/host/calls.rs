//! The questions of this host to its peers that are not answered yet.

use std::collections::BTreeMap;

use blixard_model::wire::PeerRequest;
use blixard_model::{EndpointId, mutant};

use super::effect::Effect;
use super::input::CallId;

/// The open questions, each with what it was asked for.
#[derive(Debug)]
pub(super) struct Calls<P> {
    next: u64,
    open: BTreeMap<CallId, OpenCall<P>>,
}

/// A question that is not answered yet.
#[derive(Debug)]
struct OpenCall<P> {
    purpose: P,
    to: EndpointId,
    until_ms: u64,
}

impl<P> Default for Calls<P> {
    fn default() -> Self {
        Self { next: 0, open: BTreeMap::new() }
    }
}

impl<P> Calls<P> {
    /// A new question to this peer, which counts as not answered after `patience_ms`.
    pub(super) fn open(&mut self, purpose: P, to: EndpointId, now_ms: u64, patience_ms: u64) -> CallId {
        self.next += 1;
        if mutant::lives("call-number-used-again") {
            self.next = (1..self.next).find(|n| !self.open.contains_key(&CallId(*n))).unwrap_or(self.next);
        }
        let call = CallId(self.next);
        self.open.insert(call, OpenCall { purpose, to, until_ms: now_ms.saturating_add(patience_ms) });
        call
    }

    /// As [`Calls::open`], with the effect that asks.
    pub(super) fn ask(
        &mut self,
        (purpose, to): (P, EndpointId),
        request: PeerRequest,
        now_ms: u64,
        patience_ms: u64,
    ) -> (CallId, Effect) {
        let call = self.open(purpose, to, now_ms, patience_ms);
        (call, Effect::AskPeer { call, to, request: Box::new(request), patience_ms })
    }

    /// The question was answered: what it was asked for and whom, unless the host does not wait any more.
    pub(super) fn take(&mut self, call: CallId) -> Option<(P, EndpointId)> {
        self.open.remove(&call).map(|open| (open.purpose, open.to))
    }

    /// The questions whose time is over.
    pub(super) fn take_overdue(&mut self, now_ms: u64) -> Vec<(CallId, P, EndpointId)> {
        let over: Vec<CallId> =
            self.open.iter().filter(|(_, open)| open.until_ms <= now_ms).map(|(call, _)| *call).collect();
        over.into_iter().filter_map(|call| self.take(call).map(|(purpose, to)| (call, purpose, to))).collect()
    }

    /// When the first of them is over.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.open.values().map(|open| open.until_ms).min()
    }

    /// What each of the open ones is for, and whom it asks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&P, EndpointId)> {
        self.open.values().map(|open| (&open.purpose, open.to))
    }

    /// Forgets those that were asked for this.
    pub(super) fn take_all(&mut self, is: impl Fn(&P) -> bool) -> Vec<CallId> {
        let calls: Vec<CallId> =
            self.open.iter().filter(|(_, open)| is(&open.purpose)).map(|(call, _)| *call).collect();
        for call in &calls {
            self.open.remove(call);
        }
        calls
    }

    /// Forgets all of them, and gives back what each was for.
    pub(super) fn clear(&mut self) -> Vec<(CallId, P)> {
        std::mem::take(&mut self.open).into_iter().map(|(call, open)| (call, open.purpose)).collect()
    }
}
