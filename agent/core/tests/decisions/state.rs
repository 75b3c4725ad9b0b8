//! What commands do, and that the same commands do the same.

use crate::common::{Cluster, name, node, spec};
use blixard_core::state::REQUESTS_MAX;
use blixard_model::{Command, Desired, Outcome, Refusal};
use proptest::prelude::*;

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused { refusal } => refusal,
        done => panic!("not refused: {done:?}"),
    }
}

#[test]
fn a_vm_goes_to_the_least_loaded_node_and_ties_to_the_first_name() {
    let mut c = Cluster::of(3);
    for (vm, wanted) in [("a", "n1"), ("b", "n2"), ("c", "n3"), ("d", "n1")] {
        assert_eq!(c.create(spec(vm)), Outcome::done(Some(node(wanted))), "{vm}");
    }
}

#[test]
fn a_pin_is_obeyed_or_refused() {
    let mut c = Cluster::of(3);
    let mut pinned = spec("a");
    pinned.node = Some(node("n3"));
    assert_eq!(c.create(pinned.clone()), Outcome::done(Some(node("n3"))));
    pinned.name = name("b");
    pinned.node = Some(node("n9"));
    assert_eq!(refusal(c.create(pinned)), Refusal::NodeNotFound { node: node("n9") });
}

#[test]
fn what_does_not_fit_is_told_per_node() {
    let mut c = Cluster::of(3);
    c.eligible.pop();
    let mut large = spec("large");
    large.memory_mib = 4_000;
    large.cpus = 9;
    let text = refusal(c.create(large)).to_string();
    assert!(text.contains("n1: 2048 MiB of memory free, 4192 needed and 4 cpus free, 9 needed"), "{text}");
    assert!(text.contains("n3: not reachable"), "{text}");
}

#[test]
fn a_node_that_has_not_said_what_it_offers_gets_nothing() {
    let mut c = Cluster::of(1);
    c.change_offer(1, |offer| offer.capacity = None);
    let text = refusal(c.create(spec("a"))).to_string();
    assert!(text.contains("has not said yet what it offers"), "{text}");
}

#[test]
fn a_written_disk_belongs_to_one_vm_of_a_node() {
    let mut c = Cluster::of(1);
    let disk = |read_only| blixard_model::Disk { path: "/d/a.raw".into(), read_only };
    let mut first = spec("a");
    first.disks = vec![disk(false)];
    c.create(first);
    let mut second = spec("b");
    second.disks = vec![disk(true)];
    let text = refusal(c.create(second)).to_string();
    assert!(text.contains("disk /d/a.raw is in use by VM a"), "{text}");
}

#[test]
fn a_spec_is_checked_again_on_apply() {
    let mut c = Cluster::of(1);
    let mut wrong = spec("a");
    wrong.kernel = "../k".into();
    assert!(matches!(refusal(c.create(wrong)), Refusal::InvalidSpec(_)));
    assert!(c.state.vms.is_empty());
}

#[test]
fn start_and_stop_are_idempotent_and_need_a_vm() {
    let mut c = Cluster::of(1);
    let at = Some(node("n1"));
    c.create(spec("a"));
    assert_eq!(c.apply(Command::StartVm { name: name("a") }), Outcome::unchanged(at.clone()));
    assert_eq!(c.apply(Command::StopVm { name: name("a") }), Outcome::done(at.clone()));
    assert_eq!(c.apply(Command::StopVm { name: name("a") }), Outcome::unchanged(at));
    let missing = c.apply(Command::StopVm { name: name("b") });
    assert_eq!(refusal(missing), Refusal::VmNotFound { name: name("b") });
}

#[test]
fn a_deleted_vm_holds_name_disk_and_reservation_until_its_node_says_gone() {
    let mut c = Cluster::of(1);
    c.create(spec("a"));
    let generation = c.state.vms[&name("a")].placement.generation;
    c.apply(Command::DeleteVm { name: name("a") });
    assert!(matches!(refusal(c.create(spec("a"))), Refusal::VmDeleting { .. }));
    assert!(matches!(refusal(c.apply(Command::StartVm { name: name("a") })), Refusal::VmDeleting { .. }));
    assert_eq!(c.state.reserved(&node("n1")).1, 1);

    let gone = |node_name: &str, generation| Command::ConfirmGone {
        name: name("a"),
        node: node(node_name),
        generation,
    };
    c.apply(gone("n1", generation + 1));
    c.apply(gone("n2", generation));
    assert_eq!(c.state.vms.len(), 1, "another placement's word does not count");
    c.apply(gone("n1", generation));
    assert!(c.state.vms.is_empty());
    assert!(matches!(c.create(spec("a")), Outcome::Done { .. }));
}

