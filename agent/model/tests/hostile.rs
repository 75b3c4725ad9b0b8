//! What a peer asks and answers, in bytes that no peer sends.

use blixard_hostile::{Target, strings};
use blixard_model::wire::{PeerRequest, PeerResponse};
use serde_json::json;

const ID: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const STORE: &str = "00112233445566778899aabbccddeeff";

fn identity() -> serde_json::Value {
    let voter =
        json!({"name": "n1", "endpoint_id": ID, "store_id": STORE, "addresses": ["[2001:db8::1]:7431"]});
    let genesis = json!({"cluster_name": "lab", "voters": [voter]});
    json!({
        "name": "n1", "endpoint_id": ID, "store_id": STORE, "addresses": ["192.0.2.1:7431"],
        "phase": {"phase": "formed", "cluster_id": STORE, "genesis": genesis, "your_raft_id": 7},
    })
}

fn questions() -> Vec<serde_json::Value> {
    let spec = json!({"name": "web", "cpus": 1, "memory_mib": 64, "kernel": "/k", "disks": [{"path": "/d"}]});
    let create = json!({"kind": "create_vm", "spec": spec, "desired": "running"});
    let vm = json!({"name": "web", "state": "failed", "main_pid": 4, "reason": "exited 1"});
    let report = json!({"node": "n1", "vms": [vm], "problem": "none"});
    vec![
        json!({"ask": "identify", "me": identity()}),
        json!({"ask": "propose", "request": {"id": "r1", "command": create}, "timeout_ms": 9}),
        json!({"ask": "report", "aged": {"report": report, "age_ms": 1}}),
        json!({"ask": "reports"}),
        json!({"ask": "logs", "name": "web", "lines": 3, "follow": true}),
    ]
}

#[test]
fn fuzz_peer_requests() {
    let mut target = Target::new("peer-requests").len_max(128 << 10).heap_max(16 << 20);
    for question in questions() {
        assert!(serde_json::from_value::<PeerRequest>(question.clone()).is_ok(), "{question}");
        target = target.valid(question.to_string());
    }
    for answer in [
        json!({"answer": "identity", "me": identity()}),
        json!({"answer": "proposed", "result": {"result": "not_leader", "leader": "n1"}}),
        json!({"answer": "reports", "reports": []}),
        json!({"answer": "declined", "why": "no"}),
    ] {
        assert!(serde_json::from_value::<PeerResponse>(answer.clone()).is_ok(), "{answer}");
        target = target.valid(answer.to_string());
    }
    target.words(["\"ask\":", "\"me\":{", "[", "]", "{", "}", ",", "null", "\\u0000", ID]).run(|bytes| {
        let request = serde_json::from_slice::<PeerRequest>(bytes);
        let response = serde_json::from_slice::<PeerResponse>(bytes);
        if let Ok(request) = &request {
            // Both sides understand the same: what is understood survives being written again.
            let again = serde_json::to_vec(request).expect("json");
            assert_eq!(serde_json::from_slice::<PeerRequest>(&again).expect("read back"), *request);
        }
        let words =
            |error: Option<serde_json::Error>| error.map_or("ok".to_owned(), |error| error.to_string());
        format!("{} {}", words(request.err()), words(response.err()))
    });
}

#[test]
fn no_hostile_name_gets_through_a_question() {
    for text in strings::names() {
        let console = json!({"ask": "logs", "name": text, "lines": 3, "follow": true});
        assert!(serde_json::from_value::<PeerRequest>(console).is_err(), "{text:?}");
        let report = json!({"node": text, "vms": []});
        let report = json!({"ask": "report", "aged": {"report": report, "age_ms": 1}});
        assert!(serde_json::from_value::<PeerRequest>(report).is_err(), "{text:?}");
        let mut me = identity();
        me["name"] = json!(text);
        assert!(
            serde_json::from_value::<PeerRequest>(json!({"ask": "identify", "me": me})).is_err(),
            "{text:?}"
        );
    }
}
