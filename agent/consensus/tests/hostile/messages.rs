//! Messages of a broken member: refused with a reason, and nobody ends.

use std::collections::BTreeMap;

use blixard_consensus::{
    Consensus, ConsensusConfig, Durable, HardState, Inbound, Limits, Machine, Outgoing, PumpError, RaftRole,
    StepError, StoredEntry, genesis_snapshot,
};
use blixard_hostile::Target;
use blixard_model::{MembershipChange, RaftId, Refusal};
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};

use crate::nowhere::pump;

/// Counts what it is given. Understands everything but entries that begin with `?` and snapshots that are no
/// number.
#[derive(Debug, Default)]
struct Counter(u64);

impl Machine for Counter {
    type Outcome = u64;
    type State = Self;
    fn apply(&mut self, _at: (u64, u64), data: &[u8]) -> Result<u64, String> {
        if data.starts_with(b"?") {
            return Err("not understood".into());
        }
        self.0 += 1;
        Ok(self.0)
    }
    fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal> {
        let fits = match change {
            MembershipChange::AddLearner { member, .. } => member.raft_id > RaftId(4),
            MembershipChange::Promote { raft_id } => !voters.contains(raft_id),
            MembershipChange::Demote { raft_id } => voters.contains(raft_id) && voters.len() > 1,
            MembershipChange::Remove { raft_id, .. } => voters.contains(raft_id) && voters.len() > 1,
        };
        fits.then_some(()).ok_or(Refusal::Membership { why: "does not fit".into() })
    }
    fn apply_membership(&mut self, _change: &MembershipChange) {}
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }
    fn read_snapshot(&self, data: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
        text.parse().map(Self).map_err(|error: std::num::ParseIntError| error.to_string())
    }
    fn restore(&mut self, state: Self) {
        *self = state;
    }
}

type Node = Consensus<Counter>;

/// Where the log of everybody ends before the first election: index 1 is the first snapshot.
const LAST: u64 = 6;
/// The term that node 1 leads, and of the log's last entries.
const TERM: u64 = 3;
const LEADER: u64 = 1;
const FOLLOWER: u64 = 2;
/// Cut off from the others, and asking for votes.
const CANDIDATE: u64 = 3;
/// Has nothing yet.
const JOINER: u64 = 4;

/// Nodes 1 to 3 in a cluster led by node 1, and node 4 that waits to be admitted.
struct Group {
    nodes: BTreeMap<u64, Node>,
    in_flight: Vec<Outgoing>,
}

impl Group {
    fn new() -> Self {
        let mut group = Self { nodes: BTreeMap::new(), in_flight: Vec::new() };
        let (snapshot, _) = genesis_snapshot(&[1, 2, 3].map(RaftId), b"0".to_vec());
        let entries = (2..=LAST).map(|index| {
            let bytes = entry(index, TERM - 1, b"x").write_to_bytes().expect("encodes");
            StoredEntry { index, bytes }
        });
        let hard_state = HardState { term: TERM - 1, vote: 0, commit: LAST - 2 };
        let durable = Durable { hard_state, snapshot: Some(snapshot), entries: entries.collect() };
        for id in [LEADER, FOLLOWER, CANDIDATE] {
            group.start(id, &durable);
        }
        group.start(JOINER, &Durable::default());
        while group.nodes[&LEADER].status().role != RaftRole::Leader {
            group.nodes.get_mut(&LEADER).expect("there").tick();
            group.settle().expect("honest");
        }
        let candidate = group.nodes.get_mut(&CANDIDATE).expect("there");
        while candidate.status().role != RaftRole::Candidate {
            candidate.tick();
        }
        let _lost = pump(candidate).expect("honest");
        group
    }

    fn start(&mut self, id: u64, durable: &Durable) {
        let config =
            ConsensusConfig { raft_id: RaftId(id), incarnation: 1, seed: 1, limits: Limits::default() };
        let node = Consensus::new(config, durable, Counter::default()).expect("whole");
        self.nodes.insert(id, node);
    }

    fn step(&mut self, to: u64, bytes: &[u8], is_snapshot: bool) -> Result<(), StepError> {
        let inbound = Inbound::decode(bytes, is_snapshot)?;
        self.nodes.get_mut(&to).expect("there").step(inbound)
    }

