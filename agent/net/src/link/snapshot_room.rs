//! Room for snapshots that arrive. Each member has its own, so that a member that trickles or floods keeps
//! nobody else's snapshots out. All members together have a bound as well.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{INBOUND_SNAPSHOT_BYTES_MAX, INBOUND_SNAPSHOTS_PER_PEER_MAX, SNAPSHOT_LEN_MAX};

/// One permit for each byte that the snapshots of all members may take.
pub(crate) fn for_all() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(INBOUND_SNAPSHOT_BYTES_MAX))
}

/// The room of one member.
#[derive(Debug)]
pub(crate) struct SnapshotRoom {
    places: Arc<Semaphore>,
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

impl SnapshotRoom {
    /// The room of a member; `all` is shared with the other members.
    pub(crate) fn new(all: Arc<Semaphore>) -> Self {
        Self::with(SNAPSHOT_LEN_MAX, all)
    }

    fn with(own: usize, all: Arc<Semaphore>) -> Self {
        let places = Arc::new(Semaphore::new(INBOUND_SNAPSHOTS_PER_PEER_MAX));
        Self { places, own: Arc::new(Semaphore::new(own)), all }
    }

    /// A place for a snapshot that begins to arrive; `None` while another snapshot of this member is
    /// arriving.
    pub(crate) fn begin(&self) -> Option<Arrival> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let own = Arc::clone(&self.own).try_acquire_many_owned(0).ok()?;
        let all = Arc::clone(&self.all).try_acquire_many_owned(0).ok()?;
        Some(Arrival { place, share: Share { own, all } })
    }
}

/// A snapshot that arrives, with its place and the bytes it takes.
#[derive(Debug)]
pub(crate) struct Arrival {
    place: OwnedSemaphorePermit,
    share: Share,
}

impl Arrival {
    /// Takes room for `bytes` more bytes. Returns false, and takes nothing, when the member's room or that of
    /// all members is used up.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let Ok(more) = u32::try_from(bytes) else { return false };
        let own = Arc::clone(self.share.own.semaphore()).try_acquire_many_owned(more);
        let all = Arc::clone(self.share.all.semaphore()).try_acquire_many_owned(more);
        let (Ok(own), Ok(all)) = (own, all) else { return false };
        self.share.own.merge(own);
        self.share.all.merge(all);
        true
    }

    /// Ends the arrival, when all bytes are there. The room is given back when the last handle to the
    /// returned bytes is dropped, the place when the returned permit is dropped.
    pub(crate) fn whole(self, bytes: Bytes) -> (Bytes, OwnedSemaphorePermit) {
        (Bytes::from_owner(HeldSnapshot { bytes, _share: self.share }), self.place)
    }
}

/// The room that a snapshot takes.
#[derive(Debug)]
struct Share {
    own: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

/// The bytes of a snapshot, and the room that they take.
struct HeldSnapshot {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for HeldSnapshot {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_uses_all_its_room_leaves_room_for_another_snapshot() {
        const { assert!(INBOUND_SNAPSHOT_BYTES_MAX >= 2 * SNAPSHOT_LEN_MAX) };
        let all = for_all();
        let (greedy, other) = (SnapshotRoom::new(Arc::clone(&all)), SnapshotRoom::new(all));
        let mut first = greedy.begin().expect("nothing arrives yet");
        assert!(greedy.begin().is_none(), "one at a time");
        assert!(first.grow(SNAPSHOT_LEN_MAX) && !first.grow(1));
        let mut second = other.begin().expect("a place of its own");
        assert!(second.grow(SNAPSHOT_LEN_MAX));
    }

    #[test]
    fn room_is_taken_until_the_bytes_are_dropped_and_a_place_until_the_snapshot_is_whole() {
        let room = SnapshotRoom::with(10, Arc::new(Semaphore::new(100)));
        let mut arrival = room.begin().expect("a place");
        assert!(arrival.grow(4) && arrival.grow(3));
        let (bytes, place) = arrival.whole(Bytes::from_static(b"7 bytes"));
        assert!(room.begin().is_none());
        drop(place);
        let mut next = room.begin().expect("its place is given back");
        assert!(!next.grow(4) && next.grow(3), "its bytes are still held");
        let part = bytes.slice(..1);
        drop(bytes);
        assert!(!next.grow(1), "a part holds all of them");
        drop(part);
        assert!(next.grow(7) && !next.grow(1));
    }

    #[test]
    fn all_members_together_are_bounded_and_a_dropped_arrival_gives_its_room_back() {
        let all = Arc::new(Semaphore::new(15));
        let rooms = [(); 3].map(|()| SnapshotRoom::with(10, Arc::clone(&all)));
        let [mut a, mut b, mut c] = rooms.each_ref().map(|room| room.begin().expect("a place"));
        assert!(a.grow(10) && b.grow(5) && !c.grow(1));
        drop(a);
        assert!(c.grow(10) && !b.grow(1), "what was refused took nothing");
        assert!(rooms[0].begin().is_some());
    }
}
