//! Disks that several nodes have: who may have them, and which VMs other nodes take over for it.

use blixard_model::{
    BootId, ClusterVersion, Command, Desired, Disk, FieldProblem, FieldRefused, Lack, Offer, OnNodeLoss,
    OrderId, Outcome, RaftId, Reason, Refusal, VmSpec,
};
use proptest::prelude::*;

use crate::common::{Cluster, endpoint, genesis, name, node, spec};

const SHARED: &str = "/mnt/shared";

fn writes(vm: &str, path: &str) -> VmSpec {
    VmSpec { disks: vec![Disk { path: path.to_owned(), read_only: false }], ..spec(vm) }
}

fn failover(spec: VmSpec) -> VmSpec {
    VmSpec { on_node_loss: Some(OnNodeLoss::Failover), ..spec }
}

/// What node `n` says that it shares.
fn share(c: &mut Cluster, n: u8, dirs: &[&str]) -> Outcome {
    let offer = c.state.member_by_endpoint(endpoint(n)).expect("a member").node.offer.clone();
    let shared_dirs = dirs.iter().map(ToString::to_string).collect();
    c.apply(Command::SetNode { endpoint_id: endpoint(n), offer: Offer { shared_dirs, ..offer } })
}

/// Three nodes that obey leases, of which n1 and n2 share a directory.
fn cluster() -> Cluster {
    let mut c = Cluster::of(3);
    for n in 1..=3 {
        let boot_id = BootId::from_bytes([1; 16]);
        c.apply(Command::EnforceLease { raft_id: RaftId(n), boot_id, epoch: 1 });
    }
    for n in [1, 2] {
        assert!(matches!(share(&mut c, n, &[SHARED]), Outcome::Done { unchanged: false, .. }));
    }
    c
}

fn lost(n: &str) -> Command {
    Command::NodeLost {
        node: node(n),
        term: 1,
        eligible: vec![node("n1"), node("n2"), node("n3")],
        seen: None,
    }
}

fn placed_on(c: &Cluster, vm: &str) -> String {
    c.state.vms[&name(vm)].placement.node.to_string()
}

fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused { refusal } => refusal,
        Outcome::Done { .. } => panic!("done"),
    }
}

#[test]
fn a_vm_with_a_shared_disk_is_placed_and_taken_over_where_the_disk_is() {
    let mut c = cluster();
    // n3 has the most room by far.
    c.create(VmSpec { node: Some(node("n1")), ..spec("a") });
    c.create(VmSpec { node: Some(node("n2")), cpus: 2, memory_mib: 512, ..spec("b") });
    assert!(matches!(c.create(writes("web", "/mnt/shared/web.raw")), Outcome::Done { .. }));
    let web = c.state.vms[&name("web")].clone();
    assert!(web.spec.fails_over(), "nobody has chosen, and its disk is not bound to a node");
    assert_eq!(web.placement.node, node("n1"));
    assert!(matches!(c.create(writes("own", "/var/own.raw")), Outcome::Done { .. }));
    assert_eq!(c.state.vms[&name("own")].spec.on_node_loss, Some(OnNodeLoss::Keep));
    c.apply(lost("n1"));
    assert_eq!(placed_on(&c, "web"), "n2");
    c.apply(Command::NodeLost { node: node("n2"), term: 1, eligible: vec![node("n3")], seen: None });
    assert_eq!(placed_on(&c, "web"), "n2", "no other node that is there has the disk");
}

