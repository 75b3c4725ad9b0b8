//! A spec that changes: what is refused, what it reserves, which order its unit is to obey.

use blixard_core::state::HELD_DISKS_MAX;
use blixard_model::vm::{DISKS_MAX, OVERHEAD_MIB};
use blixard_model::{Capacity, Command, Disk, OnNodeLoss, OrderId, Outcome, Refusal, VmSpec};

use crate::common::{CAPACITY, Cluster, name, node, spec};

fn change(cluster: &mut Cluster, spec: VmSpec, seen: Option<u64>) -> Outcome {
    cluster.apply(Command::ChangeVm { spec, seen })
}

fn refused(outcome: Outcome) -> Refusal {
    let Outcome::Refused { refusal } = outcome else { panic!("not refused: {outcome:?}") };
    refusal
}

/// The VM `a`, made at index 2.
fn with_a() -> Cluster {
    let mut cluster = Cluster::of(1);
    cluster.create(spec("a"));
    cluster
}

#[test]
fn a_change_gives_the_spec_another_revision_and_leaves_the_placement() {
    let mut c = with_a();
    // What nobody chooses stays as it was chosen when the VM was made.
    let larger = VmSpec { memory_mib: 512, on_node_loss: Some(OnNodeLoss::Failover), ..spec("a") };
    assert_eq!(c.state.vms[&name("a")].order_id(), OrderId::new(2, 0));
    assert_eq!(change(&mut c, larger.clone(), Some(0)), Outcome::done(Some(node("n1"))));
    let vm = &c.state.vms[&name("a")];
    assert_eq!((vm.order_id(), &vm.spec), (OrderId::new(2, 3), &larger));
    assert_eq!(c.state.reserved(&node("n1")).0.memory_mib, 512 + OVERHEAD_MIB);
    // The same again is no change: nothing is started anew for it.
    assert_eq!(change(&mut c, larger.clone(), None), Outcome::unchanged(Some(node("n1"))));
    assert_eq!(c.state.vms[&name("a")].revision, 3);
    // Whoever has seen the spec before changes nothing.
    let stale = refused(change(&mut c, spec("a"), Some(0)));
    assert_eq!(stale, Refusal::SpecChanged { name: name("a"), revision: 3 });
    assert_eq!(change(&mut c, spec("a"), Some(3)), Outcome::done(Some(node("n1"))));
    assert_eq!(c.state.vms[&name("a")].revision, 6);
}

#[test]
fn what_cannot_be_changed_is_refused_and_stays() {
    let mut c = with_a();
    let before = c.state.vms.clone();
    assert_eq!(refused(change(&mut c, spec("b"), None)), Refusal::VmNotFound { name: name("b") });
    let wrong = VmSpec { kernel: "k".into(), ..spec("a") };
    assert!(matches!(refused(change(&mut c, wrong, None)), Refusal::InvalidSpec(_)));
    let elsewhere = VmSpec { node: Some(node("n2")), ..spec("a") };
    let said = refused(change(&mut c, elsewhere, None));
    assert_eq!(said, Refusal::PlacedElsewhere { name: name("a"), node: node("n1") });
    let large = VmSpec { memory_mib: CAPACITY.memory_mib, ..spec("a") };
    let said = refused(change(&mut c, large, None)).to_string();
    assert!(said.contains("n1: 2048 MiB of memory free, 2240 needed"), "{said}");
    assert_eq!(c.state.vms, before);
    c.apply(Command::DeleteVm { name: name("a") });
    let said = refused(change(&mut c, VmSpec { memory_mib: 512, ..spec("a") }, None));
    assert_eq!(said, Refusal::VmDeleting { name: name("a"), node: node("n1") });
}

#[test]
fn its_own_disks_and_reservation_are_in_nobody_s_way_and_those_of_others_are() {
    let mut c = with_a();
    let disk = |path: &str| Disk { path: path.into(), read_only: false };
    let with = |disks: Vec<Disk>| VmSpec { disks, ..spec("a") };
    assert!(matches!(change(&mut c, with(vec![disk("/d/a.raw")]), None), Outcome::Done { .. }));
    let grown = with(vec![disk("/d/a.raw"), disk("/d/a2.raw")]);
    assert!(matches!(change(&mut c, grown, None), Outcome::Done { .. }));
    let other = VmSpec { disks: vec![disk("/d/b.raw")], ..spec("b") };
    assert!(matches!(c.create(other), Outcome::Done { .. }));
    let said = refused(change(&mut c, with(vec![disk("/d/b.raw")]), None)).to_string();
    assert!(said.contains("disk /d/b.raw is in use by VM b"), "{said}");
    // All that is left besides b's, a's own included.
    let (reserved, _) = c.state.reserved(&node("n1"));
    let own = spec("a").reserved_memory_mib();
    let left = CAPACITY.memory_mib - reserved.memory_mib + own - OVERHEAD_MIB;
    let whole = VmSpec { memory_mib: left, ..with(vec![disk("/d/a.raw")]) };
    assert!(matches!(change(&mut c, whole, None), Outcome::Done { .. }));
    assert_eq!(c.state.reserved(&node("n1")).0.memory_mib, CAPACITY.memory_mib);
}

