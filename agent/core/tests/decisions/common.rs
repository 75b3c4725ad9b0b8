//! Clusters and specs to decide about.

use std::net::SocketAddr;

use blixard_core::ClusterState;
use blixard_core::declared::DeclaredMember;
use blixard_model::formation::{Genesis, Identity, Phase};
use blixard_model::{
    Capacity, ClusterVersion, Command, Desired, EndpointId, Hypervisor, NodeFacts, NodeName, Offer, Outcome,
    Request, RestartPolicy, StoreId, VmName, VmSpec,
};

pub(crate) fn name(text: &str) -> VmName {
    text.parse().expect("a VM name")
}

pub(crate) fn node(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

pub(crate) fn endpoint(n: u8) -> EndpointId {
    EndpointId::from_bytes([n; 32])
}

pub(crate) fn store(n: u8) -> StoreId {
    StoreId::from_bytes([n; 16])
}

pub(crate) fn spec(vm: &str) -> VmSpec {
    VmSpec {
        name: name(vm),
        cpus: 1,
        memory_mib: 256,
        kernel: "/k".into(),
        initrd: None,
        cmdline: String::new(),
        disks: Vec::new(),
        node: None,
        hypervisor: Hypervisor::Qemu,
        restart: RestartPolicy::Always,
        on_node_loss: None,
    }
}

/// Where node `n` is.
pub(crate) fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 77, 0, n], 7431))
}

/// What every node offers.
pub(crate) const CAPACITY: Capacity = Capacity { cpus: 4, memory_mib: 2048 };

pub(crate) fn declared(count: u8) -> Vec<DeclaredMember> {
    let member = |n| DeclaredMember {
        name: node(&format!("n{n}")),
        endpoint_id: endpoint(n),
        addresses: vec![address(n)],
    };
    (1..=count).map(member).collect()
}

pub(crate) fn genesis(count: u8) -> Genesis {
    let voter = |member: DeclaredMember| NodeFacts {
        name: member.name,
        endpoint_id: member.endpoint_id,
        store_id: store(member.endpoint_id.as_bytes()[0]),
        offer: Offer {
            addresses: member.addresses,
            relay_url: None,
            capacity: Some(CAPACITY),
            witness: false,
            ..Offer::default()
        },
    };
    Genesis {
        origin: None,
        version: ClusterVersion::NEWEST,
        cluster_name: "lab".parse().expect("a cluster name"),
        voters: declared(count).into_iter().map(voter).collect(),
    }
}

/// Node `n` with an empty store.
pub(crate) fn empty(n: u8, store_id: u8, promise: Option<Genesis>) -> Identity {
    Identity {
        node: NodeFacts {
            name: node(&format!("n{n}")),
            endpoint_id: endpoint(n),
            store_id: store(store_id),
            offer: Offer {
                addresses: vec![address(n)],
                relay_url: None,
                capacity: Some(CAPACITY),
                witness: false,
                ..Offer::default()
            },
        },
        supports: ClusterVersion::NEWEST,
        phase: Phase::Empty { promise },
    }
}

/// A state, and what feeds it.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) state: ClusterState,
    pub(crate) eligible: Vec<NodeName>,
    index: u64,
    requests: u64,
}

impl Cluster {
    /// Nodes n1.. with 4 cpus and 2048 MiB each.
    pub(crate) fn of(count: u8) -> Self {
        let state = ClusterState::new(genesis(count));
        let eligible: Vec<NodeName> = (1..=count).map(|n| node(&format!("n{n}"))).collect();
        Self { state, eligible, index: 1, requests: 0 }
    }

    /// What a member says that becomes a witness.
    pub(crate) fn witness_offer(&self, n: u8) -> Command {
        let member = self.state.member_by_endpoint(endpoint(n)).expect("a member");
        let offer = Offer { witness: true, ..member.node.offer.clone() };
        Command::SetNode { endpoint_id: endpoint(n), offer }
    }

    /// The index of the last entry.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// The log goes on from this index, as that of a cluster does that was made of another one's state. Its
    /// requests are others.
    pub(crate) fn go_on_from(&mut self, index: u64) {
        (self.index, self.requests) = (index, 1_000);
    }

    /// A member offers something else, whatever a check would say.
    pub(crate) fn change_offer(&mut self, n: u8, change: impl FnOnce(&mut Offer)) {
        let mut offer = self.state.member_by_endpoint(endpoint(n)).expect("a member").node.offer.clone();
        change(&mut offer);
        assert!(self.state.nodes.set_offer(endpoint(n), &offer), "it is the same");
    }

    pub(crate) fn request(&mut self, command: Command) -> Request {
        self.requests += 1;
        Request { id: format!("r{}", self.requests).parse().expect("a request id"), command }
    }

    pub(crate) fn apply_request(&mut self, request: &Request) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, request)
    }

    pub(crate) fn apply(&mut self, command: Command) -> Outcome {
        let request = self.request(command);
        self.apply_request(&request)
    }

    pub(crate) fn create(&mut self, spec: VmSpec) -> Outcome {
        let eligible = self.eligible.clone();
        self.apply(Command::CreateVm { spec, desired: Desired::Running, eligible })
    }
}
