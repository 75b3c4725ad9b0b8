//! Several nodes, a network of vectors and disks of memory: what Raft must keep through crashes, cuts and
//! changes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use blixard_consensus::{
    Consensus, ConsensusConfig, Durable, Effects, Inbound, Limits, LogStore, LogWrite, Machine, Outgoing,
    ProposeError, RaftRole, genesis_snapshot,
};
use blixard_model::{EndpointId, Member, MembershipChange, RaftId, Refusal, Removal, Role, StoreId};

/// Adds up what it is given: enough to see what was applied, in which order.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct Journal {
    lines: Vec<String>,
    members: Vec<u64>,
}

impl Machine for Journal {
    type Outcome = usize;
    type State = Self;
    fn apply(&mut self, _index: u64, data: &[u8]) -> Result<usize, String> {
        self.lines.push(String::from_utf8_lossy(data).into_owned());
        Ok(self.lines.len())
    }
    fn check_membership(&self, change: &MembershipChange, voters: &[RaftId]) -> Result<(), Refusal> {
        let fits = match change {
            MembershipChange::AddLearner { member, .. } => !self.members.contains(&member.raft_id.0),
            MembershipChange::Promote { raft_id } => !voters.contains(raft_id),
            MembershipChange::Demote { raft_id } => voters.contains(raft_id),
            MembershipChange::Remove { raft_id, .. } => self.members.contains(&raft_id.0),
        };
        fits.then_some(()).ok_or(Refusal::Membership { why: "does not fit".into() })
    }
    fn apply_membership(&mut self, change: &MembershipChange) {
        match change {
            MembershipChange::AddLearner { member, .. } => self.members.push(member.raft_id.0),
            MembershipChange::Promote { .. } | MembershipChange::Demote { .. } => {}
            MembershipChange::Remove { raft_id, .. } => self.members.retain(|id| *id != raft_id.0),
        }
    }
    fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("json")
    }
    fn read_snapshot(&self, data: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(data).map_err(|e| e.to_string())
    }
    fn restore(&mut self, state: Self) {
        *self = state;
    }
}

/// A disk that keeps what was synced and loses the rest when the machine crashes.
#[derive(Debug, Clone, Default)]
struct Disk(Rc<RefCell<(Durable, Durable)>>);

impl Disk {
    fn crash(&self) -> Durable {
        let (cached, durable) = &mut *self.0.borrow_mut();
        cached.clone_from(durable);
        durable.clone()
    }
}

impl LogStore for Disk {
    type Error = std::convert::Infallible;
    fn write(&mut self, batch: &LogWrite) -> Result<(), Self::Error> {
        let (cached, durable) = &mut *self.0.borrow_mut();
        if let Some(snapshot) = &batch.snapshot {
            let index = snapshot.index;
            cached.entries.retain(|entry| entry.index > index && !batch.clear_log);
            cached.snapshot = Some(snapshot.clone());
        }
        if let Some(first) = batch.entries.first() {
            cached.entries.retain(|entry| entry.index < first.index);
            cached.entries.extend(batch.entries.iter().cloned());
        }
        cached.hard_state = batch.hard_state.unwrap_or(cached.hard_state);
        if batch.sync {
            *durable = cached.clone();
        }
        Ok(())
    }
}

type Node = Consensus<Journal, Disk>;

struct Cluster {
    nodes: BTreeMap<u64, Node>,
    disks: BTreeMap<u64, Disk>,
    cut: BTreeSet<u64>,
    in_flight: Vec<(u64, Outgoing)>,
    applied: BTreeMap<u64, Vec<(u64, Option<u64>)>>,
    reads: BTreeMap<u64, Vec<u64>>,
    incarnation: u64,
    limits: Limits,
    trace: Vec<(u64, u64, usize)>,
}

impl Cluster {
    fn new(voters: u64) -> Self {
        Self::with_limits(voters, Limits::default())
    }

