//! Where messages go: which peers have a link, and where members are whom the log here does not know yet.

use std::collections::{BTreeMap, BTreeSet};

use blixard_model::{EndpointId, RaftId};

/// Most senders kept that the log here does not know yet.
const ROUTES_MAX: usize = 64;

/// The links, and the ways to members that are not in the state.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// The peers with a link.
    linked: BTreeSet<EndpointId>,
    /// Where members are whom the state here does not know yet: a node that is behind must answer a leader
    /// that was admitted after what it has applied. An endpoint is there once.
    learned: BTreeMap<RaftId, EndpointId>,
}

impl Routes {
    pub(super) fn note_links(&mut self, linked: BTreeSet<EndpointId>) {
        self.linked = linked;
    }

    /// The peers with a link.
    pub(super) fn linked(&self) -> &BTreeSet<EndpointId> {
        &self.linked
    }

    /// A sender that the state does not know. Its newest raft id counts: it was admitted anew, and the log
    /// here is behind. The ids that led to it before are `forgotten`, and so is its id when it led elsewhere.
    /// False: there is no room for it.
    pub(super) fn learn(
        &mut self,
        raft_id: RaftId,
        from: EndpointId,
        mut forgotten: impl FnMut(RaftId),
    ) -> bool {
        self.learned.retain(|id, endpoint| {
            let stays = *endpoint != from && *id != raft_id;
            if !stays {
                forgotten(*id);
            }
            stays
        });
        let room = self.learned.len() < ROUTES_MAX;
        if room {
            self.learned.insert(raft_id, from);
        }
        room
    }

    /// Where a member is that the state does not know.
    pub(super) fn to(&self, raft_id: RaftId) -> Option<EndpointId> {
        self.learned.get(&raft_id).copied()
    }

    /// These are needed no more: the state knows where they are.
    pub(super) fn forget(&mut self, is_known: impl Fn(RaftId) -> bool) {
        self.learned.retain(|id, _| !is_known(*id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 32])
    }

    #[test]
    fn the_newest_raft_id_of_an_endpoint_counts() {
        let mut routes = Routes::default();
        let mut gone = Vec::new();
        assert!(routes.learn(RaftId(4), endpoint(1), |id| gone.push(id)));
        assert!(routes.learn(RaftId(5), endpoint(1), |id| gone.push(id)));
        assert!(routes.learn(RaftId(5), endpoint(2), |id| gone.push(id)));
        assert_eq!(gone, [RaftId(4), RaftId(5)]);
        assert_eq!((routes.to(RaftId(4)), routes.to(RaftId(5))), (None, Some(endpoint(2))));
        routes.forget(|id| id == RaftId(5));
        assert_eq!(routes.to(RaftId(5)), None);
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut routes = Routes::default();
        let mut learn = |n: u8| routes.learn(RaftId(u64::from(n)), endpoint(n), |_| {});
        assert!((0..64).all(&mut learn));
        assert!(!learn(64));
        assert!(learn(63), "one that is known takes the room that it has");
    }
}