#[test]
fn a_vm_that_shall_run_is_not_confirmed_away() {
    let mut c = Cluster::of(1);
    c.create(spec("a"));
    let generation = c.state.vms[&name("a")].placement.generation;
    c.apply(Command::ConfirmGone { name: name("a"), node: node("n1"), generation });
    assert_eq!(c.state.vms.len(), 1);
}

#[test]
fn the_same_request_is_applied_once() {
    let mut c = Cluster::of(3);
    let request = c.request(Command::CreateVm {
        spec: spec("a"),
        desired: Desired::Running,
        eligible: c.eligible.clone(),
    });
    let first = c.state.apply(10, &request);
    let mut again = request.clone();
    // The next leader may reach other nodes: it is the same request all the same.
    if let Command::CreateVm { eligible, .. } = &mut again.command {
        eligible.pop();
    }
    let before = c.state.clone();
    assert_eq!(c.state.apply(11, &again), first);
    assert_eq!(c.state, before);

    let mut other = request;
    other.command = Command::DeleteVm { name: name("a") };
    assert!(matches!(refusal(c.state.apply(12, &other)), Refusal::RequestIdReused { .. }));
}

#[test]
fn the_table_of_requests_is_bounded_and_forgets_the_oldest() {
    let mut c = Cluster::of(1);
    let first = c.request(Command::StopVm { name: name("a") });
    c.apply_request(&first);
    for _ in 0..REQUESTS_MAX {
        c.apply(Command::StopVm { name: name("a") });
    }
    assert_eq!(c.state.requests.len(), REQUESTS_MAX);
    c.create(spec("a"));
    assert!(matches!(c.apply_request(&first), Outcome::Done { .. }), "forgotten: it is a new request");
}

#[test]
fn a_snapshot_is_the_whole_state() {
    let mut c = Cluster::of(3);
    c.create(spec("a"));
    c.apply(Command::DeleteVm { name: name("a") });
    let text = serde_json::to_string(&c.state).expect("json");
    assert_eq!(serde_json::from_str::<blixard_core::ClusterState>(&text).expect("json"), c.state);
}

fn any_command() -> impl Strategy<Value = Command> {
    let vm = (0..6_u8).prop_map(|n| name(&format!("vm{n}")));
    prop_oneof![
        (vm.clone(), 64..900_u64, 0..5_u32).prop_map(|(vm, memory_mib, cpus)| {
            let mut spec = spec(vm.as_str());
            spec.memory_mib = memory_mib;
            spec.cpus = cpus;
            Command::CreateVm { spec, desired: Desired::Running, eligible: vec![] }
        }),
        vm.clone().prop_map(|name| Command::StartVm { name }),
        vm.clone().prop_map(|name| Command::StopVm { name }),
        vm.clone().prop_map(|name| Command::DeleteVm { name }),
        (vm, 1..4_u8, 0..60_u64).prop_map(|(name, n, generation)| Command::ConfirmGone {
            name,
            node: node(&format!("n{n}")),
            generation,
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_applied_nothing_is_promised_twice(
        commands in prop::collection::vec(any_command(), 1..60)
    ) {
        let mut a = Cluster::of(3);
        let mut b = Cluster::of(3);
        for command in commands {
            let command = match command {
                Command::CreateVm { spec, desired, .. } => {
                    Command::CreateVm { spec, desired, eligible: a.eligible.clone() }
                }
                other => other,
            };
            prop_assert_eq!(a.apply(command.clone()), b.apply(command));
            for node in &a.eligible {
                let offered = a.state.capacity_of(node).expect("said so");
                let (reserved, _) = a.state.reserved(node);
                prop_assert!(reserved.memory_mib <= offered.memory_mib && reserved.cpus <= offered.cpus);
            }
        }
        prop_assert_eq!(a.state, b.state);
    }
}