    fn with_limits(voters: u64, limits: Limits) -> Self {
        let ids: Vec<RaftId> = (1..=voters).map(RaftId).collect();
        let journal = Journal { lines: Vec::new(), members: (1..=voters).collect() };
        let (snapshot, hard_state) = genesis_snapshot(&ids, journal.snapshot());
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            cut: BTreeSet::new(),
            in_flight: Vec::new(),
            applied: BTreeMap::new(),
            reads: BTreeMap::new(),
            incarnation: 0,
            limits,
            trace: Vec::new(),
        };
        for id in 1..=voters {
            let durable = Durable { hard_state, snapshot: Some(snapshot.clone()), entries: Vec::new() };
            let disk = Disk(Rc::new(RefCell::new((durable.clone(), durable))));
            cluster.disks.insert(id, disk);
            cluster.start(id);
        }
        cluster
    }

    fn start(&mut self, id: u64) {
        let disk = self.disks.entry(id).or_default().clone();
        let durable = disk.crash();
        self.incarnation += 1;
        let config = ConsensusConfig {
            raft_id: RaftId(id),
            incarnation: self.incarnation,
            seed: 7,
            limits: self.limits,
        };
        let node = Consensus::new(config, &durable, Journal::default(), disk).expect("the disk is whole");
        self.nodes.insert(id, node);
    }

    fn crash(&mut self, id: u64) {
        self.nodes.remove(&id);
        self.in_flight.retain(|(from, _)| *from != id);
    }

    fn absorb(&mut self, id: u64, effects: Effects<usize>) {
        self.in_flight.extend(effects.messages.into_iter().map(|message| (id, message)));
        self.applied.entry(id).or_default().extend(effects.applied.iter().map(|a| (a.index, a.key)));
        self.reads.entry(id).or_default().extend(effects.reads);
    }

    fn pump(&mut self, id: u64) {
        let effects = self.nodes.get_mut(&id).expect("up").pump().expect("memory does not fail");
        self.absorb(id, effects);
    }

    /// Delivers everything in flight until nothing moves.
    fn settle(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        ids.iter().for_each(|id| self.pump(*id));
        while !self.in_flight.is_empty() {
            for (from, message) in std::mem::take(&mut self.in_flight) {
                let to = message.to.0;
                let lost =
                    self.cut.contains(&from) || self.cut.contains(&to) || !self.nodes.contains_key(&to);
                if message.is_snapshot
                    && let Some(sender) = self.nodes.get_mut(&from)
                {
                    sender.report_snapshot(message.to, !lost);
                }
                if lost {
                    continue;
                }
                self.trace.push((from, to, message.encode_behind(&[]).len()));
                let node = self.nodes.get_mut(&to).expect("up");
                let inbound =
                    Inbound::decode(&message.encode_behind(&[]), message.is_snapshot).expect("ours");
                assert_eq!(inbound.from(), RaftId(from));
                let _refused = node.step(inbound);
                self.pump(to);
                if self.nodes.contains_key(&from) {
                    self.pump(from);
                }
            }
        }
    }

    fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.nodes.values_mut().for_each(Consensus::tick);
            self.settle();
        }
    }

    fn leader(&self) -> Option<u64> {
        let leads = |(id, node): (&u64, &Node)| (node.leads() && !self.cut.contains(id)).then_some(*id);
        self.nodes.iter().find_map(leads)
    }

    /// Ticks until there is a leader that has committed in its term.
    fn elect(&mut self) -> u64 {
        for _ in 0..200 {
            self.tick(1);
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("no leader within 200 ticks");
    }

    fn propose(&mut self, id: u64, text: &str) -> Option<u64> {
        let key = self.nodes.get_mut(&id)?.propose(text.as_bytes().to_vec()).ok()?;
        self.settle();
        Some(key)
    }

    fn lines(&self, id: u64) -> &[String] {
        &self.nodes[&id].machine().lines
    }

    fn acked(&self, id: u64, key: u64) -> bool {
        self.applied[&id].iter().any(|(_, k)| *k == Some(key))
    }
}

fn member(id: u64) -> Member {
    Member {
        witness: false,
        raft_id: RaftId(id),
        name: format!("n{id}").parse().expect("name"),
        endpoint_id: EndpointId::from_bytes([id as u8; 32]),
        store_id: StoreId::from_bytes([id as u8; 16]),
        addresses: Vec::new(),
        relay_url: None,
        role: Role::Learner,
        capacity: None,
    }
}

#[test]
fn one_node_leads_itself_and_applies() {
    let mut c = Cluster::new(1);
    let leader = c.elect();
    let key = c.propose(leader, "a").expect("leads");
    assert!(c.acked(leader, key));
    assert_eq!(c.lines(1), ["a"]);
}

#[test]
fn three_nodes_elect_one_leader_and_replicate_in_order() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    assert_eq!(c.nodes.values().filter(|n| n.status().role == RaftRole::Leader).count(), 1);
    for text in ["a", "b", "c"] {
        let key = c.propose(leader, text).expect("leads");
        assert!(c.acked(leader, key));
    }
    c.tick(5);
    for id in 1..=3 {
        assert_eq!(c.lines(id), ["a", "b", "c"], "node {id}");
    }
}

