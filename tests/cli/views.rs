//! Answers of an agent, to test with.

use blixard_model::api::{Accepted, Listing, NodePhase, NodeView, StatusView, VmView, VotersView};
use blixard_model::id::{ClusterId, EndpointId, RaftId, StoreId};
use blixard_model::member::Role;
use blixard_model::node::Capacity;
use blixard_model::report::ObservedState;
use blixard_model::vm::{Desired, Hypervisor, VmSpec};
use blixard_model::{ClusterVersion, RestartPolicy};

/// A VM on n1, observed just now.
pub(crate) fn vm(name: &str, desired: Desired, state: ObservedState) -> VmView {
    VmView {
        name: name.parse().expect("name"),
        desired,
        state,
        node: "n1".parse().expect("name"),
        generation: 12,
        revision: 0,
        main_pid: (state == ObservedState::Running).then_some(4312),
        reason: None,
        observed_age_ms: Some(0),
        stopped: None,
        last_end: None,
        spec: VmSpec {
            name: name.parse().expect("name"),
            cpus: 1,
            memory_mib: 256,
            kernel: "/boot/vmlinux".into(),
            initrd: None,
            cmdline: String::new(),
            disks: Vec::new(),
            node: None,
            hypervisor: Hypervisor::Qemu,
            on_node_loss: None,
            restart: RestartPolicy::Always,
        },
    }
}

/// A voter that is the leader.
pub(crate) fn node(name: &str) -> NodeView {
    NodeView {
        name: name.parse().expect("name"),
        endpoint_id: EndpointId::from_bytes([0xab; 32]),
        raft_id: RaftId(1),
        store_id: StoreId::from_bytes([0xcd; 16]),
        role: Role::Voter,
        leader: true,
        reachable: true,
        addresses: vec!["10.77.0.1:7431".parse().expect("address")],
        relay_url: None,
        capacity: Some(Capacity { cpus: 4, memory_mib: 2048 }),
        reserved: Capacity::default(),
        vms: 0,
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

/// A list that was confirmed by a quorum.
pub(crate) fn listing<T>(items: Vec<T>) -> Listing<T> {
    Listing { items, linearizable: true, applied: 17, disarmed: None }
}

/// The status in a cluster of one node.
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
        leader: Some("n1".parse().expect("name")),
        quorum: true,
        term: 4,
        commit: 17,
        applied: 17,
        last_term: 4,
        last_index: 17,
        members: vec![node("n1")],
        vms: 0,
        warnings: vec!["n9 is listed but no member".into()],
        retrying: Vec::new(),
        voters: Some(VotersView { total: 1, reachable: 1, needed: 1 }),
        changes: Vec::new(),
        lease: None,
        lease_terms: None,
        disarmed: None,
    }
}

/// The answer to a committed write.
pub(crate) fn accepted() -> Accepted {
    Accepted {
        request_id: "r-1".parse().expect("id"),
        node: Some("n1".parse().expect("name")),
        unchanged: false,
    }
}
