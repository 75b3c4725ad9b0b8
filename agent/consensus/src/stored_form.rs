//! What has to be on disk, in forms that need no Raft library to be stored.

use blixard_model::{MembershipChange, RaftId};
use protobuf::Message as _;
use raft::eraftpb;

use crate::change::decode_change;

/// Raft's own durable words: everything a vote or an acknowledgement rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct HardState {
    /// The current term.
    pub term: u64,
    /// Whom this node voted for in that term; 0 for nobody.
    pub vote: u64,
    /// Highest index known committed.
    pub commit: u64,
}

/// A log entry in Raft's encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its place in the log.
    pub index: u64,
    /// The encoded entry.
    pub bytes: Vec<u8>,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryContent {
    /// Nothing: a leader's first entry.
    Empty,
    /// A command, as the owner's machine encoded it.
    Command(Vec<u8>),
    /// A change of the membership.
    Membership(MembershipChange),
}

impl StoredEntry {
    /// Looks into the entry: its term, and what it holds.
    ///
    /// # Errors
    /// The entry cannot be decoded; in words.
    pub fn look(&self) -> Result<(u64, EntryContent), String> {
        let entry = decode_entry(self)?;
        let content = match entry.get_entry_type() {
            _ if entry.data.is_empty() => EntryContent::Empty,
            eraftpb::EntryType::EntryNormal => EntryContent::Command(entry.data.to_vec()),
            eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
                EntryContent::Membership(decode_change(&entry)?)
            }
        };
        Ok((entry.term, content))
    }
}

/// A snapshot in Raft's encoding: state, its index and term, and the configuration at that index, never
/// apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The last index it holds.
    pub index: u64,
    /// The encoded snapshot.
    pub bytes: Vec<u8>,
}

/// One atomic write. All of it is durable, or nothing.
#[derive(Debug, Clone, Default)]
pub struct LogWrite {
    /// Replaces the snapshot; every stored entry at or below its index goes.
    pub snapshot: Option<StoredSnapshot>,
    /// Also every entry above the snapshot's index goes: it came from the leader and the log does not reach
    /// it.
    pub clear_log: bool,
    /// Appended; every stored entry at or above the first one's index goes first.
    pub entries: Vec<StoredEntry>,
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// Must have reached the disk when the call returns.
    pub sync: bool,
}

impl LogWrite {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.entries.is_empty() && self.hard_state.is_none()
    }
}

/// What a store gives back at start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durable {
    /// Raft's hard state.
    pub hard_state: HardState,
    /// The latest snapshot; none in the store of a node that waits to be admitted.
    pub snapshot: Option<StoredSnapshot>,
    /// The entries after it, without a gap.
    pub entries: Vec<StoredEntry>,
}

/// The log a cluster is born with: a snapshot at index 1, term 1, that holds the first configuration and
/// state.
pub fn genesis_snapshot(voters: &[RaftId], state: Vec<u8>) -> (StoredSnapshot, HardState) {
    first_snapshot((1, 1), voters, state)
}

/// The log of a cluster that goes on where another one's ended, at this index and term: a snapshot there, and
/// nothing after it.
pub fn first_snapshot(
    (index, term): (u64, u64),
    voters: &[RaftId],
    state: Vec<u8>,
) -> (StoredSnapshot, HardState) {
    let mut snapshot = eraftpb::Snapshot::default();
    snapshot.set_data(state.into());
    let metadata = snapshot.mut_metadata();
    metadata.index = index;
    metadata.term = term;
    metadata.mut_conf_state().voters = voters.iter().map(|id| id.0).collect();
    let bytes = encode(&snapshot);
    (StoredSnapshot { index, bytes }, HardState { term, vote: 0, commit: index })
}

/// Encoding to memory fails only for a message over 2 GiB, which every limit of ours forbids.
pub(crate) fn encode(message: &impl protobuf::Message) -> Vec<u8> {
    encode_behind(&[], message)
}

/// A head and the message, in one buffer of the right size.
pub(crate) fn encode_behind(head: &[u8], message: &impl protobuf::Message) -> Vec<u8> {
    let len = usize::try_from(message.compute_size()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(head.len() + len);
    bytes.extend_from_slice(head);
    // It fails for no message without required fields, and Raft's have none.
    if message.write_to_vec(&mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

pub(crate) fn decode_entry(stored: &StoredEntry) -> Result<eraftpb::Entry, String> {
    let mut entry = eraftpb::Entry::default();
    entry.merge_from_bytes(&stored.bytes).map_err(|error| format!("entry {}: {error}", stored.index))?;
    if entry.index != stored.index {
        return Err(format!("entry {} calls itself {}", stored.index, entry.index));
    }
    Ok(entry)
}

pub(crate) fn decode_snapshot(stored: &StoredSnapshot) -> Result<eraftpb::Snapshot, String> {
    let mut snapshot = eraftpb::Snapshot::default();
    snapshot
        .merge_from_bytes(&stored.bytes)
        .map_err(|error| format!("snapshot at {}: {error}", stored.index))?;
    if snapshot.get_metadata().index != stored.index {
        return Err(format!("snapshot at {} calls itself {}", stored.index, snapshot.get_metadata().index));
    }
    Ok(snapshot)
}

pub(crate) fn store_entry(entry: &eraftpb::Entry) -> StoredEntry {
    StoredEntry { index: entry.index, bytes: encode(entry) }
}

pub(crate) fn store_snapshot(snapshot: &eraftpb::Snapshot) -> StoredSnapshot {
    StoredSnapshot { index: snapshot.get_metadata().index, bytes: encode(snapshot) }
}