#[test]
fn failover_of_a_disk_that_no_node_shares_is_refused_with_the_way_out() {
    let mut c = cluster();
    let mut two = failover(writes("web", "/mnt/shared/web.raw"));
    two.disks.push(Disk { path: "/var/own.raw".to_owned(), read_only: false });
    for spec in [failover(writes("web", "/var/own.raw")), two.clone()] {
        let Refusal::InvalidSpec(invalid) = refusal(c.create(spec)) else { panic!("another refusal") };
        assert_eq!(invalid.field, "on_node_loss");
        assert!(matches!(&invalid.problem, Reason::Code(FieldProblem::FailoverOfUnshared { .. })));
        let words = invalid.to_string();
        assert!(words.contains("list its directory as shared in vms.disk_dirs"), "{words}");
    }
    two.disks[1].read_only = true;
    assert!(matches!(c.create(two), Outcome::Done { .. }), "what it only reads may differ");
    // It shares it, and cannot be reached.
    let eligible = vec![node("n3")];
    let spec = failover(writes("db", "/mnt/shared/db.raw"));
    let refused = refusal(c.apply(Command::CreateVm { spec, desired: Desired::Running, eligible }));
    let Refusal::DoesNotFit { nodes, .. } = refused else { panic!("another refusal") };
    let Reason::Code(lacks) = &nodes[&node("n3")] else { panic!("words") };
    assert_eq!(lacks.0, [Lack::NotShared { path: "/mnt/shared/db.raw".to_owned() }]);
}

#[test]
fn a_shared_disk_that_is_written_is_of_one_vm_in_the_whole_cluster() {
    let mut c = cluster();
    let at = |vm: &str, n: &str, read_only: bool| {
        let disks = vec![Disk { path: "/mnt/shared/web.raw".to_owned(), read_only }];
        VmSpec { disks, node: Some(node(n)), ..spec(vm) }
    };
    c.create(at("web", "n1", false));
    for n in ["n1", "n2", "n3"] {
        for read_only in [false, true] {
            let refused = refusal(c.create(at("other", n, read_only)));
            assert!(refused.to_string().contains("/mnt/shared/web.raw is in use by VM web"), "{refused}");
        }
    }
    // A VM that is elsewhere cannot get it by a change either.
    c.create(VmSpec { node: Some(node("n2")), ..spec("other") });
    let changed = c.apply(Command::ChangeVm { spec: at("other", "n2", false), seen: None });
    assert!(refusal(changed).to_string().contains("is in use by VM web"));
    c.apply(Command::ChangeVm { spec: at("web", "n1", true), seen: None });
    let refused = refusal(c.create(at("reads", "n2", true)));
    assert!(refused.to_string().contains("in use by VM web"), "a unit may still write it");
    let order = c.state.vms[&name("web")].order_id();
    c.apply(Command::ConfirmSpec { name: name("web"), node: node("n1"), order });
    assert!(matches!(c.create(at("reads", "n2", true)), Outcome::Done { .. }), "both read it");
    // What is no node's shared disk is another file on each.
    for n in ["n1", "n2"] {
        let own = VmSpec { node: Some(node(n)), ..writes(&format!("own-{n}"), "/var/own.raw") };
        assert!(matches!(c.create(own), Outcome::Done { .. }));
    }
}

#[test]
fn a_vm_whose_node_shares_its_disk_no_more_stays_and_goes_nowhere() {
    let mut c = cluster();
    c.create(failover(writes("web", "/mnt/shared/web.raw")));
    assert_eq!(placed_on(&c, "web"), "n1");
    share(&mut c, 1, &[]);
    assert!(c.state.taken_from(&node("n1")).is_empty());
    c.apply(lost("n1"));
    assert_eq!(placed_on(&c, "web"), "n1", "n1 may have other files there than n2");
    // A change that leaves it as it is, or keeps it where it is, can be made.
    let keep = VmSpec { on_node_loss: Some(OnNodeLoss::Keep), ..writes("web", "/mnt/shared/web.raw") };
    let bigger = VmSpec { memory_mib: 300, ..failover(writes("web", "/mnt/shared/web.raw")) };
    let refused = refusal(c.apply(Command::ChangeVm { spec: bigger, seen: None }));
    assert!(refused.to_string().contains("does not lie in a directory that the node shares"), "{refused}");
    assert!(matches!(c.apply(Command::ChangeVm { spec: keep, seen: None }), Outcome::Done { .. }));
    let mut c = cluster();
    c.create(failover(writes("web", "/mnt/shared/web.raw")));
    // The node that would take it over has it no more.
    share(&mut c, 2, &[]);
    c.apply(lost("n1"));
    assert_eq!(placed_on(&c, "web"), "n1");
    share(&mut c, 2, &[SHARED]);
    c.apply(lost("n1"));
    assert_eq!(placed_on(&c, "web"), "n2");
}

