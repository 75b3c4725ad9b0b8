//! A few nodes in memory whose frames are carried by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use blixard_consensus::{Consensus, ConsensusConfig, Durable, Limits, LogWrite, genesis_snapshot};
use blixard_core::ClusterState;
use blixard_core::declared::DeclaredMember;
use blixard_core::genesis::cluster_id;
use blixard_model::formation::{Genesis, Identity, Phase};
use blixard_model::{
    Capacity, ClusterVersion, Desired, EndpointId, Hypervisor, NodeFacts, NodeName, Offer, RaftId,
    RestartPolicy, StoreId, VmSpec, WriteAsk, WriteRequest,
};
use blixard_node::{
    AttemptEnd, Envelope, Node, NodeConfig, NodeError, Notice, StateMachine, Told, Turn, Waits, encode_state,
};

/// A whole turn, with everything that it has to be durable written.
pub(crate) fn whole_turn(node: &mut TestNode, mut write: impl FnMut(&LogWrite)) -> Turn<Waiter, Waiter> {
    let mut whole = node.turn().expect("goes on");
    while let Some(asked) = whole.write.take() {
        write(&asked);
        let next = node.written().expect("goes on");
        whole.sends.extend(next.sends);
        whole.answers.extend(next.answers);
        whole.reads.extend(next.reads);
        whole.notices.extend(next.notices);
        whole.write = next.write;
    }
    whole
}

/// Who waits for an answer, and whether it hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) name: &'static str,
    pub(crate) gave_up: bool,
}

impl Waits for Waiter {
    fn gave_up(&self) -> bool {
        self.gave_up
    }
}

pub(crate) fn waiter(name: &'static str) -> Waiter {
    Waiter { name, gave_up: false }
}

pub(crate) type TestNode = Node<Waiter, Waiter>;

pub(crate) fn endpoint(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 32])
}

pub(crate) fn store(n: u8) -> StoreId {
    StoreId::from_bytes([n; 16])
}

pub(crate) fn name(n: u8) -> NodeName {
    format!("n{n}").parse().expect("a name")
}

pub(crate) fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 77, 0, n], 7431))
}

pub(crate) const CAPACITY: Capacity = Capacity { cpus: 4, memory_mib: 2048 };

pub(crate) fn declared(count: u8) -> Vec<DeclaredMember> {
    let member = |n| DeclaredMember { name: name(n), endpoint_id: endpoint(n), addresses: vec![address(n)] };
    (1..=count).map(member).collect()
}

pub(crate) fn genesis(count: u8) -> Genesis {
    let voter = |n| NodeFacts {
        name: name(n),
        endpoint_id: endpoint(n),
        store_id: store(n),
        offer: Offer {
            addresses: vec![address(n)],
            relay_url: None,
            capacity: Some(CAPACITY),
            witness: false,
            ..Offer::default()
        },
    };
    Genesis {
        cluster_name: "lab".parse().expect("a cluster name"),
        voters: (1..=count).map(voter).collect(),
        origin: None,
        version: ClusterVersion::NEWEST,
    }
}

/// Node `n` with this store, in this phase.
pub(crate) fn identity(n: u8, store_id: StoreId, phase: Phase) -> Identity {
    Identity {
        node: NodeFacts {
            name: name(n),
            endpoint_id: endpoint(n),
            store_id,
            offer: Offer {
                addresses: vec![address(n)],
                relay_url: None,
                capacity: Some(CAPACITY),
                witness: false,
                ..Offer::default()
            },
        },
        supports: ClusterVersion::NEWEST,
        phase,
    }
}

/// A request that makes a VM, on this node if one is given.
pub(crate) fn create(vm: &str, on: Option<u8>) -> WriteRequest {
    let spec = VmSpec {
        name: vm.parse().expect("a VM name"),
        cpus: 1,
        memory_mib: 256,
        kernel: "/k".into(),
        initrd: None,
        cmdline: String::new(),
        disks: Vec::new(),
        node: on.map(name),
        hypervisor: Hypervisor::Qemu,
        on_node_loss: None,
        restart: RestartPolicy::Always,
    };
    let ask = WriteAsk::CreateVm { spec, desired: Desired::Running };
    WriteRequest { id: format!("create-{vm}").parse().expect("a request id"), ask }
}

