//! A log on disk that says what no log says: it is refused when the node starts, and nobody panics.

use blixard_consensus::{
    Consensus, ConsensusConfig, Durable, HardState, Limits, Machine, NewError, StoredEntry, StoredSnapshot,
    genesis_snapshot,
};
use blixard_hostile::Target;
use blixard_model::{MembershipChange, RaftId, Refusal};
use protobuf::Message as _;
use raft::eraftpb::{Entry, Snapshot};

use crate::nowhere::pump;

/// Takes everything.
#[derive(Debug)]
struct Anything;

impl Machine for Anything {
    type Outcome = ();
    type State = ();
    fn apply(&mut self, _at: (u64, u64), _data: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn check_membership(&self, _change: &MembershipChange, _voters: &[RaftId]) -> Result<(), Refusal> {
        Err(Refusal::Membership { why: "none fits".into() })
    }
    fn apply_membership(&mut self, _change: &MembershipChange) {}
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
    fn read_snapshot(&self, _data: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn restore(&mut self, (): ()) {}
}

type Node = Consensus<Anything>;

fn start(durable: &Durable) -> Result<Node, NewError> {
    let config = ConsensusConfig { raft_id: RaftId(1), incarnation: 1, seed: 1, limits: Limits::default() };
    Consensus::new(config, durable, Anything)
}

/// Starts, and lives for two elections.
fn live(durable: &Durable) -> String {
    let mut node = match start(durable) {
        Ok(node) => node,
        Err(error) => return error.to_string(),
    };
    for _ in 0..50 {
        node.tick();
        if let Err(error) = pump(&mut node) {
            return error.to_string();
        }
        let _busy = node.propose(b"x".to_vec());
    }
    format!("{:?}", node.status().role)
}

fn entry(index: u64, term: u64) -> StoredEntry {
    let entry = Entry { index, term, data: b"x".to_vec().into(), ..Entry::default() };
    StoredEntry { index, bytes: entry.write_to_bytes().expect("encodes") }
}

fn durable(voters: &[u64], entries: &[(u64, u64)], hard_state: HardState) -> Durable {
    let voters: Vec<RaftId> = voters.iter().map(|id| RaftId(*id)).collect();
    let (snapshot, _) = genesis_snapshot(&voters, Vec::new());
    let entries = entries.iter().map(|(index, term)| entry(*index, *term)).collect();
    Durable { hard_state, snapshot: Some(snapshot), entries }
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let hard_state = HardState { term: 3, vote: 0, commit: 2 };
    assert!(start(&durable(&[1], &[(2, 1), (3, 3)], hard_state)).is_ok());
    let cases = [
        (durable(&[1], &[(3, 1)], hard_state), "missing"),
        (durable(&[1], &[(2, 3), (3, 2)], hard_state), "backwards"),
        (durable(&[1], &[(2, 0)], hard_state), "backwards"),
        (durable(&[1], &[(2, 4)], hard_state), "later than the node's"),
        (durable(&[1], &[(2, 1)], HardState { term: 0, ..hard_state }), "without a place"),
        (durable(&[1], &[(2, 1)], HardState { commit: 3, ..hard_state }), "commit 3"),
        (durable(&[1], &[(2, 1)], HardState { term: u64::MAX, ..hard_state }), "no log reaches"),
        (durable(&[1, 1], &[(2, 1)], hard_state), "twice"),
        (durable(&[0], &[(2, 1)], hard_state), "without an id"),
    ];
    for (durable, why) in cases {
        let refused = start(&durable).map(|node| node.status()).expect_err(why).to_string();
        assert!(refused.contains(why), "{why}: {refused}");
    }
}

/// Three numbers, the snapshot, then entries; each with a length of two bytes before it.
fn encode(durable: &Durable) -> Vec<u8> {
    let HardState { term, vote, commit } = durable.hard_state;
    let mut bytes: Vec<u8> = [term, vote, commit].iter().flat_map(|number| number.to_be_bytes()).collect();
    let snapshot = durable.snapshot.iter().map(|snapshot| &snapshot.bytes);
    for part in snapshot.chain(durable.entries.iter().map(|entry| &entry.bytes)) {
        bytes.extend(u16::try_from(part.len()).expect("short").to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Durable> {
    let (numbers, mut rest) = bytes.split_first_chunk::<24>()?;
    let number = |at: usize| numbers[at..at + 8].iter().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    let hard_state = HardState { term: number(0), vote: number(8), commit: number(16) };
    let mut parts = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (part, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*len)).min(tail.len()))?;
        parts.push(part.to_vec());
        rest = tail;
    }
    let mut parts = parts.into_iter();
    // The table's key is the index that the value has, when it has one: other keys are refused at once.
    let snapshot = parts.next().map(|bytes| {
        let mut snapshot = Snapshot::default();
        let _broken = snapshot.merge_from_bytes(&bytes);
        StoredSnapshot { index: snapshot.get_metadata().index, bytes }
    });
    let entries = parts.map(|bytes| {
        let mut entry = Entry::default();
        let _broken = entry.merge_from_bytes(&bytes);
        StoredEntry { index: entry.index, bytes }
    });
    Some(Durable { hard_state, snapshot, entries: entries.collect() })
}

#[test]
fn fuzz_stored_log() {
    let one = durable(&[1], &[(2, 1), (3, 3), (4, 3)], HardState { term: 3, vote: 1, commit: 3 });
    let three = durable(&[1, 2, 3], &[(2, 1)], HardState { term: 9, vote: 2, commit: 1 });
    let target = Target::new("stored-log").len_max(8 << 10).heap_max(24 << 20);
    target.valid(encode(&one)).valid(encode(&three)).run(|bytes| match decode(bytes) {
        Some(durable) => live(&durable),
        None => "nothing".to_owned(),
    });
}