#[test]
fn a_follower_refuses_proposals_and_names_the_leader() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let follower = (1..=3).find(|id| *id != leader).expect("three");
    let refused = c.nodes.get_mut(&follower).expect("up").propose(b"x".to_vec());
    assert_eq!(refused, Err(ProposeError::NotLeader(Some(RaftId(leader)))));
}

#[test]
fn losing_the_leader_elects_another_and_keeps_what_was_acknowledged() {
    let mut c = Cluster::new(3);
    let first = c.elect();
    c.propose(first, "before").expect("leads");
    c.crash(first);
    let second = c.elect();
    assert_ne!(first, second);
    let key = c.propose(second, "after").expect("leads");
    assert!(c.acked(second, key));
    c.start(first);
    c.tick(30);
    assert_eq!(c.lines(first), ["before", "after"]);
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_the_leader_steps_down() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    others.iter().for_each(|id| c.crash(*id));
    let key = c.propose(leader, "lost?");
    c.tick(40);
    assert!(key.is_none_or(|key| !c.acked(leader, key)));
    assert_eq!(c.nodes[&leader].status().leader, None);
    let read = c.nodes.get_mut(&leader).expect("up").read().expect("room");
    c.tick(10);
    assert!(!c.reads[&leader].contains(&read), "a read without a quorum must not be served");
}

#[test]
fn a_crash_of_everybody_keeps_everything_acknowledged() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let lines: Vec<String> = (0..20).map(|n| format!("line {n}")).collect();
    for line in &lines {
        let key = c.propose(leader, line).expect("leads");
        assert!(c.acked(leader, key));
    }
    (1..=3).for_each(|id| c.crash(id));
    (1..=3).for_each(|id| c.start(id));
    c.elect();
    c.tick(5);
    for id in 1..=3 {
        assert_eq!(c.lines(id), lines, "node {id}");
    }
}

#[test]
fn a_restart_keeps_term_and_vote() {
    let mut c = Cluster::new(3);
    c.elect();
    let before = c.nodes[&2].status();
    c.crash(2);
    c.start(2);
    let after = c.nodes[&2].status();
    assert_eq!(before.term, after.term);
    assert_eq!(after.voters, [RaftId(1), RaftId(2), RaftId(3)]);
}

fn vote_request(from: u64, to: u64, term: u64) -> Vec<u8> {
    use protobuf::Message as _;
    let mut message = raft::eraftpb::Message { from, to, term, log_term: 1, index: 1, ..Default::default() };
    message.set_msg_type(raft::eraftpb::MessageType::MsgRequestVote);
    message.write_to_bytes().expect("encodes")
}

/// Whether node 2 grants a vote in term 2 to `from`.
fn asks_for_vote(c: &mut Cluster, from: u64) -> bool {
    use protobuf::Message as _;
    let inbound = Inbound::decode(&vote_request(from, 2, 2), false).expect("a message");
    let node = c.nodes.get_mut(&2).expect("up");
    node.step(inbound).expect("taken");
    let effects = node.pump().expect("memory does not fail");
    let mut answer = raft::eraftpb::Message::default();
    answer
        .merge_from_bytes(&effects.messages.last().expect("an answer").encode_behind(&[]))
        .expect("a message");
    !answer.reject
}

#[test]
fn a_vote_survives_a_crash() {
    let mut c = Cluster::new(3);
    assert!(asks_for_vote(&mut c, 1));
    c.crash(2);
    c.start(2);
    assert!(!asks_for_vote(&mut c, 3), "two votes in one term");
    assert!(asks_for_vote(&mut c, 1), "the same vote again is no second one");
}

#[test]
fn a_learner_does_not_believe_in_a_dead_leader_for_ever() {
    let mut c = Cluster::new(1);
    c.elect();
    let admit = MembershipChange::AddLearner { member: member(2), ticket: None };
    c.nodes.get_mut(&1).expect("up").propose_membership(&admit).expect("fits");
    c.tick(5);
    c.start(2);
    c.tick(20);
    assert_eq!(c.nodes[&2].status().leader, Some(RaftId(1)));
    c.crash(1);
    c.tick(30);
    assert_eq!(c.nodes[&2].status().leader, None);
}

#[test]
fn a_read_sees_everything_acknowledged_before_it_on_every_node() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    for id in 1..=3 {
        c.propose(leader, "x").expect("leads");
        let read = c.nodes.get_mut(&id).expect("up").read().expect("room");
        c.settle();
        c.tick(2);
        assert!(c.reads[&id].contains(&read), "node {id}");
        assert_eq!(c.lines(id).len(), usize::try_from(id).expect("small"));
    }
}

