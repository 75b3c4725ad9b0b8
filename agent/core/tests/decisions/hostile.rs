//! Whatever stands in the log or in a snapshot gives an outcome, and the same one everywhere.

use blixard_core::ClusterState;
use blixard_hostile::{Target, strings};
use blixard_model::{
    Command, Desired, Disk, MembershipChange, NodeFacts, Offer, Outcome, RaftId, Refusal, Removal, Request,
    VmSpec,
};
use serde_json::{Value, json};

use crate::common::{Cluster, endpoint, name, node, spec, store};

/// A `create_vm` of a valid spec, as it stands in the log, with one field replaced.
fn create(field: &str, value: Value) -> Value {
    let mut spec = serde_json::to_value(spec("web")).expect("json");
    spec[field] = value;
    let command = json!({"kind": "create_vm", "spec": spec, "desired": "running", "eligible": ["n1"]});
    json!({"id": "r1", "command": command})
}

#[test]
fn no_hostile_name_is_a_request() {
    let valid = create("name", json!("web"));
    assert!(serde_json::from_value::<Request>(valid).is_ok());
    for text in strings::names() {
        let about = |kind: &str| json!({"id": "r1", "command": {"kind": kind, "name": text}});
        let gone = json!({"kind": "confirm_gone", "name": "web", "node": text, "generation": 1});
        let requests = [
            create("name", json!(text)),
            create("node", json!(text)),
            about("start_vm"),
            about("stop_vm"),
            about("delete_vm"),
            json!({"id": "r1", "command": gone}),
        ];
        for request in requests {
            let parsed = serde_json::from_value::<Request>(request.clone());
            assert!(parsed.is_err(), "{request}");
        }
    }
}

/// What applying a spec gives that never passed an API.
fn applied(change: impl FnOnce(&mut VmSpec)) -> Outcome {
    let mut cluster = Cluster::of(1);
    let mut spec = spec("web");
    change(&mut spec);
    let outcome = cluster.create(spec);
    assert_eq!(cluster.state.vms.is_empty(), matches!(outcome, Outcome::Refused { .. }));
    outcome
}

#[track_caller]
fn refused(outcome: &Outcome, text: &str) {
    let refused = matches!(outcome, Outcome::Refused { refusal: Refusal::InvalidSpec(_) });
    assert!(refused, "{text:?}: {outcome:?}");
}

#[test]
fn hostile_paths_and_command_lines_are_refused_on_apply() {
    assert!(matches!(applied(|spec| spec.initrd = Some("/srv/initrd".into())), Outcome::Done { .. }));
    for text in strings::paths() {
        refused(&applied(|spec| spec.kernel.clone_from(&text)), &text);
        refused(&applied(|spec| spec.initrd = Some(text.clone())), &text);
        refused(&applied(|spec| spec.disks = vec![Disk { path: text.clone(), read_only: true }]), &text);
    }
    for text in strings::command_lines() {
        refused(&applied(|spec| spec.cmdline.clone_from(&text)), &text);
    }
}

#[test]
fn no_raft_id_is_given_twice_not_even_the_last() {
    let mut state = Cluster::of(1).state;
    let member = |n: u8| blixard_model::Member {
        raft_id: RaftId(u64::MAX),
        node: NodeFacts {
            name: node(&format!("m{n}")),
            endpoint_id: endpoint(n + 100),
            store_id: store(n + 100),
            offer: Offer {
                addresses: vec![std::net::SocketAddr::from(([192, 0, 2, n + 100], 7431))],
                relay_url: None,
                capacity: None,
                witness: false,
                ..Offer::default()
            },
        },
        role: blixard_model::Role::Learner,
    };
    let change = MembershipChange::AddLearner { member: member(1), ticket: None };
    assert!(state.check_membership(&change, &[RaftId(1)]).is_err(), "no id would be left for the next");
    state.next_raft_id = RaftId(u64::MAX);
    assert!(state.check_membership(&change, &[RaftId(1)]).is_err());
}

/// Applies each line as what the log holds: a request, or a change of the members.
fn apply_lines(state: &mut ClusterState, bytes: &[u8]) -> String {
    let mut words = String::new();
    for (index, line) in (2..).zip(bytes.split(|byte| *byte == b'\n').take(32)) {
        words = if let Ok(change) = serde_json::from_slice::<MembershipChange>(line) {
            match state.check_membership(&change, &[RaftId(1), RaftId(2)]) {
                Ok(()) => {
                    state.apply_membership(&change);
                    "changed".to_owned()
                }
                Err(refusal) => refusal.to_string(),
            }
        } else {
            match serde_json::from_slice::<Request>(line) {
                Ok(request) => match state.apply(index, &request) {
                    Outcome::Done { unchanged, .. } => format!("done {unchanged}"),
                    Outcome::Refused { refusal } => refusal.to_string(),
                },
                Err(error) => error.to_string(),
            }
        };
    }
    words
}

fn requests() -> Vec<Vec<u8>> {
    let mut full = spec("web");
    full.disks = vec![Disk { path: "/d/web.raw".into(), read_only: false }];
    let vm = || name("web");
    let commands = [
        Command::CreateVm { spec: full, desired: Desired::Running, eligible: vec![node("n1"), node("n2")] },
        Command::StopVm { name: vm() },
        Command::StartVm { name: vm() },
        Command::DeleteVm { name: vm() },
        Command::ConfirmGone { name: vm(), node: node("n1"), generation: 2 },
        Command::SetNode {
            endpoint_id: endpoint(1),
            offer: Offer {
                addresses: vec!["192.0.2.1:7431".parse().expect("address")],
                relay_url: None,
                capacity: Some(blixard_model::Capacity { cpus: 4, memory_mib: 1 << 40 }),
                witness: false,
                ..Offer::default()
            },
        },
    ];
    let mut cluster = Cluster::of(3);
    commands.map(|command| serde_json::to_vec(&cluster.request(command)).expect("json")).into()
}

#[test]
fn fuzz_log_entries() {
    let requests = requests();
    let changes = [
        MembershipChange::Promote { raft_id: RaftId(3) },
        MembershipChange::Remove { raft_id: RaftId(2), why: Removal::LostStore },
    ];
    let mut target = Target::new("log-entries").valid(requests.join(&b'\n')).heap_max(8 << 20);
    for request in requests {
        target = target.valid(request);
    }
    for change in changes {
        target = target.valid(serde_json::to_vec(&change).expect("json"));
    }
    target.words(["\"kind\":", "\"name\":\"web\"", "\"node\":\"n1\"", "\n", "null", "\"r1\""]).run(|bytes| {
        let (mut one, mut other) = (Cluster::of(3).state, Cluster::of(3).state);
        let words = apply_lines(&mut one, bytes);
        assert_eq!(words, apply_lines(&mut other, bytes));
        assert_eq!(one, other, "replicas differ");
        let kept = serde_json::to_vec(&one).expect("json");
        assert_eq!(serde_json::from_slice::<ClusterState>(&kept).expect("read back"), one);
        words
    });
}