/// Nodes n1.. of one cluster, with raft ids 1... A cut node hears and is heard of nothing.
pub(crate) struct Group {
    pub(crate) nodes: BTreeMap<u8, TestNode>,
    pub(crate) cut: BTreeSet<u8>,
    pub(crate) answers: Vec<(u8, &'static str, AttemptEnd)>,
    pub(crate) reads: Vec<(u8, &'static str)>,
    pub(crate) notices: Vec<(u8, Notice)>,
    voters: u8,
}

impl Group {
    pub(crate) fn of(voters: u8) -> Self {
        let mut group = Self {
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            answers: Vec::new(),
            reads: Vec::new(),
            notices: Vec::new(),
            voters,
        };
        (1..=voters).for_each(|n| group.start(n));
        group
    }

    /// Begins a node as it was at the cluster's birth: the first time, and when its disk went back to then.
    pub(crate) fn start(&mut self, n: u8) {
        let genesis = genesis(self.voters);
        let state = ClusterState::new(genesis.clone());
        let ids: Vec<RaftId> = state.nodes.raft_ids().collect();
        let (snapshot, hard_state) = genesis_snapshot(&ids, encode_state(&state));
        let durable = Durable { hard_state, snapshot: Some(snapshot), entries: Vec::new() };
        let config =
            ConsensusConfig { raft_id: RaftId(n.into()), incarnation: 1, seed: 7, limits: Limits::default() };
        let raft = Consensus::new(config, &durable, StateMachine::new(state)).expect("whole");
        let config = NodeConfig {
            voter_lost_ticks: 600,
            supports: ClusterVersion::NEWEST,
            cluster_id: cluster_id(&genesis),
            name: name(n),
            declared: declared(self.voters),
        };
        self.nodes.insert(n, Node::new(config, Told::default(), raft));
    }

    /// Begins a node that was admitted, with nothing of the log.
    pub(crate) fn start_admitted(&mut self, n: u8) {
        let genesis = genesis(self.voters);
        let state = StateMachine::new(ClusterState::new(genesis.clone()));
        let config =
            ConsensusConfig { raft_id: RaftId(n.into()), incarnation: 1, seed: 7, limits: Limits::default() };
        let raft = Consensus::new(config, &Durable::default(), state).expect("whole");
        let config = NodeConfig {
            cluster_id: cluster_id(&genesis),
            name: name(n),
            declared: Vec::new(),
            voter_lost_ticks: 600,
            supports: ClusterVersion::NEWEST,
        };
        self.nodes.insert(n, Node::new(config, Told::default(), raft));
    }

    pub(crate) fn node(&mut self, n: u8) -> &mut TestNode {
        self.nodes.get_mut(&n).expect("there")
    }

    /// A turn of one node; what it sends is returned, everything else noted.
    pub(crate) fn turn(&mut self, n: u8) -> Vec<Envelope> {
        let turn = whole_turn(self.node(n), |_| {});
        self.answers.extend(turn.answers.into_iter().map(|(waiter, result)| (n, waiter.name, result)));
        self.reads.extend(turn.reads.into_iter().map(|waiter| (n, waiter.name)));
        self.notices.extend(turn.notices.into_iter().map(|notice| (n, notice)));
        turn.sends
    }

    /// Carries frames until there are none.
    pub(crate) fn settle(&mut self) {
        self.try_settle().expect("nobody has to end");
    }

    /// Carries frames until there are none, or a node has to end.
    pub(crate) fn try_settle(&mut self) -> Result<(), NodeError> {
        loop {
            let numbers: Vec<u8> = self.nodes.keys().copied().collect();
            let sends: Vec<(u8, Envelope)> = numbers
                .into_iter()
                .flat_map(|n| self.turn(n).into_iter().map(move |send| (n, send)))
                .collect();
            if sends.is_empty() {
                return Ok(());
            }
            for (from, send) in sends {
                let to = send.to.as_bytes()[0];
                let lost =
                    self.cut.contains(&from) || self.cut.contains(&to) || !self.nodes.contains_key(&to);
                if send.is_snapshot {
                    self.node(from).report_snapshot(send.member, !lost);
                }
                if !lost {
                    self.node(to).handle_raft(endpoint(from), &send.frame, send.is_snapshot)?;
                }
            }
        }
    }

    pub(crate) fn tick(&mut self, times: usize) {
        for _ in 0..times {
            self.nodes.values_mut().for_each(TestNode::tick);
            self.settle();
        }
    }

    /// Ticks until it is so.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..200 {
            if holds(self) {
                return;
            }
            self.tick(1);
        }
        panic!("not within 200 ticks: {what}");
    }

    /// Ticks until one that is not cut leads.
    pub(crate) fn leader(&mut self) -> u8 {
        let of = |group: &Self| {
            let mut free = group.nodes.iter().filter(|(n, _)| !group.cut.contains(n));
            free.find(|(_, node)| node.summary().leads).map(|(n, _)| *n)
        };
        self.until("a leader", |group| of(group).is_some());
        of(self).expect("leads")
    }

    /// One that does not lead.
    pub(crate) fn follower(&mut self) -> u8 {
        let leader = self.leader();
        *self.nodes.keys().find(|n| **n != leader).expect("more than one")
    }

    /// What this waiter was answered.
    pub(crate) fn answer(&self, waiter: &str) -> Option<&AttemptEnd> {
        self.answers.iter().find(|(_, name, _)| *name == waiter).map(|(_, _, result)| result)
    }
}
