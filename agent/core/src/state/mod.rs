//! What the log adds up to.
//!
//! [`ClusterState`] is the replicated state machine: the same entries give the same state on every node, byte
//! for byte. A member's role in it is the one that Raft's configuration gives it: every change sets both.

mod apply;
mod held;
mod holds;
mod lease_table;
mod leases;
pub mod member_check;
mod membership;
mod node_lost;
mod nodes;
mod record;
mod requests;
mod shared_disks;
mod tickets;

use std::collections::BTreeMap;

use blixard_model::formation::Genesis;
use blixard_model::removal::RemovedNode;
use blixard_model::{
    Capacity, ClusterId, ClusterVersion, EndpointId, Member, NodeName, RaftId, Role, TicketId, TicketRecord,
    VmName, mutant,
};
use serde::{Deserialize, Serialize};

pub use held::{HELD_DISKS_MAX, HeldSpec};
pub use lease_table::{DisarmedCluster, LeaseHold, LeaseHolder, LeaseTable};
pub use nodes::{Availability, DamagedNodes, MemberRef, NodeRecord, NodeRef, NodeTable};
pub use record::VmRecord;
pub use requests::{REQUESTS_MAX, RequestTable};

/// Most VMs of one cluster.
pub const VMS_MAX: usize = 10_000;

/// The replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "StateForm", into = "StateForm")]
pub struct ClusterState {
    /// How the cluster was born; its digest is the cluster id.
    pub genesis: Genesis,
    /// What the log may hold from here on; never lower than that of the genesis.
    pub version: ClusterVersion,
    /// The nodes that are in the cluster or were, and the members among them.
    pub nodes: NodeTable,
    /// The raft id that the next member gets. Every id below was given once and is never given again.
    pub next_raft_id: RaftId,
    /// The VMs by name.
    pub vms: BTreeMap<VmName, VmRecord>,
    /// The tickets by id: those that are open, and the last that have ended.
    pub tickets: BTreeMap<TicketId, TicketRecord>,
    /// The outcomes of recent requests.
    pub requests: RequestTable,
    /// Who runs VMs that may be failed over only under a lease.
    pub leases: LeaseTable,
}

/// The state as a snapshot has it.
#[derive(Serialize, Deserialize)]
struct StateForm {
    genesis: Genesis,
    #[serde(default, skip_serializing_if = "ClusterVersion::is_first")]
    version: ClusterVersion,
    members: BTreeMap<RaftId, Member>,
    next_raft_id: RaftId,
    vms: BTreeMap<VmName, VmRecord>,
    #[serde(default)]
    tickets: BTreeMap<TicketId, TicketRecord>,
    #[serde(default)]
    removed: BTreeMap<EndpointId, RemovedNode>,
    requests: RequestTable,
    #[serde(default, skip_serializing_if = "LeaseTable::is_empty")]
    leases: LeaseTable,
}

impl TryFrom<StateForm> for ClusterState {
    type Error = DamagedNodes;
    fn try_from(form: StateForm) -> Result<Self, DamagedNodes> {
        let StateForm { genesis, version, members, next_raft_id, vms, tickets, removed, requests, leases } =
            form;
        let nodes = NodeTable::from_forms(members, removed)?;
        Ok(Self { genesis, version, nodes, next_raft_id, vms, tickets, requests, leases })
    }
}

impl From<ClusterState> for StateForm {
    fn from(state: ClusterState) -> Self {
        let ClusterState { genesis, version, nodes, next_raft_id, vms, tickets, requests, leases } = state;
        let (members, removed) = (nodes.members_form(), nodes.removed_form());
        Self { genesis, version, members, next_raft_id, vms, tickets, removed, requests, leases }
    }
}

impl ClusterState {
    /// The state of a cluster that was just formed.
    pub fn new(genesis: Genesis) -> Self {
        let mut nodes = NodeTable::default();
        for (raft_id, voter) in (1..).map(RaftId).zip(&genesis.voters) {
            nodes.admit(Member { raft_id, node: voter.clone(), role: Role::Voter });
        }
        let next_raft_id = RaftId(genesis.voters.len() as u64 + 1);
        let mut state = Self {
            version: genesis.version,
            genesis,
            nodes,
            next_raft_id,
            vms: BTreeMap::new(),
            tickets: BTreeMap::new(),
            requests: RequestTable::default(),
            leases: LeaseTable::default(),
        };
        state.refresh_leases(true);
        state
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        crate::genesis::cluster_id(&self.genesis)
    }

    /// Tells the orders of this cluster from those of the one whose state it was made of, and from those of
    /// another cluster made of the same state: the indices of their logs repeat. 0 if it was made of none,
    /// and before version 4 of the cluster.
    pub fn lineage(&self) -> u32 {
        let is_known = self.version >= ClusterVersion::HOLDS;
        if self.genesis.origin.is_none() || !is_known || mutant::lives("indices-repeat") {
            return 0;
        }
        let id = self.cluster_id();
        let [a, b, c, d, ..] = *id.as_bytes();
        u32::from_be_bytes([a, b, c, d]).max(1)
    }

    /// Whether a raft id was given to a member that has left since: it never comes back.
    pub fn has_left(&self, raft_id: RaftId) -> bool {
        raft_id < self.next_raft_id && !self.nodes.has_member(raft_id)
    }

    /// The member with this identity.
    pub fn member_by_endpoint(&self, endpoint_id: EndpointId) -> Option<MemberRef<'_>> {
        self.nodes.member_by_endpoint(endpoint_id)
    }

    /// Whether an operator removed or gave up the node of this name, and none has taken its place.
    pub fn is_removed(&self, name: &NodeName) -> bool {
        self.member_by_name(name).is_none()
            && self.nodes.departed().any(|(_, departed)| departed.name == *name)
    }

    /// Whether an operator removed this endpoint, so that nobody lets it in. One that was only given up when
    /// a new cluster was made of an old one may come back with an empty store.
    pub fn is_kept_out(&self, endpoint_id: EndpointId) -> bool {
        self.nodes.get(endpoint_id).is_some_and(|node| node.availability == Availability::Removed)
    }

    /// The member of this name.
    pub fn member_by_name(&self, name: &NodeName) -> Option<MemberRef<'_>> {
        self.nodes.member_by_name(name)
    }

    /// The resources that the node of this name offers; none if it has not registered them or is no member.
    pub fn capacity_of(&self, name: &NodeName) -> Option<Capacity> {
        self.member_by_name(name)?.node.offer.capacity
    }

    /// The resources of a node that placements reserve, and the number of those VMs.
    pub fn reserved(&self, node: &NodeName) -> (Capacity, usize) {
        self.placed_on(node).fold((Capacity::default(), 0), |(sum, count), vm| {
            let cpus = sum.cpus.saturating_add(vm.reserved_cpus());
            let memory_mib = sum.memory_mib.saturating_add(vm.reserved_memory_mib());
            (Capacity { cpus, memory_mib }, count + 1)
        })
    }

    /// The VMs placed on a node, by name.
    pub fn placed_on<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a VmRecord> + 'a {
        self.vms.values().filter(move |vm| vm.placement.node == *node)
    }
}