#[test]
fn a_directory_with_a_file_of_two_vms_cannot_become_shared() {
    let mut c = Cluster::of(3);
    for n in ["n1", "n2"] {
        c.create(VmSpec { node: Some(node(n)), ..writes(&format!("on-{n}"), "/mnt/shared/web.raw") });
    }
    let why = FieldRefused::SharedDiskTwice {
        dir: SHARED.to_owned(),
        path: "/mnt/shared/web.raw".to_owned(),
        vm: name("on-n1"),
        other: name("on-n2"),
    };
    assert_eq!(refusal(share(&mut c, 3, &[SHARED])), Refusal::Invalid { why: Reason::Code(why.clone()) });
    assert_eq!(c.state.sharing_problem(SHARED), Some(why));
    c.apply(Command::DeleteVm { name: name("on-n2") });
    let generation = c.state.vms[&name("on-n2")].placement.generation;
    c.apply(Command::ConfirmGone { name: name("on-n2"), node: node("n2"), generation });
    assert!(matches!(share(&mut c, 3, &[SHARED]), Outcome::Done { unchanged: false, .. }));
}

#[test]
fn what_is_no_plain_path_or_too_much_is_not_shared() {
    let mut c = Cluster::of(1);
    for dirs in [&["relative"][..], &["/"], &["/a/"], &["/a/../b"], &["/a", "/a"], &["/a\n"]] {
        let refused = refusal(share(&mut c, 1, dirs));
        assert!(refused.to_string().contains("shared directory"), "{refused}");
    }
    let many: Vec<String> = (0..17).map(|n| format!("/d{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(refusal(share(&mut c, 1, &many)).to_string().contains("more than 16 shared directories"));
}

#[test]
fn before_the_version_that_brings_it_nothing_is_shared() {
    let mut c = Cluster::of(2);
    c.state = blixard_core::ClusterState::new(blixard_model::formation::Genesis {
        version: ClusterVersion::LEASES,
        ..genesis(2)
    });
    assert!(matches!(share(&mut c, 1, &[SHARED]), Outcome::Done { unchanged: true, .. }));
    assert!(!c.state.is_shared("/mnt/shared/web.raw"));
    let refused = refusal(c.create(failover(writes("web", "/mnt/shared/web.raw"))));
    assert!(refused.to_string().contains("failover is for a VM without a disk that it writes"), "{refused}");
    c.create(writes("web", "/mnt/shared/web.raw"));
    assert_eq!(c.state.vms[&name("web")].spec.on_node_loss, Some(OnNodeLoss::Keep));
}

/// Something that happens to a cluster of three: numbers choose among few VMs, nodes, disks and directories.
#[derive(Debug, Clone)]
enum Step {
    Create { vm: u8, disk: u8, read_only: bool, pin: Option<u8>, fails_over: Option<bool> },
    Change { vm: u8, disk: u8, read_only: bool },
    Delete(u8),
    Gone(u8),
    Confirm(u8),
    Share { node: u8, dirs: Vec<u8> },
    Lost(u8),
}

const DIRS: [&str; 3] = ["/a", "/a/b", "/c"];
const DISKS: [&str; 4] = ["/a/1.raw", "/a/b/2.raw", "/c/3.raw", "/d/4.raw"];

fn any_step() -> impl Strategy<Value = Step> {
    let vm = 0..5_u8;
    let disk = 0..DISKS.len() as u8;
    prop_oneof![
        4 => (vm.clone(), disk.clone(), any::<bool>(), prop::option::of(1..4_u8), any::<Option<bool>>())
            .prop_map(|(vm, disk, read_only, pin, fails_over)| {
                Step::Create { vm, disk, read_only, pin, fails_over }
            }),
        2 => (vm.clone(), disk, any::<bool>())
            .prop_map(|(vm, disk, read_only)| Step::Change { vm, disk, read_only }),
        1 => vm.clone().prop_map(Step::Delete),
        2 => vm.clone().prop_map(Step::Gone),
        2 => vm.prop_map(Step::Confirm),
        3 => (1..4_u8, prop::collection::vec(0..DIRS.len() as u8, 0..3))
            .prop_map(|(node, dirs)| Step::Share { node, dirs }),
        1 => (1..4_u8).prop_map(Step::Lost),
    ]
}

fn vm_of(number: u8) -> String {
    format!("vm{number}")
}

fn with_disk(vm: u8, disk: u8, read_only: bool) -> VmSpec {
    let disks = vec![Disk { path: DISKS[usize::from(disk)].to_owned(), read_only }];
    VmSpec { disks, ..spec(&vm_of(vm)) }
}

fn take(c: &mut Cluster, step: Step) {
    let named = |vm: u8| name(&vm_of(vm));
    match step {
        Step::Create { vm, disk, read_only, pin, fails_over } => {
            let on_node_loss = fails_over.map(|is| if is { OnNodeLoss::Failover } else { OnNodeLoss::Keep });
            let node = pin.map(|n| node(&format!("n{n}")));
            c.create(VmSpec { on_node_loss, node, ..with_disk(vm, disk, read_only) });
        }
        Step::Change { vm, disk, read_only } => {
            let spec = with_disk(vm, disk, read_only);
            c.apply(Command::ChangeVm { spec, seen: None });
        }
        Step::Delete(vm) => _ = c.apply(Command::DeleteVm { name: named(vm) }),
        Step::Gone(vm) => {
            let Some(record) = c.state.vms.get(&named(vm)).cloned() else { return };
            let blixard_model::Placement { node, generation } = record.placement;
            c.apply(Command::ConfirmGone { name: named(vm), node, generation });
        }
        Step::Confirm(vm) => {
            let Some(record) = c.state.vms.get(&named(vm)).cloned() else { return };
            let order: OrderId = record.order_id();
            c.apply(Command::ConfirmSpec { name: named(vm), node: record.placement.node, order });
        }
        Step::Share { node, mut dirs } => {
            dirs.sort_unstable();
            dirs.dedup();
            let dirs: Vec<&str> = dirs.into_iter().map(|dir| DIRS[usize::from(dir)]).collect();
            share(c, node, &dirs);
        }
        Step::Lost(n) => {
            let boot_id = BootId::from_bytes([1; 16]);
            c.apply(Command::EnforceLease { raft_id: RaftId(n.into()), boot_id, epoch: 1 });
            c.apply(lost(&format!("n{n}")));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_happens_a_shared_disk_has_one_vm_that_writes_it_or_none(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let mut c = cluster();
        let mut before = c.state.clone();
        for step in steps {
            take(&mut c, step.clone());
            for path in DISKS.into_iter().filter(|path| c.state.is_shared(path)) {
                let users: Vec<_> = c.state.vms.values()
                    .filter(|vm| vm.reserved_disks().any(|disk| disk.path == path))
                    .collect();
                let written = users.iter()
                    .any(|vm| vm.reserved_disks().any(|disk| disk.path == path && !disk.read_only));
                prop_assert!(!written || users.len() == 1, "{path} after {step:?}: {users:?}");
            }
            // Who was given to another node had its disks shared there and, as far as is known, here.
            for vm in c.state.vms.values() {
                let was = before.vms.get(&vm.spec.name).filter(|was| was.placement != vm.placement);
                let Some(was) = was.filter(|_| matches!(step, Step::Lost(_))) else { continue };
                for n in [&was.placement.node, &vm.placement.node] {
                    prop_assert_eq!(before.unshared_disk(&was.spec, n), None);
                }
            }
            before = c.state.clone();
        }
    }
}