    fn pump(&mut self, id: u64) -> Result<(), PumpError> {
        let effects = pump(self.nodes.get_mut(&id).expect("there"))?;
        self.in_flight.extend(effects.messages);
        Ok(())
    }

    /// Delivers what is in flight, as often as it makes sense: what one hostile message sets off must not end
    /// another node either.
    fn settle(&mut self) -> Result<(), PumpError> {
        for id in [LEADER, FOLLOWER, CANDIDATE, JOINER] {
            self.pump(id)?;
        }
        for _ in 0..16 {
            for message in std::mem::take(&mut self.in_flight) {
                let to = message.to.0;
                if self.nodes.contains_key(&to) {
                    // Refused or not: it is the receiver's life that counts.
                    let _refused = self.step(to, &message.encode_behind(&[]), message.is_snapshot);
                    self.pump(to)?;
                }
            }
        }
        Ok(())
    }
}

fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { index, term, data: data.to_vec().into(), ..Entry::default() }
}

fn message(kind: MessageType, from: u64, to: u64) -> Message {
    let mut message = Message { from, to, term: TERM, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn append(index: u64, log_term: u64, commit: u64, entries: Vec<Entry>) -> Message {
    let mut append = message(MessageType::MsgAppend, LEADER, FOLLOWER);
    (append.index, append.log_term, append.commit) = (index, log_term, commit);
    append.entries = entries.into();
    append
}

fn snapshot(index: u64, term: u64, voters: &[u64], learners: &[u64], state: &[u8]) -> Message {
    let mut message = message(MessageType::MsgSnapshot, LEADER, FOLLOWER);
    message.mut_snapshot().data = state.to_vec().into();
    let meta = message.mut_snapshot().mut_metadata();
    (meta.index, meta.term) = (index, term);
    meta.mut_conf_state().voters = voters.to_vec();
    meta.mut_conf_state().learners = learners.to_vec();
    message
}

fn change(message: Message, change: impl FnOnce(&mut Message)) -> Message {
    let mut message = message;
    change(&mut message);
    message
}

fn read(kind: MessageType, from: u64, to: u64) -> Message {
    change(message(kind, from, to), |m| {
        m.term = if kind == MessageType::MsgReadIndex { 0 } else { TERM };
        m.index = LAST;
        m.entries = vec![entry(0, 0, &[7; 24])].into();
    })
}

fn refusal(message: &Message) -> String {
    let mut group = Group::new();
    let bytes = message.write_to_bytes().expect("encodes");
    let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
    let refused = group.step(message.to, &bytes, is_snapshot);
    group.settle().expect("nobody ends");
    refused.expect_err("refused").to_string()
}

#[test]
fn kinds_that_no_member_sends_are_refused() {
    use MessageType as T;
    let local = [T::MsgHup, T::MsgBeat, T::MsgUnreachable, T::MsgSnapStatus, T::MsgCheckQuorum];
    for kind in local.into_iter().chain([T::MsgTransferLeader, T::MsgPropose]) {
        for to in [LEADER, FOLLOWER, CANDIDATE] {
            let words = refusal(&message(kind, 5 - to, to));
            assert!(words.contains("no node sends") || words.contains("proposal"), "{kind:?}: {words}");
        }
    }
}

#[test]
fn numbers_that_overflow_are_refused() {
    type Set = fn(&mut Message);
    let cases: [(MessageType, Set); 7] = [
        (MessageType::MsgHeartbeat, |m| m.term = u64::MAX),
        (MessageType::MsgRequestVote, |m| m.term = u64::MAX),
        (MessageType::MsgRequestPreVote, |m| (m.term, m.log_term, m.index) = (u64::MAX, 9, 9)),
        (MessageType::MsgAppend, |m| (m.index, m.log_term) = (u64::MAX, 1)),
        (MessageType::MsgAppend, |m| m.commit = u64::MAX),
        (MessageType::MsgAppendResponse, |m| m.index = u64::MAX),
        (MessageType::MsgAppendResponse, |m| (m.reject, m.index, m.reject_hint) = (true, LAST, u64::MAX)),
    ];
    for (kind, set) in cases {
        let (from, to) =
            if kind == MessageType::MsgAppendResponse { (FOLLOWER, LEADER) } else { (LEADER, FOLLOWER) };
        let words = refusal(&change(message(kind, from, to), set));
        assert!(words.contains("no log reaches"), "{kind:?}: {words}");
    }
    let jump = change(message(MessageType::MsgHeartbeat, LEADER, FOLLOWER), |m| m.term = TERM + (1 << 33));
    assert!(refusal(&jump).contains("no election"));
}

#[test]
fn entries_that_do_not_follow_each_other_are_refused() {
    let cases = [
        (append(LAST, 0, LAST, vec![]), "without a term"),
        (append(LAST + 9, 0, LAST + 9, vec![]), "without a term"),
        (append(LAST - 2, TERM - 1, LAST, vec![entry(2, 1, b"x")]), "gap"),
        (append(LAST, TERM - 1, LAST, vec![entry(LAST + 2, TERM, b"x")]), "gap"),
        (append(LAST, TERM - 1, LAST, vec![entry(0, TERM, b"x")]), "gap"),
        (append(LAST, TERM - 1, LAST, vec![entry(LAST + 1, 1, b"x")]), "backwards"),
        (append(LAST, TERM - 1, LAST, vec![entry(LAST + 1, TERM + 1, b"x")]), "later term"),
    ];
    for (message, why) in cases {
        let words = refusal(&message);
        assert!(words.contains(why), "{why}: {words}");
    }
}

#[test]
fn snapshots_that_no_leader_makes_are_refused() {
    let cases = [
        (snapshot(0, 0, &[1, 2, 3], &[], b"1"), "without a place"),
        (snapshot(9, 0, &[1, 2, 3], &[], b"1"), "without a place"),
        (snapshot(u64::MAX, TERM, &[1, 2, 3], &[], b"1"), "without a place"),
        (snapshot(9, TERM + 1, &[1, 2, 3], &[], b"1"), "without a place"),
        (snapshot(9, TERM, &[], &[2], b"1"), "without voters"),
        (snapshot(9, TERM, &[1, 2, 2], &[], b"1"), "twice"),
        (snapshot(9, TERM, &[1, 2, 0], &[], b"1"), "without an id"),
        (snapshot(9, TERM, &[1, 2], &[2], b"1"), "twice"),
        (snapshot(9, TERM, &(1..2_000).collect::<Vec<_>>(), &[], b"1"), "too many"),
        (snapshot(9, TERM, &[1, 2, 3], &[], b"no number"), "upgrade this node"),
    ];
    for (message, why) in cases {
        let words = refusal(&message);
        assert!(words.contains(why), "{why}: {words}");
    }
    let joint = change(snapshot(9, TERM, &[1, 2, 3], &[], b"1"), |m| {
        m.mut_snapshot().mut_metadata().mut_conf_state().voters_outgoing = vec![2];
    });
    assert!(refusal(&joint).contains("joint"));
}

#[test]
fn reads_that_raft_ends_at_are_refused() {
    let read = |from, to| read(MessageType::MsgReadIndex, from, to);
    let with_term = change(read(CANDIDATE, FOLLOWER), |m| m.term = TERM);
    assert!(refusal(&with_term).contains("a read with a term"));
    let nameless = change(read(FOLLOWER, LEADER), |m| m.entries.clear());
    assert!(refusal(&nameless).contains("without its name"));
    let long = change(read(FOLLOWER, LEADER), |m| m.entries = vec![entry(0, 0, &[7; 1 << 20])].into());
    assert!(refusal(&long).contains("too long"));
    let own = read(FOLLOWER, FOLLOWER);
    assert!(refusal(&own).contains("the receiver itself"));
}

#[test]
fn one_term_has_one_leader() {
    for kind in [MessageType::MsgHeartbeat, MessageType::MsgAppend, MessageType::MsgSnapshot] {
        for to in [LEADER, FOLLOWER] {
            let mut second = snapshot(LAST + 1, TERM, &[1, 2, 3], &[], b"1");
            (second.from, second.to) = (CANDIDATE, to);
            second.set_msg_type(kind);
            assert!(refusal(&second).contains("second leader"), "{kind:?}");
        }
    }
}

#[test]
fn acknowledgements_beyond_the_leaders_log_are_refused() {
    // Believed, the leader would send the next entries with a predecessor that nobody has, and the followers
    // would end at its commit.
    let beyond = change(message(MessageType::MsgAppendResponse, FOLLOWER, LEADER), |m| m.index = LAST + 50);
    assert!(refusal(&beyond).contains("never had"));
}

#[test]
fn a_campaign_on_a_log_that_is_not_on_disk_is_refused() {
    let mut group = Group::new();
    let mut send = |message: &Message| {
        let bytes = message.write_to_bytes().expect("encodes");
        group.step(message.to, &bytes, false).map_err(|error| error.to_string())
    };
    // All in one batch: nothing is on disk in between.
    let entries = vec![entry(LAST + 2, TERM + 1, b"x")];
    let new = change(append(LAST + 1, TERM, LAST, entries), |m| m.term = TERM + 1);
    assert_eq!(send(&new), Ok(()));
    let told = change(message(MessageType::MsgTimeoutNow, LEADER, FOLLOWER), |m| m.term = TERM + 1);
    assert!(send(&told).expect_err("refused").contains("on disk"));
    let vote = change(message(MessageType::MsgRequestVoteResponse, LEADER, FOLLOWER), |m| m.term = TERM + 2);
    assert!(send(&vote).expect_err("refused").contains("not asked for any more"));
    group.settle().expect("nobody ends");
    let stranger = message(MessageType::MsgTimeoutNow, CANDIDATE, FOLLOWER);
    assert!(refusal(&stranger).contains("does not follow"));
}

#[test]
fn a_leader_that_heard_more_than_there_is_shows_a_store_that_was_rolled_back() {
    let heartbeat = change(message(MessageType::MsgHeartbeat, LEADER, FOLLOWER), |m| m.commit = LAST + 50);
    let words = refusal(&heartbeat);
    assert!(words.contains("up to index 56") && words.contains("an older copy"), "{words}");
    let mut group = Group::new();
    let bytes = heartbeat.write_to_bytes().expect("encodes");
    let refused = group.step(FOLLOWER, &bytes, false);
    assert!(matches!(refused, Err(StepError::RolledBack { acknowledged: 56, .. })), "{refused:?}");
    // One from an earlier term says nothing: the log may have been replaced since.
    let old = change(heartbeat, |m| m.term = 1);
    assert_eq!(group.step(FOLLOWER, &old.write_to_bytes().expect("encodes"), false), Ok(()));
}

/// Every kind of message, as a member might send it.
fn honest() -> Vec<Message> {
    use MessageType as T;
    let kinds =
        [T::MsgRequestVote, T::MsgRequestPreVote, T::MsgRequestVoteResponse, T::MsgRequestPreVoteResponse];
    let mut all: Vec<Message> = Vec::new();
    for (from, to) in [(FOLLOWER, LEADER), (CANDIDATE, FOLLOWER), (LEADER, FOLLOWER), (FOLLOWER, CANDIDATE)] {
        all.extend(kinds.map(|kind| {
            change(message(kind, from, to), |m| {
                (m.term, m.index, m.log_term, m.commit, m.commit_term) =
                    (TERM + 1, LAST + 1, TERM, LAST, TERM - 1);
            })
        }));
        all.push(change(message(T::MsgAppendResponse, from, to), |m| (m.index, m.commit) = (LAST, LAST)));
        all.push(change(message(T::MsgAppendResponse, from, to), |m| {
            (m.index, m.reject, m.reject_hint, m.log_term) = (LAST, true, 3, 1);
        }));
        all.push(change(message(T::MsgHeartbeat, from, to), |m| m.commit = LAST));
        all.push(change(message(T::MsgHeartbeatResponse, from, to), |m| m.context = vec![7; 24].into()));
        all.push(message(T::MsgTimeoutNow, from, to));
        all.push(read(T::MsgReadIndex, from, to));
        all.push(read(T::MsgReadIndexResp, from, to));
    }
    let entries = vec![entry(LAST + 1, TERM, b""), entry(LAST + 2, TERM, b"x"), entry(LAST + 3, TERM, b"y")];
    let mut change_of_members = entry(LAST + 2, TERM, b"");
    change_of_members.set_entry_type(EntryType::EntryConfChangeV2);
    let change_json = br#"{"kind":"remove","raft_id":3}"#;
    let conf_change = ConfChangeV2 { context: change_json.to_vec().into(), ..ConfChangeV2::default() };
    change_of_members.data = conf_change.write_to_bytes().expect("encodes").into();
    for to in [FOLLOWER, CANDIDATE, JOINER] {
        let mut set = vec![
            append(LAST, TERM - 1, LAST + 2, entries.clone()),
            append(LAST, TERM - 1, LAST + 2, vec![entries[0].clone(), change_of_members.clone()]),
            append(LAST - 2, TERM - 1, LAST, vec![]),
            snapshot(LAST + 9, TERM, &[1, 2, 3], &[4], b"12"),
            snapshot(LAST, TERM - 1, &[1, 2], &[3, 4], b"12"),
        ];
        set.iter_mut().for_each(|message| message.to = to);
        all.extend(set);
    }
    all
}

/// The decoder sets aside what a length claims, up to 10 MB; the rest is for what a message becomes.
const HEAP_MAX: u64 = 12 << 20;
const IS_SNAPSHOT: u8 = 1;
const THEN_PUMP: u8 = 2;
const TICK_FIRST: u8 = 4;

/// A message as the target below reads it: flags, length, bytes.
fn record(message: &Message, flags: u8) -> Vec<u8> {
    let bytes = message.write_to_bytes().expect("encodes");
    let snapshot = u8::from(message.get_msg_type() == MessageType::MsgSnapshot) * IS_SNAPSHOT;
    let len = u16::try_from(bytes.len()).expect("short").to_be_bytes();
    [&[flags | snapshot, u8::try_from(message.to).expect("small")][..], &len, &bytes].concat()
}

/// Steps the messages, lets time pass and lets the others hear what became of it.
fn play(group: &mut Group, mut input: &[u8]) -> Result<String, PumpError> {
    let mut words = String::new();
    while let Some(([flags, to, high, low], rest)) = input.split_first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, rest) = rest.split_at(len);
        input = rest;
        let to = u64::from(to.wrapping_sub(1) % 4) + 1;
        if flags & TICK_FIRST != 0 {
            group.nodes.get_mut(&to).expect("there").tick();
        }
        words = match group.step(to, bytes, flags & IS_SNAPSHOT != 0) {
            Ok(()) => "taken".into(),
            Err(error) => error.to_string(),
        };
        if flags & THEN_PUMP != 0 {
            group.pump(to)?;
        }
    }
    for node in group.nodes.values_mut() {
        node.tick();
        let _refused = node.propose(b"p".to_vec());
        node.read();
    }
    group.settle()?;
    Ok(words)
}