#[test]
fn the_log_is_bounded_in_memory_and_on_disk() {
    let by_entries = Limits { compact_entries: 64, compact_bytes: 1 << 20, keep_entries: 16 };
    let by_bytes = Limits { compact_entries: 100_000, compact_bytes: 8 << 10, keep_entries: 16 };
    for limits in [by_entries, by_bytes] {
        let mut c = Cluster::with_limits(3, limits);
        let leader = c.elect();
        for n in 0..1_000 {
            c.propose(leader, &format!("{n:0>100}")).expect("leads");
            c.settle();
            for (id, node) in &c.nodes {
                let stats = node.log_stats();
                // What can be cut is cut at once; Raft's own window of what is not applied comes on top.
                assert!(stats.entries <= limits.compact_entries + limits.keep_entries + 1, "{id}: {stats:?}");
                assert!(stats.bytes <= limits.compact_bytes + (4 << 10), "{id}: {stats:?}");
                let on_disk = c.disks[id].0.borrow().0.entries.len();
                assert!(on_disk <= stats.entries, "{id}: {on_disk} entries on disk, {stats:?}");
            }
        }
        assert_eq!(c.lines(leader).len(), 1_000);
    }
}

#[test]
fn a_node_far_behind_is_caught_up_by_a_snapshot() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let behind = (1..=3).find(|id| *id != leader).expect("three");
    c.crash(behind);
    for n in 0..10_000 {
        c.propose(leader, &format!("{n}")).expect("leads");
    }
    c.start(behind);
    c.tick(40);
    assert_eq!(c.lines(behind).len(), 10_000);
    assert_eq!(c.lines(behind), c.lines(leader));
    let kept = c.disks[&leader].0.borrow().1.entries.len();
    assert!(kept < 9_500, "the log on disk was not cut: {kept} entries");
    // And the one that was cut comes back from its own snapshot.
    c.crash(leader);
    c.start(leader);
    c.elect();
    assert_eq!(c.lines(leader).len(), 10_000);
}

#[test]
fn a_lost_store_leaves_and_comes_back_under_a_new_id_as_learner_then_voter() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.propose(leader, "kept").expect("leads");
    let wiped = (1..=3).find(|id| *id != leader).expect("three");
    c.crash(wiped);
    c.disks.remove(&wiped);

    let change = |c: &mut Cluster, change: MembershipChange| {
        c.nodes.get_mut(&leader).expect("up").propose_membership(&change).expect("fits");
        c.tick(5);
    };
    change(&mut c, MembershipChange::Remove { raft_id: RaftId(wiped), why: Removal::LostStore });
    change(&mut c, MembershipChange::AddLearner { member: member(4), ticket: None });
    c.start(4);
    assert!(!c.nodes[&4].is_member());
    c.tick(20);
    assert!(c.nodes[&4].is_member());
    assert_eq!(c.lines(4), ["kept"]);
    assert_eq!(c.nodes[&leader].status().learners, [RaftId(4)]);
    change(&mut c, MembershipChange::Promote { raft_id: RaftId(4) });
    assert!(c.nodes[&4].status().voters.contains(&RaftId(4)));

    // It is a full voter: with it and one other the cluster goes on.
    c.crash(leader);
    let next = c.elect();
    let key = c.propose(next, "with the new one").expect("leads");
    assert!(c.acked(next, key));
    // And its configuration survives its restart.
    c.crash(4);
    c.start(4);
    c.tick(1);
    assert_eq!(c.nodes[&4].status().voters.len(), 3);
}

/// Without it the two that are left would count with a voter less than there are: with the one that is gone.
#[test]
fn who_votes_is_known_after_a_crash_of_everybody_and_the_loss_of_one_disk() {
    let mut c = Cluster::new(2);
    let leader = c.elect();
    c.start(3);
    for change in [
        MembershipChange::AddLearner { member: member(3), ticket: None },
        MembershipChange::Promote { raft_id: RaftId(3) },
    ] {
        c.nodes.get_mut(&leader).expect("up").propose_membership(&change).expect("fits");
        c.tick(20);
    }
    for id in 1..=3 {
        assert_eq!(c.nodes[&id].status().voters.len(), 3, "node {id} knows who votes");
    }
    (1..=3).for_each(|id| c.crash(id));
    c.disks.remove(&leader);
    let left: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    left.iter().for_each(|id| c.start(*id));
    let next = c.elect();
    let key = c.propose(next, "two of three").expect("leads");
    assert!(c.acked(next, key));
}

