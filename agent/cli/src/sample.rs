//! Views to test with.

use blixard_model::RestartPolicy;
use blixard_model::TicketState;
use blixard_model::api::{
    ChangeView, Listing, NodePhase, NodeView, StatusView, TicketView, VmView, VotersView,
};
use blixard_model::id::{ClusterId, EndpointId, RaftId, StoreId, TicketId};
use blixard_model::member::Role;
use blixard_model::node::Capacity;
use blixard_model::report::ObservedState;
use blixard_model::vm::{Desired, Disk, Hypervisor, VmSpec};
use blixard_model::{ClusterVersion, LeaseTerms};

/// A VM that runs on n1.
pub(crate) fn vm(name: &str) -> VmView {
    VmView {
        name: name.parse().expect("name"),
        desired: Desired::Running,
        state: ObservedState::Running,
        node: "n1".parse().expect("name"),
        generation: 12,
        revision: 0,
        main_pid: Some(4312),
        reason: None,
        observed_age_ms: Some(400),
        stopped: None,
        last_end: None,
        spec: VmSpec {
            name: name.parse().expect("name"),
            cpus: 1,
            memory_mib: 256,
            kernel: "/boot/vmlinux".into(),
            initrd: None,
            cmdline: String::new(),
            disks: vec![Disk { path: "/d/web.raw".into(), read_only: false }],
            node: None,
            hypervisor: Hypervisor::Qemu,
            on_node_loss: None,
            restart: RestartPolicy::Always,
        },
    }
}

/// A voter that is up and leads nothing.
pub(crate) fn node(name: &str) -> NodeView {
    NodeView {
        name: name.parse().expect("name"),
        endpoint_id: EndpointId::from_bytes([0xab; 32]),
        raft_id: RaftId(1),
        store_id: StoreId::from_bytes([0xcd; 16]),
        role: Role::Voter,
        leader: false,
        reachable: true,
        addresses: vec!["10.77.0.1:7431".parse().expect("address")],
        relay_url: None,
        capacity: Some(Capacity { cpus: 4, memory_mib: 2048 }),
        reserved: Capacity { cpus: 1, memory_mib: 448 },
        vms: 1,
        witness: false,
        unreachable_for_ms: None,
        silent_for_ms: None,
        behind: Some(0),
        snapshot: false,
        lost: false,
        held_twice_at: Vec::new(),
        lease: None,
        shared_dirs: Vec::new(),
        fences: None,
    }
}

/// A ticket in this state, that has or had half an hour left.
pub(crate) fn ticket(state: TicketState) -> TicketView {
    TicketView {
        id: TicketId::from_bytes([0xab; 8]),
        name: None,
        state,
        expires_ms: 1_795_000_000_000,
        expires_in_ms: 1_800_000,
    }
}

/// A list that a quorum confirmed.
pub(crate) fn listing<T>(items: Vec<T>) -> Listing<T> {
    Listing { items, linearizable: true, applied: 17, disarmed: None }
}

/// A member of a cluster of two.
pub(crate) fn status() -> StatusView {
    StatusView {
        ticket_problem: None,
        node: "n1".parse().expect("name"),
        endpoint_id: EndpointId::from_bytes([0xab; 32]),
        store_id: StoreId::from_bytes([0xcd; 16]),
        version: "0.1.0".into(),
        cluster_name: "lab".parse().expect("name"),
        phase: NodePhase::Member,
        waiting_for: Vec::new(),
        cluster_id: Some(ClusterId::from_bytes([0xef; 16])),
        cluster_version: Some(ClusterVersion::NEWEST),
        leader: Some("n2".parse().expect("name")),
        quorum: true,
        term: 4,
        commit: 17,
        applied: 17,
        last_term: 4,
        last_index: 17,
        members: vec![node("n1"), node("n2")],
        vms: 1,
        warnings: Vec::new(),
        retrying: Vec::new(),
        voters: Some(VotersView { total: 2, reachable: 2, needed: 2 }),
        changes: Vec::new(),
        lease: None,
        lease_terms: Some(LeaseTerms::DEFAULT.into()),
        disarmed: None,
    }
}

/// A change of the members.
pub(crate) fn change(what: &str, waits_for: Option<&str>) -> ChangeView {
    ChangeView { what: what.to_owned(), waits_for: waits_for.map(str::to_owned) }
}
