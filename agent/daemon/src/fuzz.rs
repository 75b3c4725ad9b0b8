//! Hostile bytes for what the agent reads back from its log and its snapshots.

use blixard_consensus::Machine;
use blixard_core::ClusterState;
use blixard_hostile::Target;
use blixard_model::formation::Genesis;
use blixard_model::{Capacity, ClusterVersion, EndpointId, NodeFacts, Offer, StoreId};
use blixard_node::{StateMachine, encode_request, encode_state};

fn state() -> ClusterState {
    let voter = |n: u8| NodeFacts {
        name: format!("n{n}").parse().expect("name"),
        endpoint_id: EndpointId::from_bytes([n; 32]),
        store_id: StoreId::from_bytes([n; 16]),
        offer: Offer {
            addresses: vec![format!("192.0.2.{n}:7431").parse().expect("address")],
            relay_url: None,
            capacity: Some(Capacity { cpus: 4, memory_mib: 4096 }),
            witness: false,
            ..Offer::default()
        },
    };
    let genesis = Genesis {
        cluster_name: "lab".parse().expect("name"),
        voters: vec![voter(1), voter(2)],
        origin: None,
        version: ClusterVersion::NEWEST,
    };
    let mut state = ClusterState::new(genesis);
    state.apply(2, &request());
    state
}

fn request() -> blixard_model::Request {
    let text = r#"{"id":"r1","command":{"kind":"create_vm","spec":{"name":"web","cpus":1,"memory_mib":256,
        "kernel":"/k","disks":[{"path":"/d/a"}]},"desired":"running","eligible":["n1"]}}"#;
    serde_json::from_str(text).expect("request")
}

#[test]
fn fuzz_log_values() {
    let target = Target::new("log-values").valid(encode_request(&request())).heap_max(8 << 20);
    target.words(["\"kind\":", "\"name\":\"web\"", "\"command\":", "\u{1}", "\u{2}", "null", "[", "{"]).run(
        |bytes| {
            let mut machine = StateMachine::new(state());
            match machine.apply((3, 1), bytes) {
                Ok(outcome) => format!("{outcome:?}"),
                Err(why) => {
                    assert_eq!(machine.0, state(), "changed by what it does not understand");
                    why
                }
            }
        },
    );
}

#[test]
fn fuzz_snapshots() {
    let target = Target::new("snapshots").valid(encode_state(&state())).heap_max(16 << 20);
    target.words(["\"format\":1", "\"format\":2", "\"vms\":{", "\"requests\":", "null", "[", "{", "}"]).run(
        |bytes| {
            let mut machine = StateMachine::new(state());
            match machine.read_snapshot(bytes) {
                Ok(read) => {
                    machine.restore(read);
                    // What was restored can be kept again, and goes on.
                    let kept = machine.snapshot();
                    assert!(machine.read_snapshot(&kept).is_ok());
                    machine
                        .apply((u64::MAX, 1), &encode_request(&request()))
                        .map_or_else(|why| why, |o| format!("{o:?}"))
                }
                Err(why) => {
                    assert_eq!(machine.0, state(), "changed by what it does not understand");
                    why
                }
            }
        },
    );
}