#[test]
fn a_leader_does_not_remove_itself() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    let change = MembershipChange::Remove { raft_id: RaftId(leader), why: Removal::LostStore };
    let refused = c.nodes.get_mut(&leader).expect("up").propose_membership(&change);
    assert!(matches!(refused, Err(ProposeError::Refused(_))), "{refused:?}");
}

/// It is elected with its own removal in its log, commits that, and is out: raft 0.7 would panic as a leader
/// that does not vote.
#[test]
fn who_is_elected_while_it_is_removed_or_demoted_steps_down() {
    for demoted in [false, true] {
        let mut c = Cluster::new(3);
        let leader = c.elect();
        let [out, last] = (1..=3).filter(|id| *id != leader).collect::<Vec<_>>()[..] else { panic!("three") };
        let raft_id = RaftId(out);
        let change = match demoted {
            true => MembershipChange::Demote { raft_id },
            false => MembershipChange::Remove { raft_id, why: Removal::LostStore },
        };
        // Only the one it is about hears of it, and not that it is committed.
        c.cut.insert(last);
        c.nodes.get_mut(&leader).expect("up").propose_membership(&change).expect("fits");
        c.pump(leader);
        for (_, message) in std::mem::take(&mut c.in_flight) {
            if message.to == raft_id {
                let inbound =
                    Inbound::decode(&message.encode_behind(&[]), message.is_snapshot).expect("ours");
                c.nodes.get_mut(&out).expect("up").step(inbound).expect("taken");
                c.pump(out);
            }
        }
        c.in_flight.clear();
        c.crash(leader);
        c.cut.clear();
        let mut terms = 0;
        while c.nodes[&last].status().voters.contains(&raft_id) {
            c.tick(1);
            terms += 1;
            assert!(terms < 500, "it is never committed");
            let votes = c.nodes[&out].status().voters.contains(&raft_id);
            assert!(votes || !c.nodes[&out].leads(), "it leads and does not vote");
        }
        c.tick(40);
        assert!(!c.nodes[&out].leads());
        assert_eq!(c.nodes[&out].is_member(), demoted);
        c.start(leader);
        let next = c.elect();
        assert_ne!(next, out);
        let key = c.propose(next, "two are left").expect("leads");
        assert!(c.acked(next, key));
    }
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut c = Cluster::new(3);
    let leader = c.elect();
    c.tick(3);
    assert!(c.nodes.get_mut(&leader).expect("up").transfer_leadership());
    c.settle();
    c.tick(3);
    let next = c.leader().expect("somebody leads");
    assert_ne!(next, leader);
}

#[test]
fn a_cut_leader_is_replaced_and_its_unacknowledged_entry_disappears() {
    let mut c = Cluster::new(3);
    let old = c.elect();
    c.cut.insert(old);
    let key = c.propose(old, "never").expect("still believes to lead");
    assert!(!c.acked(old, key));
    let new = c.elect();
    c.propose(new, "real").expect("leads");
    c.cut.clear();
    c.tick(30);
    for id in 1..=3 {
        assert_eq!(c.lines(id), ["real"], "node {id}");
    }
    assert!(!c.acked(old, key));
}

#[test]
fn messages_are_checked_before_raft_sees_them() {
    let mut c = Cluster::new(3);
    c.elect();
    assert!(Inbound::decode(b"\xff\xff\xff", false).is_err());
    assert!(Inbound::decode(&[0x0b; 100_000], false).is_err(), "nested groups");
    // Field 1 is the type, 2 the receiver, 3 the sender.
    let proposal = [0x08, 2, 0x10, 1, 0x18, 2];
    assert!(Inbound::decode(&proposal, false).is_err());
    let heartbeat = [0x08, 8, 0x10, 3, 0x18, 2, 0x20, 1];
    assert!(Inbound::decode(&heartbeat[..6], false).is_err(), "no term");
    let nameless_read = [0x08, 15, 0x10, 1, 0x18, 2];
    assert!(Inbound::decode(&nameless_read, false).is_err(), "a read without its name");
    assert!(Inbound::decode(&heartbeat, true).is_err(), "no snapshot");
    let misdirected = Inbound::decode(&heartbeat, false).expect("a message");
    assert_eq!(misdirected.from(), RaftId(2));
    assert!(c.nodes.get_mut(&1).expect("up").step(misdirected).is_err());
}

#[test]
fn the_same_inputs_give_the_same_run() {
    let run = || {
        let mut c = Cluster::new(3);
        let first = c.elect();
        c.propose(first, "a");
        c.crash(first);
        let second = c.elect();
        c.propose(second, "b");
        c.start(first);
        c.tick(50);
        c.trace
    };
    assert_eq!(run(), run());
}