#[test]
fn fuzz_raft_messages() {
    let honest = honest();
    let single = honest.iter().map(|message| record(message, THEN_PUMP));
    // In one batch, as the agent steps them.
    let pairs = honest.windows(3).map(|window| {
        let records = window.iter().map(|message| record(message, 0)).collect::<Vec<_>>();
        records.concat()
    });
    let mut target = Target::new("raft-messages").len_max(16 << 10).heap_max(HEAP_MAX);
    for bytes in single.chain(pairs) {
        target = target.valid(bytes);
    }
    target.run(|input| {
        let mut group = Group::new();
        match play(&mut group, input) {
            Ok(words) => words,
            // A leader put something into the log that this version does not know: the one reason to end.
            Err(PumpError::Apply { why, .. }) => why,
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn fuzz_raft_decode() {
    // Long ones: what a frame at its cap becomes.
    let mut target = Target::new("raft-decode").len_max(1 << 20).heap_max(2 * HEAP_MAX);
    for message in honest() {
        target = target.valid(message.write_to_bytes().expect("encodes"));
    }
    let pieces: [&[u8]; 5] =
        [b"\x3a\0", b"\x4a\0", b"\xa0\x06\0", b"\x3a\x02\x22\0", b"\x4a\x04\x12\x02\x0a\0"];
    target.words(pieces).run(|bytes| {
        let decoded = [false, true].map(|is_snapshot| Inbound::decode(bytes, is_snapshot));
        decoded.map(|inbound| inbound.map_or_else(|error| error.to_string(), |_| "decoded".into())).concat()
    });
}
