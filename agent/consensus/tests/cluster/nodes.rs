//! Several nodes, a network of vectors and disks of memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use blixard_consensus::{
    Consensus, ConsensusConfig, Durable, Effects, Inbound, Limits, LogWrite, Machine, Outgoing,
    genesis_snapshot,
};
use blixard_model::{EndpointId, Member, MembershipChange, NodeFacts, Offer, RaftId, Refusal, Role, StoreId};

/// Adds up what it is given: enough to see what was applied, in which order.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Journal {
    lines: Vec<String>,
    members: Vec<u64>,
}

impl Machine for Journal {
    type Outcome = usize;
    type State = Self;
    fn apply(&mut self, (_index, _): (u64, u64), data: &[u8]) -> Result<usize, String> {
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
pub(crate) struct Disk(Rc<RefCell<(Durable, Durable)>>);

impl Disk {
    /// Entries of the log that the disk holds, and those of them that are synced.
    pub(crate) fn entries(&self) -> (usize, usize) {
        let (cached, durable) = &*self.0.borrow();
        (cached.entries.len(), durable.entries.len())
    }

    fn crash(&self) -> Durable {
        let (cached, durable) = &mut *self.0.borrow_mut();
        cached.clone_from(durable);
        durable.clone()
    }

    fn write(&self, batch: &LogWrite) {
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
    }
}

pub(crate) type Node = Consensus<Journal>;

pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) disks: BTreeMap<u64, Disk>,
    pub(crate) cut: BTreeSet<u64>,
    pub(crate) in_flight: Vec<(u64, Outgoing)>,
    pub(crate) applied: BTreeMap<u64, Vec<(u64, Option<u64>)>>,
    pub(crate) reads: BTreeMap<u64, Vec<u64>>,
    incarnation: u64,
    limits: Limits,
    pub(crate) trace: Vec<(u64, u64, usize)>,
}

impl Cluster {
    pub(crate) fn new(voters: u64) -> Self {
        Self::with_limits(voters, Limits::default())
    }

    pub(crate) fn with_limits(voters: u64, limits: Limits) -> Self {
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

    pub(crate) fn start(&mut self, id: u64) {
        let durable = self.disks.entry(id).or_default().crash();
        self.incarnation += 1;
        let config = ConsensusConfig {
            raft_id: RaftId(id),
            incarnation: self.incarnation,
            seed: 7,
            limits: self.limits,
        };
        let node = Consensus::new(config, &durable, Journal::default()).expect("the disk is whole");
        self.nodes.insert(id, node);
    }

    pub(crate) fn crash(&mut self, id: u64) {
        self.nodes.remove(&id);
        self.in_flight.retain(|(from, _)| *from != id);
    }

    pub(crate) fn absorb(&mut self, id: u64, effects: Effects<usize>) {
        self.in_flight.extend(effects.messages.into_iter().map(|message| (id, message)));
        self.applied.entry(id).or_default().extend(effects.applied.iter().map(|a| (a.index, a.key)));
        self.reads.entry(id).or_default().extend(effects.reads);
    }

    /// All of a pump: what it gives is not sent yet.
    pub(crate) fn effects(&mut self, id: u64) -> Effects<usize> {
        let node = self.nodes.get_mut(&id).expect("up");
        let mut effects = node.pump().expect("goes on");
        while let Some(write) = effects.write.take() {
            self.disks[&id].write(&write);
            effects.extend(node.written().expect("goes on"));
        }
        effects
    }

    pub(crate) fn pump(&mut self, id: u64) {
        let effects = self.effects(id);
        self.absorb(id, effects);
    }

    /// Delivers everything in flight until nothing moves.
    pub(crate) fn settle(&mut self) {
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

    pub(crate) fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.nodes.values_mut().for_each(Consensus::tick);
            self.settle();
        }
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        let leads = |(id, node): (&u64, &Node)| (node.leads() && !self.cut.contains(id)).then_some(*id);
        self.nodes.iter().find_map(leads)
    }

    /// Ticks until there is a leader that has committed in its term.
    pub(crate) fn elect(&mut self) -> u64 {
        for _ in 0..200 {
            self.tick(1);
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("no leader within 200 ticks");
    }

    pub(crate) fn propose(&mut self, id: u64, text: &str) -> Option<u64> {
        let key = self.nodes.get_mut(&id)?.propose(text.as_bytes().to_vec()).ok()?;
        self.settle();
        Some(key)
    }

    pub(crate) fn lines(&self, id: u64) -> &[String] {
        &self.nodes[&id].machine().lines
    }

    pub(crate) fn acked(&self, id: u64, key: u64) -> bool {
        self.applied[&id].iter().any(|(_, k)| *k == Some(key))
    }
}

pub(crate) fn member(id: u64) -> Member {
    Member {
        raft_id: RaftId(id),
        node: NodeFacts {
            name: format!("n{id}").parse().expect("name"),
            endpoint_id: EndpointId::from_bytes([id as u8; 32]),
            store_id: StoreId::from_bytes([id as u8; 16]),
            offer: Offer {
                addresses: Vec::new(),
                relay_url: None,
                capacity: None,
                witness: false,
                ..Offer::default()
            },
        },
        role: Role::Learner,
    }
}

pub(crate) fn vote_request(from: u64, to: u64, term: u64) -> Vec<u8> {
    use protobuf::Message as _;
    let mut message = raft::eraftpb::Message { from, to, term, log_term: 1, index: 1, ..Default::default() };
    message.set_msg_type(raft::eraftpb::MessageType::MsgRequestVote);
    message.write_to_bytes().expect("encodes")
}