#[test]
fn a_vm_may_become_smaller_on_a_node_that_offers_less_than_it_reserves() {
    let mut c = with_a();
    let less = Capacity { cpus: 0, memory_mib: 1 };
    c.change_offer(1, |offer| offer.capacity = Some(less));
    let smaller = VmSpec { memory_mib: 128, ..spec("a") };
    assert!(matches!(change(&mut c, smaller, None), Outcome::Done { .. }));
    assert!(matches!(change(&mut c, VmSpec { memory_mib: 129, ..spec("a") }, None), Outcome::Refused { .. }));
}

#[test]
fn what_the_spec_before_took_stays_taken_until_the_node_says_that_no_unit_runs_by_it() {
    let disk = |path: &str, read_only| Disk { path: path.into(), read_only };
    let mut c = Cluster::of(1);
    let old = VmSpec { memory_mib: 900, cpus: 3, disks: vec![disk("/d/old.raw", false)], ..spec("a") };
    c.create(old.clone());
    let new = VmSpec { memory_mib: 64, cpus: 1, disks: vec![disk("/d/new.raw", false)], ..spec("a") };
    assert!(matches!(change(&mut c, new.clone(), None), Outcome::Done { .. }));
    let order = c.state.vms[&name("a")].order_id();
    let taken = |c: &Cluster| c.state.reserved(&node("n1")).0;
    let of_old = Capacity { cpus: 3, memory_mib: old.reserved_memory_mib() };
    assert_eq!(taken(&c), of_old);
    let heir = VmSpec { disks: vec![disk("/d/old.raw", true)], ..spec("heir") };
    let said = refused(c.create(heir.clone())).to_string();
    assert!(said.contains("disk /d/old.raw is in use by VM a"), "{said}");
    // Of another placement, node or revision it says nothing.
    let confirm =
        |node_name: &str, order| Command::ConfirmSpec { name: name("a"), node: node(node_name), order };
    let earlier = OrderId { revision: 0, ..order };
    let other = OrderId { generation: order.generation + 1, ..order };
    for ignored in [confirm("n1", earlier), confirm("n1", other), confirm("n2", order)] {
        assert_eq!(c.apply(ignored), Outcome::unchanged(Some(node("n1"))));
    }
    assert_eq!(taken(&c), of_old);
    // What is confirmed too late, when it was changed once more, says nothing of that change.
    assert!(matches!(change(&mut c, VmSpec { cpus: 2, ..new.clone() }, None), Outcome::Done { .. }));
    assert_eq!(c.apply(confirm("n1", order)), Outcome::unchanged(Some(node("n1"))));
    let order = c.state.vms[&name("a")].order_id();
    assert_eq!(c.apply(confirm("n1", order)), Outcome::done(Some(node("n1"))));
    assert_eq!(taken(&c), Capacity { cpus: 2, memory_mib: new.reserved_memory_mib() });
    assert_eq!(c.apply(confirm("n1", order)), Outcome::unchanged(Some(node("n1"))));
    assert!(matches!(c.create(heir), Outcome::Done { .. }));
    // Grown again it is refused: the disk is the heir's now.
    let said = refused(change(&mut c, old, None)).to_string();
    assert!(said.contains("disk /d/old.raw is in use by VM heir"), "{said}");
}

#[test]
fn a_vm_that_once_asked_for_a_lease_may_run_under_one_until_its_node_confirms_the_change() {
    let mut c = with_a();
    let of = |on_node_loss| VmSpec { on_node_loss: Some(on_node_loss), ..spec("a") };
    let (failover, keep) = (of(OnNodeLoss::Failover), of(OnNodeLoss::Keep));
    let may = |c: &Cluster| c.state.vms[&name("a")].may_run_under_a_lease();
    for (spec, before, after) in [(keep.clone(), true, false), (failover, true, true), (keep, true, false)] {
        assert!(matches!(change(&mut c, spec, None), Outcome::Done { .. }));
        assert_eq!(may(&c), before);
        let order = c.state.vms[&name("a")].order_id();
        c.apply(Command::ConfirmSpec { name: name("a"), node: node("n1"), order });
        assert_eq!(may(&c), after);
    }
}

#[test]
fn a_node_that_confirms_nothing_bounds_how_often_a_spec_changes_its_disks() {
    let mut c = with_a();
    let with_disks = |n: usize| {
        let disk = |m: usize| Disk { path: format!("/d/{n}-{m}.raw"), read_only: false };
        VmSpec { disks: (0..DISKS_MAX).map(disk).collect(), ..spec("a") }
    };
    let changes = HELD_DISKS_MAX / DISKS_MAX;
    for n in 0..=changes {
        assert!(matches!(change(&mut c, with_disks(n), None), Outcome::Done { .. }), "{n}");
    }
    let said = refused(change(&mut c, with_disks(changes + 1), None)).to_string();
    assert!(said.contains("n1 has not confirmed the earlier changes"), "{said}");
    assert!(said.contains("change it again once n1 answers"), "{said}");
    let order = c.state.vms[&name("a")].order_id();
    c.apply(Command::ConfirmSpec { name: name("a"), node: node("n1"), order });
    assert!(matches!(change(&mut c, with_disks(changes + 1), None), Outcome::Done { .. }));
}
